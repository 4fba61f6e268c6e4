"""How robust is a model? Attacks on a zoo model, a .keras file or a .tflite file.

    python -m zoo.evaluate --model=NAME_OR_PATH --attacks=clean,fgsm,pgd --eps=8/255 --json=r.json

Prints a table; writes beside r.json the page r.html and r.safetensors, what each example did under
each attack. The same command continues where it was stopped; with more attacks, it adds them. A
.tflite file is shown beside the float model that it was made from.
"""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import tensorflow as tf
from absl import flags

from tfsparse import machine
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from zoo.commands import commandline
from zoo.data import as_float
from zoo.loading import check_fit, find_dataset
from zoo.robustness import catalogue, masking, pictures, runner
from zoo.robustness.intervals import wilson
from zoo.robustness.subjects import find_subject

FLAGS = flags.FLAGS
MASKING_ATTACKS = ("fgsm", "pgd", "square", "random")
FLOAT = "float/"  # before the names of the attacks on the model that a file was made from


def define_flags():
    flags.DEFINE_string("model", None, "Zoo name, .keras or .tflite file.", required=True)
    flags.DEFINE_list("attacks", ["clean", "fgsm", "pgd"], f"Of {', '.join(catalogue.NAMES)}.")
    commandline.define_fraction("eps", 8 / 255, "L_inf bound; images are in [0, 1].")
    flags.DEFINE_integer("examples", 1000, "So many test images, the first ones.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Fixes everything random.", 0, 2**31 - 1)
    flags.DEFINE_string("json", None, "Also write the results to this file.")
    flags.DEFINE_integer("steps", 50, "Steps of PGD.", lower_bound=1)
    flags.DEFINE_integer("restarts", 1, "Restarts of PGD.", lower_bound=1)
    commandline.define_fraction("step_size", None, "Of PGD; default: 2.5 eps / steps.")
    flags.DEFINE_integer("queries", 5000, "Queries of Square, at most.", lower_bound=1)
    flags.DEFINE_string("source", None, "Keras model on which `transfer` makes its examples.")
    flags.DEFINE_list("sweep_eps", [], "Run PGD with each of these bounds, too.")
    flags.DEFINE_list("sweep_steps", [], "Run PGD with each of these numbers of steps, too.")
    flags.DEFINE_boolean("masking", False, "Check whether the model only hides its gradients.")
    flags.DEFINE_integer("batch_size", None, "Images at once; default: as fit.", lower_bound=1)
    flags.DEFINE_string("dataset", None, "Data set; default: the one the model was trained on.")
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this size.", lower_bound=1)


def main():
    check_flags()
    tf.get_logger().setLevel("ERROR")  # every attack compiles a function of its own, on purpose
    subject = find_subject(FLAGS.model)
    source = FLAGS.source or subject.source
    source = find_subject(source) if source else None
    options = catalogue.Options(
        FLAGS.eps,
        FLAGS.steps,
        FLAGS.restarts,
        FLAGS.step_size,
        FLAGS.queries,
        source=source,
    )
    data = find_dataset(subject.about, FLAGS.model, FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size)
    for each in (subject, source) if source else (subject,):
        check_fit(each.image_shape, each.num_classes, data)
    if source and source.model is None:
        raise UsageError(f"--source is a Keras model, not a file. Received: {source.name}")
    sweeps = planned_sweeps(options.eps)
    attacks = planned_attacks(subject, options, sweeps)
    images, labels = data.read("test", FLAGS.examples)
    hashed = hash_of_images(images, labels)
    images = as_float(images)

    identity = {
        "sha256": subject.sha256,
        "dataset": data.name,
        "examples": len(labels),
        "images": hashed,
        "seed": FLAGS.seed,
        "batch_size": FLAGS.batch_size or fitting_batch(subject, source),
    }
    path = FLAGS.json and pathlib.Path(FLAGS.json).with_suffix(".safetensors")
    results = runner.Results(path, identity, len(labels))
    for prefix, attacked, attack in attacks:
        runner.run(attacked, attack, images, labels, results, prefix)

    names = [prefix + attack.name for prefix, _, attack in attacks]
    names += [name for name in results.finished() if name not in names]
    report = {
        "model": FLAGS.model,
        "eps": options.eps,
        **identity,
        "results": {name: summary(results, name) for name in names},
        "sweeps": sweeps,
        "masking": masking_checks(results, sweeps, data.num_classes) if FLAGS.masking else [],
        "machine": machine.facts(),
    }
    print(pictures.text(report))
    if FLAGS.json:
        examples = adversarial_examples(subject, options, images, labels)
        page = pictures.page(report, examples, data.class_names)
        write_bytes(FLAGS.json, json.dumps(report, indent=2) + "\n")
        write_bytes(pathlib.Path(FLAGS.json).with_suffix(".html"), page)


