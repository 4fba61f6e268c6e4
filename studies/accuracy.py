"""What do fewer taps and filter phases cost in accuracy, beside fewer channels? Trains ResNet8s.

    python -m studies accuracy --workdir=runs/accuracy

Runs `train.py` with each pattern and seed below, as `studies.recipe_runs` says. After each run,
--output has pattern_accuracy.json, the page pattern_accuracy.md and the plot pattern_accuracy.png.
"""

import pathlib

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from studies import recipe_runs, records
from tfsparse.files import replacing

NAME = "pattern_accuracy"
KEYS = recipe_runs.KEYS
DENSE = "dense"
NARROW = "width_"  # dense, too
ROWS = recipe_runs.rows(NAME)
RECIPE = "zoo/recipes/resnet8_short_cifar10.cfg"
# Families of patterns: {name: (color, label, offset of the words)}.
FAMILIES = {
    "dense": ("black", "dense, with 6 to 16 channels", (12, -14)),
    "paper": ("tab:blue", "as many filter phases as the period (the paper's)", (12, -14)),
    "F2": ("tab:orange", "two filter phases", None),
    "F1": ("tab:red", "one filter phase", None),
    "PSD": ("tab:green", "one dense kernel in each period", (-58, 9)),
}

FLAGS = flags.FLAGS


def define_flags():
    recipe_runs.define_flags(ROWS)


def main():
    recipe_runs.collect(NAME, ROWS, page, flags_of, save_picture)


def flags_of(row):
    """Returns train.py's flags for a row: a pattern, "dense", or "width_8" for a narrow network."""
    own = [] if row == DENSE else [f"--pattern={row}"]
    if row.startswith(NARROW):
        own = [f"--width={row.removeprefix(NARROW)}"]
    return [f"--flagfile={RECIPE}", "--epochs=8", "--dtype_policy=float32", *own]


def page(runs):
    """Returns the Markdown page of all runs: costs, and mean and spread of the accuracy."""
    narrow = [runs for row, runs in recipe_runs.by_row(runs).items() if row.startswith(NARROW)]
    own = {"minus narrow dense": lambda group: difference(group, narrow)}
    titles = ["convolution weights", "MACs, M", "clean, %", "n", *own]
    table = recipe_runs.table(runs, titles, own, first="pattern")
    return records.fill(NAME, table=table, **recipe_runs.facts(runs))


def difference(group, narrow):
    """Returns how many points a pattern is above the narrow dense network of about its weights.

    Seeds are compared one by one; the text has the mean, the sample standard deviation, and the row
    of the narrow network. It is empty for a dense network.

    Args:
        group: the runs of a row.
        narrow: list of the runs of each narrow network.
    """
    if _family(group[0]["row"]) == DENSE or not narrow:
        return ""
    weights = group[0]["conv_parameters"]
    twin = min(narrow, key=lambda runs: abs(runs[0]["conv_parameters"] - weights))
    baseline = {run["seed"]: run["clean_accuracy"] for run in twin}
    pairs = [run for run in group if run["seed"] in baseline]
    points = [100 * (run["clean_accuracy"] - baseline[run["seed"]]) for run in pairs]
    spread = f" ± {np.std(points, ddof=1):.2f}" if len(points) > 1 else ""
    return f"{np.mean(points):+.2f}{spread} ({twin[0]['row']})" if points else ""


def save_picture(*_):
    """Writes the plot of all recorded runs."""
    with replacing(pathlib.Path(FLAGS.output) / f"{NAME}.png") as partial:
        picture(recipe_runs.read(NAME)).savefig(partial, dpi=120)


def picture(runs):
    """Returns the figure of accuracy against MACs: a mark for each run, and lines through means.

    The lines join patterns with equally many filter phases.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    families = {}
    for row, group in recipe_runs.by_row(runs).items():
        macs = group[0]["macs"] / 1e6
        values = [100 * run["clean_accuracy"] for run in group]
        families.setdefault(_family(row), []).append((macs, np.mean(values)))
        color, _, place = FAMILIES[_family(row)]
        axes.plot([macs] * len(values), values, "_", color=color, markersize=10)
        if place and not row.startswith(NARROW):  # the others share the place of one of these
            options = {"textcoords": "offset points", "xytext": place, "fontsize": "small"}
            axes.annotate(row, (macs, np.mean(values)), **options)
    for family, points in families.items():
        color, label, _ = FAMILIES[family]
        line = "" if family == "PSD" else "-"
        axes.plot(*zip(*sorted(points), strict=True), f"o{line}", color=color, label=label)
    axes.set(title="Accuracy of periodic patterns against multiply-accumulates")
    axes.set(xlabel="multiply-accumulates of an image, M", ylabel="clean test accuracy, %")
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return figure


def _family(row):
    if row == DENSE or row.startswith(NARROW):
        return DENSE
    if row.startswith("PSD"):
        return "PSD"
    return row.rpartition("_")[2] if "_F" in row else "paper"
