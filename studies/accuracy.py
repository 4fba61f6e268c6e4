"""What do fewer taps and fewer filter phases cost in accuracy? Trains ResNet8 with each pattern.

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
ROWS = recipe_runs.rows(NAME)
RECIPE = "zoo/recipes/resnet8_short_cifar10.cfg"
# Families of patterns: {name: (color, label, offset of the words)}.
FAMILIES = {
    "dense": ("black", None, (12, -14)),
    "paper": ("tab:blue", "as many filter phases as the period (the paper's)", (12, -14)),
    "F2": ("tab:orange", "two filter phases", None),
    "F1": ("tab:red", "one filter phase", None),
    "PSD": ("tab:green", "one dense kernel in each period", (-52, -3)),
}

FLAGS = flags.FLAGS


def define_flags():
    recipe_runs.define_flags(ROWS)


def main():
    recipe_runs.collect(NAME, ROWS, page, flags_of, save_picture)


def flags_of(row):
    """Returns train.py's flags for a pattern, or "dense"."""
    pattern = [] if row == DENSE else [f"--pattern={row}"]
    return [f"--flagfile={RECIPE}", "--epochs=8", "--dtype_policy=float32", *pattern]


def page(runs):
    """Returns the Markdown page of all runs: costs, and mean and spread of the accuracy."""
    titles = ["convolution weights", "MACs, M", "clean, %", "n"]
    table = recipe_runs.table(runs, titles, first="pattern")
    return records.fill(NAME, table=table, **recipe_runs.facts(runs))


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
        if place:  # the others have as many weights and share its place
            options = {"textcoords": "offset points", "xytext": place, "fontsize": "small"}
            axes.annotate(row, (macs, np.mean(values)), **options)
    for family, points in families.items():
        color, label, _ = FAMILIES[family]
        line = "" if family in (DENSE, "PSD") else "-"
        axes.plot(*zip(*sorted(points), strict=True), f"o{line}", color=color, label=label)
    axes.set(title="Accuracy of periodic patterns against multiply-accumulates")
    axes.set(xlabel="multiply-accumulates of an image, M", ylabel="clean test accuracy, %")
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return figure


def _family(row):
    if row == DENSE or row.startswith("PSD"):
        return "PSD" if row != DENSE else DENSE
    return row.rpartition("_")[2] if "_F" in row else "paper"
