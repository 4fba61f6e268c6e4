"""What do label smoothing and weight averaging bring to a small network?

    python -m studies training_choices --workdir=runs/training_choices

Runs `train.py` with each recipe and seed below, as `studies.recipe_runs` says. After each run,
--output has training_choices.json and the page training_choices.md.
"""

import numpy as np

from studies import recipe_runs, records

NAME = "training_choices"
KEYS = recipe_runs.KEYS
BASELINE = "resnet8_short_cifar10"
ROWS = recipe_runs.rows(NAME)


def define_flags():
    recipe_runs.define_flags(ROWS)


def main():
    recipe_runs.collect(NAME, ROWS, page)


def page(runs):
    """Returns the Markdown page of all runs: mean and spread over the seeds of each recipe."""
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
    table = recipe_runs.table(runs, titles, {"difference": difference})
    return records.fill(NAME, baseline=BASELINE, table=table, **recipe_runs.facts(runs))
