"""What do fewer taps and fewer filter phases cost in accuracy? Trains ResNet8 with each pattern.

    python -m studies.accuracy --workdir=runs/accuracy --dataset=cifar10 --output=docs

Trains every pattern with every seed alike, from scratch, and reads the test set once for each run,
at its end. After each run --output holds the figures so far: pattern_accuracy.json, the table
pattern_accuracy.md and the plot pattern_accuracy.png. Runs that this JSON file holds are not
repeated, and one that was stopped goes on from its last epoch in --workdir.
"""

import json
import pathlib
import platform

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from matplotlib.figure import Figure

import zoo
from studies import recipe_runs
from tfsparse import cost, patterns
from tfsparse.checkpoints import Checkpoints
from tfsparse.errors import UsageError
from tfsparse.evaluation import accuracy
from tfsparse.files import replacing, write_bytes
from tfsparse.training import Trainer, sgd
from zoo.commands import commandline
from zoo.data import batches, on_cpu, open_dataset, training_batches

DENSE = "dense"
PATTERNS = [
    DENSE,
    *("PS4_P4", "PS4_P4_F2", "PS4_P4_F1", "PSD2_P8"),
    *("PS2_P6", "PS2_P6_F2", "PS2_P6_F1", "PSD1_P8"),
    *("PS1_P9", "PS1_P9_F2", "PS1_P9_F1"),
]
ARCH = "resnet8"
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 128, 0.1, 5e-3
NAME = "pattern_accuracy"

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    flags.DEFINE_string("output", None, "Folder for table, plot and JSON.", required=True)
    flags.DEFINE_string("dataset", "cifar10", "Image classification set of TFDS.")
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("note", "", "What a reader must know of the data, such as its form.")
    flags.DEFINE_list("patterns", PATTERNS, "Patterns to train; 'dense' is none.")
    flags.DEFINE_list("seeds", ["0", "1"], "Seeds to train each pattern with.")
    flags.DEFINE_integer("epochs", 8, "Epochs of each run.", lower_bound=1)


def main():
    try:
        seeds = [int(seed) for seed in FLAGS.seeds]
    except ValueError as error:
        raise UsageError(f"--seeds are integers. Received: {','.join(FLAGS.seeds)}") from error
    for pattern in FLAGS.patterns:
        if pattern != DENSE:
            patterns.parse(pattern)
    tf.get_logger().setLevel("ERROR")  # every run compiles functions of its own, on purpose
    dataset = open_dataset(FLAGS.dataset, FLAGS.data_dir)
    images = {split: on_cpu(*dataset.read(split)) for split in ("train", "validation", "test")}
    settings = {"arch": ARCH, "dataset": FLAGS.dataset, "note": FLAGS.note, "epochs": FLAGS.epochs}
    output = pathlib.Path(FLAGS.output)
    runs = recorded(output / f"{NAME}.json", settings)
    jobs = [(pattern, seed) for seed in seeds for pattern in FLAGS.patterns]
    for index, (pattern, seed) in enumerate(jobs, start=1):
        if any((run["pattern"], run["seed"]) == (pattern, seed) for run in runs):
            continue
        print(f"run {index} of {len(jobs)}: {pattern}, seed {seed}", flush=True)
        folder = pathlib.Path(FLAGS.workdir) / f"{pattern}_seed{seed}"
        runs.append({**settings, **train(dataset, images, pattern, seed, folder)})
        write_figures(output, runs)
    write_figures(output, runs)


def recorded(path, settings):
    """Returns the runs in the JSON file at `path`, if it is there."""
    if not path.exists():
        return []
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        fits = all(run[name] == value for run in runs for name, value in settings.items())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"Cannot read the runs in {path}: {error!r}. Remove the file.") from error
    if not fits:
        raise UsageError(f"{path} is of runs with other settings. Choose another --output.")
    return runs