def check_flags():
    """Refuses flags that are out of range before anything is read."""
    if not 0 < FLAGS.eps <= 1:
        raise UsageError(f"--eps must be in (0, 1]. Received: {FLAGS.eps}")
    if FLAGS.step_size is not None and not FLAGS.step_size > 0:
        raise UsageError(f"--step_size must be above 0. Received: {FLAGS.step_size}")
    if FLAGS.json and pathlib.Path(FLAGS.json).suffix != ".json":
        raise UsageError(f"--json must name a file that ends with .json. Received: {FLAGS.json}")
    for name in FLAGS.attacks:
        if name not in catalogue.NAMES:
            raise UsageError(
                f"--attacks are among {', '.join(catalogue.NAMES)}. Received: {name!r}"
            )


def planned_sweeps(eps):
    """Returns {"eps": {name: bound}, "steps": {name: number}} of the runs of PGD asked for."""
    bounds = [number("sweep_eps", text, commandline.fraction) for text in FLAGS.sweep_eps]
    steps = [number("sweep_steps", text, int) for text in FLAGS.sweep_steps]
    if FLAGS.masking:
        bounds += [min(1.0, multiple * eps) for multiple in masking.EPS_MULTIPLES]
        steps += masking.STEPS
    return {
        "eps": {f"pgd, eps {255 * bound:.4g}/255": bound for bound in sorted(set(bounds))},
        "steps": {f"pgd, {count} steps": count for count in sorted(set(steps))},
    }


def number(flag, text, parse):
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"--{flag} is a list of numbers. Received: {text!r}") from error


def fitting_batch(*subjects):
    """Returns how many images all models that are attacked take at once, `None`s left out."""
    return min(runner.fitting_batch(each.model) for each in subjects if each)


def masking_attacks():
    """Returns the names of the attacks that the checks of --masking are about."""
    if not FLAGS.masking:
        return []
    return [*MASKING_ATTACKS, *(["transfer"] if FLAGS.source else [])]


def hash_of_images(images, labels):
    """Returns the sha256 of images and labels: one name can stand for several data sets."""
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


def planned_attacks(subject, options, sweeps):
    """Returns what to run, a list of (prefix of the result's name, subject, attack)."""
    names = dict.fromkeys(["clean", *FLAGS.attacks, *masking_attacks()])
    planned = [("", subject, catalogue.make(name, subject, options)) for name in names]
    if subject.model is None:
        if sweeps["eps"] or sweeps["steps"]:
            raise UsageError("A .tflite file has no gradients to sweep. Sweep its Keras model.")
        if options.source:
            twins = [catalogue.make(name, options.source, options) for name in names]
            planned += [(FLOAT, options.source, attack) for attack in twins]
    for name, eps in sweeps["eps"].items():
        swept = dataclasses.replace(options, eps=eps, restarts=1, step_size=None)
        planned.append(("", subject, catalogue.pgd(subject, swept, name)))
    for name, steps in sweeps["steps"].items():
        swept = dataclasses.replace(options, steps=steps, restarts=1, step_size=None)
        planned.append(("", subject, catalogue.pgd(subject, swept, name)))
    return planned


def summary(results, name):
    """Returns accuracy, interval, settings and time of an attack, a dict for JSON."""
    correct, about = results.correct(name), results.about(name)
    return {
        "accuracy": float(np.mean(correct)),
        "interval": wilson(int(correct.sum()), len(correct)),
        "examples": len(correct),
        **about,
    }


def masking_checks(results, sweeps, num_classes):
    """Returns the checks of `zoo.robustness.masking` as dicts."""
    correct = {name: results.correct(name) for name in ("clean", *masking_attacks())}
    by_eps = {value: results.correct(name) for name, value in sweeps["eps"].items()}
    by_steps = {
        value: results.correct(name)
        for name, value in sweeps["steps"].items()
        if value in masking.STEPS
    }
    checks = masking.checks(correct, by_eps, by_steps, num_classes)
    return [dataclasses.asdict(check) for check in checks]


def adversarial_examples(subject, options, images, labels, count=8):
    """Returns (images, adversarial images, labels, classes seen) of some that were right; or None.

    They are PGD's on the model, or on the model that a file was made from.
    """
    attacked = subject if subject.model else options.source
    right = np.flatnonzero(subject.logits(images[:200]).argmax(axis=1) == labels[:200])[:count]
    if attacked is None or not len(right):
        return None
    images, labels = images[right], labels[right]
    adversarial = catalogue.pgd(attacked, options).perturb(images, labels, FLAGS.seed, 0)
    return images, adversarial, labels, subject.logits(adversarial).argmax(axis=1)


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
