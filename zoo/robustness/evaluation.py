"""Evaluates a model: plans the attacks, runs them, and reports the accuracy under each."""

import dataclasses
import json
import pathlib

import numpy as np

from tfsparse import machine, optional
from tfsparse.errors import UsageError
from tfsparse.examples import highest_chance
from tfsparse.files import write_bytes
from zoo.data import as_float, hash_of_images
from zoo.loading import check_fit
from zoo.models import dense_baseline
from zoo.robustness import OF_GRADIENTS, catalogue, deployed, flips, masking, pictures, runner
from zoo.robustness.intervals import wilson

MASKING_ATTACKS = ("fgsm", "pgd", "square", "random")
FLOAT = "float/"  # precedes the names of attacks on the model that a file was made from


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run on a model.

    Attributes:
        attacks: names, of `zoo.robustness.ATTACKS`; "clean" is always run.
        options: `catalogue.Options` of the attacks.
        sweep_eps: bounds, floats in (0, 1]; PGD is also run with each.
        sweep_steps: numbers of steps; PGD is also run with each.
        masking: whether to check for masked gradients, which runs `MASKING_ATTACKS` and sweeps.
    """

    attacks: tuple
    options: catalogue.Options
    sweep_eps: tuple = ()
    sweep_steps: tuple = ()
    masking: bool = False

    @property
    def masking_attacks(self):
        """Names of the attacks that the checks for masked gradients compare."""
        if not self.masking:
            return []
        return [*MASKING_ATTACKS, *(["transfer"] if self.options.source else [])]

    @property
    def sweeps(self):
        """{"eps": {name: bound}, "steps": {name: number}} of the runs of PGD."""
        bounds, steps = [*self.sweep_eps], [*self.sweep_steps]
        if self.masking:
            bounds += [min(1.0, multiple * self.options.eps) for multiple in masking.EPS_MULTIPLES]
            steps += masking.STEPS
        return {
            "eps": {f"pgd, eps {255 * bound:.4g}/255": bound for bound in sorted(set(bounds))},
            "steps": {f"pgd, {count} steps": count for count in sorted(set(steps))},
        }

    def attacks_on(self, subject):
        """Returns what to run on `subject`: (prefix of the result's name, `Subject`, `Attack`)."""
        options = self.options
        names = dict.fromkeys(["clean", *self.attacks, *self.masking_attacks])
        planned = [("", subject, catalogue.make(name, subject, options)) for name in names]
        if subject.model is None and options.source:
            source = options.source
            beside = [catalogue.make(name, source, options) for name in names if name != "diva"]
            planned += [(FLOAT, source, attack) for attack in beside]
        for setting, runs in self.sweeps.items():
            for name, value in runs.items():
                swept = dataclasses.replace(options, restarts=1, step_size=None, **{setting: value})
                planned.append(("", subject, catalogue.pgd(subject, swept, name)))
        return planned


def evaluate(subject, data, plan, examples=1000, seed=0, batch_size=None, path=None):
    """Attacks a model on the first test images of a data set, and continues a run that stopped.

    Args:
        subject: the `zoo.robustness.subjects.Subject` to attack. A file is shown beside
            `plan.options.source`, the model that it was made from.
        data: a `zoo.data.Dataset`.
        plan: a `Plan`.
        examples: number of test images.
        seed: int, 0 or more; fixes everything random.
        batch_size: images in a batch; None for as many as fit into memory.
        path: JSON file for the report, or None. The results of each example go beside it as
            .safetensors, and a page as .html.

    Returns:
        The report, a dict for JSON.

    Raises:
        UsageError: if model, data, and attacks do not fit together, or `path` has the results of
            another evaluation.
    """
    source = plan.options.source
    subjects = [subject, source] if source else [subject]
    for each in subjects:
        check_fit(each.image_shape, each.num_classes, data, each.class_names)
    if source and source.model is None:
        raise UsageError(f"--source must be a Keras model, not a file. Received: {source.name}")
    attacks = plan.attacks_on(subject)
    images, labels = data.read("test", examples)
    identity = {
        "sha256": subject.sha256,
        "dataset": data.name,
        "examples": len(labels),
        "images": hash_of_images(images, labels),
        "seed": seed,
        "batch_size": batch_size or min(runner.fitting_batch(each.model) for each in subjects),
    }
    images = as_float(images)
    path = path and pathlib.Path(path)
    follows = [a for prefix, _, a in attacks if not prefix and a.name.split(",")[0] in OF_GRADIENTS]
    twin_agreement = deployed.agreement(subject, images) if subject.content and follows else None
    results = runner.Results(path and path.with_suffix(".safetensors"), identity, len(labels))
    for prefix, attacked, attack in attacks:
        runner.run(attacked, attack, images, labels, results, prefix)
    names = [prefix + attack.name for prefix, _, attack in attacks]
    names += [name for name in results.finished() if name not in names]
    report = {
        "model": subject.name,
        "eps": plan.options.eps,
        "input_range": list(subject.input_range),
        "at_chance": bool(
            np.mean(results.correct("clean")) <= highest_chance(labels, data.num_classes)
        ),
        **identity,
        "twin_agreement": twin_agreement,
        "majority_accuracy": float(np.bincount(labels).max() / len(labels)),
        "dense_baseline": _baseline(subject, data),
        "results": {name: _result(results, name) for name in names},
        "sweeps": plan.sweeps,
        "masking": _masking_checks(results, plan, data.num_classes) if plan.masking else [],
        "machine": machine.facts(),
    }
    if path:
        write_bytes(path, json.dumps(report, indent=2) + "\n")
        optional.require(f"The page {path.with_suffix('.html')}", matplotlib="matplotlib")
        page = _page(report, subject, plan.options, images, labels, data.class_names)
        write_bytes(path.with_suffix(".html"), page)
    return report


def _result(results, name):
    """Returns accuracy, interval, success rate, settings, and time of an attack, for JSON."""
    correct = results.correct(name)
    clean = results.correct(f"{FLOAT}clean" if name.startswith(FLOAT) else "clean")
    return {
        "accuracy": float(np.mean(correct)),
        "interval": wilson(int(correct.sum()), len(correct)),
        "success_rate": flips.success_rate(clean, correct),
        "examples": len(correct),
        **results.about(name),
    }


def _baseline(subject, data):
    """Returns the zoo's dense network of the same kind and data, if it is another; or None."""
    about = subject.about
    if not about.get("model") or about.get("dataset") != data.name or "recipe" not in about:
        return None
    found = dense_baseline(about["model"], data.name, about["recipe"]["loss"])
    return None if found and found["name"] == about.get("name") else found


def _masking_checks(results, plan, num_classes):
    """Returns the checks of `zoo.robustness.masking` as dicts."""
    correct = {name: results.correct(name) for name in ("clean", *plan.masking_attacks)}
    by_eps = {value: results.correct(name) for name, value in plan.sweeps["eps"].items()}
    by_steps = {
        value: results.correct(name)
        for name, value in plan.sweeps["steps"].items()
        if value in masking.STEPS
    }
    checks = masking.checks(correct, by_eps, by_steps, num_classes)
    return [dataclasses.asdict(check) for check in checks]


def _page(report, subject, options, images, labels, class_names):
    """Returns the page of a report; `images` are float32 [n, h, w, c] in [0, 1].

    The adversarial examples on it attack the model or, of a file, the one that it was made from.
    """
    starts = range(0, len(images), report["batch_size"])
    parts = [subject.logits(images[start : start + report["batch_size"]]) for start in starts]
    predicted = np.concatenate(parts).argmax(axis=1)
    attacked = subject if subject.model else options.source
    found = None
    if attacked:
        perturb = catalogue.pgd(attacked, options).perturb
        found = flips.find_flips(subject.logits, perturb, images, labels, report["seed"])
    return pictures.page(report, found, (labels, predicted), class_names)