def train(dataset, images, pattern, seed, folder):
    """Trains one network and returns what it costs and reaches, a dict."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = zoo.build(
        ARCH,
        dataset.image_shape,
        dataset.num_classes,
        pattern=None if pattern == DENSE else pattern,
    )
    steps = dataset.sizes["train"] // BATCH_SIZE * FLAGS.epochs
    trainer = Trainer(model, sgd(steps, LEARNING_RATE, WEIGHT_DECAY))
    checkpoints = Checkpoints(folder, trainer)
    checkpoints.restore()
    with checkpoints:
        for epoch in range(checkpoints.epoch, FLAGS.epochs):
            data = training_batches(
                *images["train"], BATCH_SIZE, seed, epoch, first=trainer.batches_done
            )
            title = f"epoch {epoch + 1}/{FLAGS.epochs}"
            row = trainer.run_epoch(data, seed, title, checkpoints.after_step)
            checkpoints.history.append(row)
            checkpoints.after_epoch()
    spent = cost.model_cost(model)
    reached = {
        f"{split}_accuracy": accuracy(model, batches(*images[split], 500))
        for split in ("validation", "test")
    }
    print(f"  test accuracy {100 * reached['test_accuracy']:.2f} %", flush=True)
    return {
        "pattern": pattern,
        "seed": seed,
        **reached,
        "test_examples": dataset.sizes["test"],
        "conv_parameters": spent.conv_parameters,
        "macs": spent.macs,
        "loss": [row["loss"] for row in checkpoints.history],
        "seconds": sum(row["seconds"] for row in checkpoints.history),
        "hardware": f"{machine.cores()} CPU cores, {platform.machine()}",
    }


def write_figures(folder, runs):
    """Writes the JSON, the table and the plot of `runs`."""
    runs = sorted(runs, key=lambda run: (*_order(run["pattern"]), run["seed"]))
    write_bytes(folder / f"{NAME}.json", json.dumps(runs, indent=2) + "\n")
    write_bytes(folder / f"{NAME}.md", table(runs))
    with replacing(folder / f"{NAME}.png") as partial:
        picture(runs).savefig(partial, dpi=120)


def _order(pattern):
    """The order of the table: that of PATTERNS, others after them."""
    return (PATTERNS.index(pattern) if pattern in PATTERNS else len(PATTERNS), pattern)


def table(runs):
    """Returns the Markdown table of all runs: cost, and mean and spread of the test accuracy."""
    first = runs[0]
    data = first["dataset"] + (f" ({first['note']})" if first["note"] else "")
    lines = [
        "# Accuracy with each pattern",
        "",
        f"From `python -m studies.accuracy`: {first['arch']} on {data}, {first['epochs']} "
        f"epochs one-cycle, trained on {first['hardware']}; accuracy on "
        f"{first['test_examples']:,} test images, mean ± sample standard deviation over n seeds.",
        "",
        "| pattern | convolution weights | MACs, M | test accuracy, % | n |",
        "|---|---|---|---|---|",
    ]
    for pattern, group in recipe_runs.by(runs, "pattern").items():
        reached = recipe_runs.mean_text([run["test_accuracy"] for run in group])
        lines.append(
            f"| {pattern} | {group[0]['conv_parameters']:,} | {group[0]['macs'] / 1e6:.2f} "
            f"| {reached} | {len(group)} |"
        )
    return "\n".join(lines) + "\n"


def picture(runs):
    """Returns the figure of accuracy against MACs, a point for each run and a line through means.

    The lines join the patterns of as many filter phases; `dense` belongs to all of them.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    grouped = recipe_runs.by(runs, "pattern")
    colours = {"dense": "black", "paper": "tab:blue", "F2": "tab:orange", "F1": "tab:red"}
    labels = {
        "paper": "as many filter phases as the period (the paper's)",
        "F2": "two filter phases",
        "F1": "one filter phase",
        "PSD": "one dense kernel in each period",
    }
    families = {}
    for pattern, group in grouped.items():
        families.setdefault(_family(pattern), []).append(group)
    for family, groups in families.items():
        points = sorted(
            (g[0]["macs"] / 1e6, np.mean([100 * run["test_accuracy"] for run in g])) for g in groups
        )
        colour = colours.get(family, "tab:green")
        line = "" if family in ("dense", "PSD") else "-"
        axes.plot(*zip(*points, strict=True), f"o{line}", color=colour, label=labels.get(family))
        for group in groups:
            macs = [run["macs"] / 1e6 for run in group]
            values = [100 * run["test_accuracy"] for run in group]
            axes.plot(macs, values, "_", color=colour, markersize=10)
            # Patterns of as many weights share a place and are told apart by colour.
            if family not in ("F1", "F2"):
                place = (-52, -3) if family == "PSD" else (12, -14)
                axes.annotate(
                    group[0]["pattern"],
                    (macs[0], np.mean(values)),
                    textcoords="offset points",
                    xytext=place,
                    fontsize="small",
                )
    axes.set(xlabel="multiply-accumulates of an image, M", ylabel="test accuracy in %")
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return figure


def _family(pattern):
    if pattern == DENSE:
        return DENSE
    if pattern.startswith("PSD"):
        return "PSD"
    return pattern.rpartition("_")[2] if "_F" in pattern else "paper"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
