"""Attacks a zoo model, a .keras file, or a .tflite file, and measures its accuracy.

    tfsparse evaluate --model=NAME_OR_PATH --attacks=clean,fgsm,pgd --eps=8/255 --json=r.json

Prints a table. With --json, also writes the page r.html and r.safetensors, the result of each
example under each attack, beside r.json. The same command continues a run that was stopped, and
adds attacks to one that is complete. A .tflite file is shown beside the float model that it was
made from.
"""

import pathlib

from absl import flags

from zoo.commands import commandline
from zoo.commands.commandline import DATASET
from zoo.robustness import ATTACKS

FLAGS = flags.FLAGS
BESIDE = (".safetensors", ".html")  # of the other files that --json writes


def define_flags():
    flags.DEFINE_string(
        "model", None, "Zoo model, run's folder, .keras or .tflite file.", required=True
    )
    flags.DEFINE_list("attacks", ["clean", "fgsm", "pgd"], f"Any of {', '.join(ATTACKS)}.")
    commandline.define_fraction("eps", 8 / 255, "L_inf bound; images are in [0, 1].")
    flags.DEFINE_integer("examples", 1000, "Number of test images, the first ones.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Fixes everything random.", 0, 2**31 - 1)
    flags.DEFINE_string("json", None, "Also write the results to this file.")
    flags.DEFINE_integer("steps", 50, "Steps of PGD.", lower_bound=1)
    flags.DEFINE_integer("restarts", 1, "Restarts of PGD.", lower_bound=1)
    commandline.define_fraction("step_size", None, "Step size of PGD; by default 2.5 eps / steps.")
    flags.DEFINE_integer("queries", 5000, "Queries of Square, at most.", lower_bound=1)
    flags.DEFINE_string("source", None, "Keras model on which `transfer` makes its examples.")
    flags.DEFINE_list("sweep_eps", [], "Also run PGD with each of these bounds.")
    flags.DEFINE_list("sweep_steps", [], "Also run PGD with each of these numbers of steps.")
    flags.DEFINE_boolean("masking", False, "Check whether the model only hides its gradients.")
    flags.DEFINE_integer("batch_size", None, "Images in a batch; by default as many as fit.", 1)
    flags.DEFINE_string("dataset", None, DATASET)
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this size.", lower_bound=1)
    commandline.define_input_range()


def main():
    from tfsparse import backend, files
    from zoo.loading import find_dataset
    from zoo.robustness import evaluation, pictures
    from zoo.robustness.catalogue import Options
    from zoo.robustness.subjects import find_subject

    sweeps = check_flags()
    backend.expect_compilations()  # each attack compiles a function of its own
    backend.use_full_precision()  # so that figures are the same on every device
    subject = find_subject(FLAGS.model, FLAGS.input_range)
    source = FLAGS.source or subject.source
    source = find_subject(source, subject.input_range) if source else None
    options = Options(
        FLAGS.eps, FLAGS.steps, FLAGS.restarts, FLAGS.step_size, FLAGS.queries, source
    )
    plan = evaluation.Plan(FLAGS.attacks, options, *sweeps, FLAGS.masking)
    data = find_dataset(subject.about, FLAGS.model, FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size)
    report = evaluation.evaluate(
        subject, data, plan, FLAGS.examples, FLAGS.seed, FLAGS.batch_size, FLAGS.json
    )
    print(pictures.text(report))
    if FLAGS.json:
        paths = [pathlib.Path(FLAGS.json).with_suffix(end) for end in (".json", *BESIDE)]
        print("\n" + "\n".join(map(files.written, paths)))


def check_flags():
    """Raises a `UsageError` if a flag is out of range; returns the values of the two sweeps."""
    from tfsparse.errors import UsageError
    from zoo.robustness.catalogue import check_name

    if not 0 < FLAGS.eps <= 1:
        raise UsageError(f"--eps must be in (0, 1]. Received: {FLAGS.eps}")
    if FLAGS.step_size is not None and not 0 < FLAGS.step_size <= 1:
        raise UsageError(f"--step_size must be in (0, 1]. Received: {FLAGS.step_size}")
    if FLAGS.json is not None and pathlib.Path(FLAGS.json).suffix != ".json":
        raise UsageError(f"--json must name a file that ends with .json. Received: {FLAGS.json}")
    for name in FLAGS.attacks or [""]:
        check_name(name)
    found = []
    for name, parse in (("sweep_eps", commandline.fraction), ("sweep_steps", int)):
        try:
            found.append([parse(text) for text in FLAGS[name].value])
        except ValueError as error:
            raise UsageError(
                f"--{name} must be a list of numbers. Received: {','.join(FLAGS[name].value)!r}"
            ) from error
    return found
