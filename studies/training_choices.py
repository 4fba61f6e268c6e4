"""What do label smoothing, weight averaging, and teachers bring to a small network?

    python -m studies training_choices --workdir=runs/training_choices

Runs `train.py` with each recipe and seed below, as `studies.recipe_runs` says. After each run,
--output has training_choices.json and the page training_choices.md.
"""

import re

import numpy as np

from studies import ROOT, recipe_runs, records
from zoo import card

NAME = "training_choices"
KEYS = recipe_runs.KEYS
BASELINE = "resnet8_short_cifar10"
DISTILLED = "resnet8_distilled_cifar10"  # is longer, and compared with the zoo's ResNet8
ROWS = recipe_runs.rows(NAME)


def define_flags():
    recipe_runs.define_flags(ROWS)


def main():
    recipe_runs.collect(NAME, ROWS, page)


def page(runs):
    """Returns the Markdown page of all runs: mean and spread over the seeds of each recipe."""
    distilled = [run for run in runs if run["row"] == DISTILLED]
    runs = [run for run in runs if run["row"] != DISTILLED]
    means = {
        row: np.mean([run["clean_accuracy"] for run in group])
        for row, group in recipe_runs.by_row(runs).items()
    }

    def difference(group):
        row = group[0]["row"]
        if row == BASELINE or BASELINE not in means:
            return ""
        return f"{100 * (means[row] - means[BASELINE]):+.2f}"

    titles = ["clean, %", "difference", "n", "hours a run"]
    table = recipe_runs.table(runs, titles, {"difference": difference}) if runs else ""
    facts = recipe_runs.facts(runs or distilled)
    text = _distillation(distilled) if distilled else ""
    return records.fill(NAME, baseline=BASELINE, table=table, distilled=text, **facts)


def _distillation(runs):
    """Returns what came of the ResNet8 that had teachers, a paragraph."""
    alone, accuracy = card("resnet8_cifar10"), np.mean([run["clean_accuracy"] for run in runs])
    (flag,) = re.findall(r"^--teacher=(.*)$", recipe(DISTILLED), re.MULTILINE)
    teachers = " and ".join(f"`{name}`" for name in flag.split(","))
    return (
        f"Distilled from {teachers} (`{DISTILLED}`, {runs[0]['epochs']} epochs, n = {len(runs)}, "
        f"{runs[0]['hardware']}), ResNet8 reaches {100 * accuracy:.2f} %. The zoo's "
        f"`{alone['name']}` reaches {100 * alone['results']['clean']['accuracy']:.2f} % without a "
        f"teacher, after {alone['epochs']} epochs."
    )


def recipe(row):
    return (ROOT / f"zoo/recipes/{row}.cfg").read_text(encoding="utf-8")
