"""Does DNR work? Robust networks of equal training: dense, DNR, per-layer magnitude, narrow.

    python -m studies dnr --workdir=runs/dnr

Runs `train.py` with each recipe and seed below and attacks the trained models, as
`studies.recipe_runs` says. After each run, --output has dnr.json, the page dnr.md and pictures of
the layers' densities.
"""

import pathlib

from absl import flags

from studies import recipe_runs, records
from studies.zoo_table import network, variant
from tfsparse.files import replacing
from zoo.models import card, list_models
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
    own = {"method": _method, "MACs kept, M": _macs_kept}
    titles = ["method", "weights kept", "MACs, M", "MACs kept, M", "clean, %", "robust, %", "n"]
    titles.append("hours a run")
    pruned = dict.fromkeys(
        run["row"].removesuffix(recipe_runs.REMOVED)
        for run in runs
        if run["seed"] == 0 and run["density"] < 1
    )
    pictures = [f"{row}\n\n![Densities of {row}]({NAME}_{row}.png)" for row in pruned]
    return records.fill(
        NAME,
        table=recipe_runs.table(runs, titles, own),
        pictures="\n\n".join(pictures),
        **recipe_runs.facts(runs),
    )


def _card(runs):
    """Returns the card of the model that a row's first run became, or None."""
    name = runs[0]["row"].removesuffix(recipe_runs.REMOVED)
    return card(name) if name in list_models() else None


def _method(runs):
    about = _card(runs) or recipe_runs.facts_of_recipe(runs[0]["row"])
    return f"{network(about)}, {variant(about)}"


def _macs_kept(runs):
    """Returns the MACs of weights that are not zero, which older records lack and cards have."""
    about = _card(runs)
    is_same = about and about["parameters"] == runs[0]["parameters"]
    kept = runs[0].get("nonzero_macs", about["nonzero_macs"] if is_same else None)
    return "" if kept is None else f"{kept / 1e6:.2f}"
