"""Does DNR work? Robust networks of equal training: dense, DNR, magnitude pruning, narrow.

    python -m studies dnr --workdir=runs/dnr

Runs `train.py` with each recipe and seed below and attacks the trained models, as
`studies.recipe_runs` says. After each run, --output has dnr.json, the page dnr.md and pictures of
the layers' densities.
"""

import pathlib

from absl import flags

from studies import recipe_runs, records
from tfsparse.files import replacing
from zoo.pictures import density_picture

NAME = "dnr"
KEYS = recipe_runs.KEYS
ROWS = recipe_runs.rows(NAME)

FLAGS = flags.FLAGS


def define_flags():
    recipe_runs.define_flags(ROWS)


def main():
    recipe_runs.collect(NAME, ROWS, page, done=save_picture)


def save_picture(row, seed, folder):
    """Writes the picture of the layers' densities during the run of seed 0, if it was pruned."""
    picture = density_picture(recipe_runs.read_history(folder)) if seed == 0 else None
    if picture:
        with replacing(pathlib.Path(FLAGS.output) / f"{NAME}_{row}.png") as partial:
            picture.savefig(partial, dpi=100)


def page(runs):
    """Returns the Markdown page of all runs, with the pictures of those that were pruned."""
    titles = ["weights kept", "MACs, M", "clean, %", "robust, %", "n", "hours a run"]
    pruned = dict.fromkeys(
        run["row"].removesuffix(recipe_runs.REMOVED)
        for run in runs
        if run["seed"] == 0 and run["density"] < 1
    )
    pictures = [f"{row}\n\n![Densities of {row}]({NAME}_{row}.png)" for row in pruned]
    return records.fill(
        NAME,
        table=recipe_runs.table(runs, titles),
        pictures="\n\n".join(pictures),
        **recipe_runs.facts(runs),
    )
