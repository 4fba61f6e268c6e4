"""Runs of recipes with several seeds: trained, measured and recorded, for studies of these.

Networks are measured as for their cards, `zoo.figures`; channel-pruned ones again without their
pruned channels. What is recorded is not repeated, and a run that was stopped goes on from its last
epoch in --workdir.
"""

import csv
import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
from absl import flags

from tfsparse import cost, pruning
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from zoo import figures
from zoo.data import open_dataset
from zoo.robustness.subjects import model_subject

ROOT = pathlib.Path(__file__).parents[1]

FLAGS = flags.FLAGS


def define_flags(recipes):
    """Defines the flags of a study whose rows are `recipes`."""
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    flags.DEFINE_string("output", None, "Folder for tables, pictures and JSON.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("note", "", "What a reader must know of the data, such as its form.")
    flags.DEFINE_list("recipes", recipes, "Recipes to run.")
    flags.DEFINE_integer("epochs", None, "Epochs of each run, if not those of the recipes.")


def collect(path, wanted, report):
    """Runs what --recipes names and the file at `path` does not have, first seeds first.

    Args:
        path: the JSON file, written after each run.
        wanted: {recipe: seeds}, in the order of the rows.
        report: function of all rows, called after each run.

    Returns:
        All rows, a list of dicts as `evaluate` returns.
    """
    for recipe in FLAGS.recipes:
        if recipe not in wanted:
            raise UsageError(f"--recipes are some of {', '.join(wanted)}. Received: {recipe}")
    for row in recorded(path):
        if row.get("recipe") not in wanted:
            raise UsageError(
                f"{path} has a row of the recipe {row.get('recipe')!r}, which is not one of "
                f"{', '.join(wanted)}. Remove that row, or give another --output."
            )
        if row["epochs"] != epochs(row["recipe"]):
            raise UsageError(
                f"{path} has a run of {row['recipe']} of {row['epochs']} epochs, not "
                f"{epochs(row['recipe'])}. Give its --epochs or another --output."
            )
        if row["note"] != FLAGS.note:
            raise UsageError(
                f"{path} has runs on other data: --note={row['note']!r} there, {FLAGS.note!r} "
                "here. Give that --note, if it is true of the data here, or another --output and "
                "--workdir."
            )
    jobs = [(seed, name) for name in FLAGS.recipes for seed in wanted[name]]
    for seed, name in sorted(jobs, key=lambda job: job[0]):
        if any((row["recipe"], row["seed"]) == (name, seed) for row in recorded(path)):
            continue
        print(f"{name}, seed {seed}", flush=True)
        folder = pathlib.Path(FLAGS.workdir) / f"{name}_seed{seed}"
        train(name, seed, folder)
        found = evaluate(name, folder)
        # Read again: another process may have added to it, this run included.
        rows = [row for row in recorded(path) if (row["recipe"], row["seed"]) != (name, seed)]
        rows += found
        rows.sort(key=lambda row: list(wanted).index(row["recipe"]))
        write_bytes(path, json.dumps(rows, indent=2) + "\n")
        report(rows)
    return recorded(path)


def recorded(path):
    """Returns the rows in the JSON file at `path`, if it is there."""
    if not path.exists():
        return []
    try:
        return [dict(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"Cannot read the rows in {path}: {error!r}. Remove the file.") from error


def epochs(recipe):
    """Returns how long a run of a recipe is: --epochs or, failing that, what the recipe says."""
    text = (ROOT / "zoo" / "recipes" / f"{recipe}.cfg").read_text(encoding="utf-8")
    return FLAGS.epochs or int(re.search(r"^--epochs=(\d+)$", text, re.MULTILINE)[1])


def train(recipe, seed, folder):
    """Runs train.py to its end, unless it got there before."""
    if (folder / "report.json").exists():
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        found, wanted = (report["seed"], report["epochs"]), (seed, epochs(recipe))
        if found != wanted:
            raise UsageError(
                f"{folder} has a run of seed and epochs {found}, not {wanted}. Choose another "
                "--workdir."
            )
        return
    arguments = [f"--flagfile=zoo/recipes/{recipe}.cfg", f"--workdir={folder.resolve()}"]
    arguments += [f"--seed={seed}"]
    if FLAGS.data_dir:
        arguments += [f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}"]
    if FLAGS.epochs:
        arguments += [f"--epochs={FLAGS.epochs}"]
    # Unlike `run`, this leaves a run that is interrupted, too, the time to save what it has done.
    with subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT) as process:
        status = process.wait()
    if not (folder / "report.json").exists():
        raise UsageError(f"train.py ended with status {status} before {recipe} was done.")


def evaluate(recipe, folder):
    """Returns the rows of a finished run: dicts of what the network costs and reaches."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    models = {recipe: keras.saving.load_model(folder / "model.keras", compile=False)}
    if report["recipe"]["structure"] == "channel":
        models[f"{recipe}, channels removed"] = pruning.remove_channels(models[recipe])
    dataset = open_dataset(report["dataset"], report["data_dir"], report["image_size"])
    names = ["clean", "pgd"] if report["recipe"]["loss"] == "hybrid" else ["clean"]
    rows = []
    for name, model in models.items():
        spent = cost.model_cost(model)
        subject = model_subject(name, model)
        results = figures.accuracies(names, subject, None, dataset, report["recipe"]["eps"])
        row = {
            "recipe": recipe,
            "row": name,
            "note": FLAGS.note,
            "seed": report["seed"],
            "epochs": report["epochs"],
            "density": report["density"],
            "parameters": spent.parameters,
            "nonzero_parameters": spent.nonzeros,
            "macs": spent.macs,
            "clean_accuracy": results["clean"]["accuracy"],
            "clean_examples": results["clean"]["examples"],
            "hours": report["seconds_per_epoch"] * report["epochs"] / 3600,
            "hardware": report["hardware"],
        }
        if "pgd" in results:
            about = results["pgd"]
            row["robust_accuracy"] = about["accuracy"]
            row["robust_attack"] = f"PGD-{about['steps']}, {about['restarts']} restarts"
            row["robust_examples"] = about["examples"]
        rows.append(row)
    return rows


def read_history(folder):
    """Returns the epochs of a run, a list of dicts."""
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def by(rows, key):
    """Returns {value of `key`: its rows}, in the order of `rows`."""
    grouped = {}
    for row in rows:
        grouped.setdefault(row[key], []).append(row)
    return grouped


def note(rows):
    """Returns " (what a reader must know of the data)", or "" where that is nothing."""
    return f" ({rows[0]['note']})" if rows[0]["note"] else ""


def mean_text(fractions):
    """Returns "mean ± sample standard deviation" in percent, without the latter for one value."""
    values = 100 * np.array(fractions)
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"
