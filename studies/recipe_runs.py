"""Studies of recipes: each row trained with several seeds, measured and recorded.

Networks are measured as for their cards, by `zoo.figures`; channel-pruned ones again without their
pruned channels. Runs that are recorded are not repeated, and one that was stopped continues from
its last epoch in --workdir.
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

from studies import ROOT, records
from tfsparse import cost, pruning, tables
from tfsparse.errors import UsageError
from zoo import figures
from zoo.data import open_dataset
from zoo.robustness.subjects import model_subject

KEYS = ("row", "seed")
REMOVED = ", channels removed"

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # a flag that this module defines belongs to the study


def rows(name):
    """Returns {row: seeds} of a study in data/rows.csv, in the order of its table."""
    found = [row for row in records.read_csv("rows") if row["study"] == name]
    return {row["row"]: tuple(map(int, row["seeds"].split())) for row in found}


def define_flags(rows):
    """Defines the flags of a study of `rows`, {row: seeds}."""
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    records.define_output()
    records.define_data()
    flags.DEFINE_list("rows", list(rows), "Rows to run.")
    flags.DEFINE_integer("epochs", None, "Epochs of each run, instead of the recipes'.")


def recipe_flags(row):
    """Returns the flags of train.py for a row that is named like its recipe."""
    return [f"--flagfile=zoo/recipes/{row}.cfg"]


def facts_of_recipe(row):
    """Returns what the recipe of a row says of its network and pruning, as a card has it."""
    text = (ROOT / f"zoo/recipes/{_row_of(row)}.cfg").read_text(encoding="utf-8")
    given = dict(re.findall(r"^--(\w+)=(.*)$", text, re.MULTILINE))
    width, density = given.get("width"), float(given.get("density", 1))
    return {
        "model": {"arch": given["arch"], "width": width, "pattern": given.get("pattern")},
        "recipe": {"prune": "none", "structure": "unstructured", **given, "density": density},
    }


# ---- running ----


def collect(name, seeds, page, flags_of=recipe_flags, done=None):
    """Trains, measures and records what --rows name and the record lacks, first seeds first.

    Args:
        name: of the study and its record.
        seeds: {row: seeds of its runs}, in the order of the table.
        page: function from all recorded runs to Markdown, which is written after each run.
        flags_of: function from a row to the list of train.py's flags.
        done: function of (row, seed, folder of the run), called after each run, or None.
    """
    for row in FLAGS.rows:
        if row not in seeds:
            raise UsageError(f"--rows are some of {', '.join(seeds)}. Received: {row}")
    for run in read(name):
        check(run, name, seeds, flags_of)
    order = list(seeds)
    jobs = [(seed, row) for row in FLAGS.rows for seed in seeds[row]]
    for seed, row in sorted(jobs, key=lambda job: job[0]):
        if any((run["row"], run["seed"]) == (row, seed) for run in read(name)):
            continue
        print(f"{row}, seed {seed}", flush=True)
        folder = pathlib.Path(FLAGS.workdir) / f"{row}_seed{seed}"
        train(flags_of(row), seed, folder)
        new = evaluate(row, folder)
        records.record(
            FLAGS.output, name, new, page, KEYS, lambda run: order.index(_row_of(run["row"]))
        )
        if done:
            done(row, seed, folder)
    records.record(FLAGS.output, name, [], page, KEYS)


def read(name):
    """Returns the recorded runs of a study, a list of dicts as `evaluate` returns."""
    return records.read(FLAGS.output, name, KEYS)


def check(run, name, seeds, flags_of=recipe_flags):
    """Raises a `UsageError` if a recorded run is not one that this command would make."""
    path = pathlib.Path(FLAGS.output) / f"{name}.json"
    row = _row_of(run["row"])
    if row not in seeds:
        raise UsageError(
            f"{path} has a run of the row {row!r}, which is not one of {', '.join(seeds)}. Remove "
            "that run, or give another --output."
        )
    if run["epochs"] != epochs(flags_of(row)):
        raise UsageError(
            f"{path} has a run of {row} of {run['epochs']} epochs, not {epochs(flags_of(row))}. "
            "Give its --epochs or another --output."
        )
    check_note(run["note"], path)


def check_note(note, path):
    """Raises a `UsageError` if `note`, in the record at `path`, is not --note."""
    if note != FLAGS.note:
        raise UsageError(
            f"{path} has runs on other data: --note={note!r} there, {FLAGS.note!r} here. Give that "
            "--note if it is true of the data here, or another --output and --workdir."
        )


def _row_of(title):
    return title.removesuffix(REMOVED)


def epochs(arguments):
    """Returns the epochs of a run: --epochs or else those that train.py's flags say."""
    recipes = [each.partition("=")[2] for each in arguments if each.startswith("--flagfile=")]
    texts = [(ROOT / recipe).read_text(encoding="utf-8") for recipe in recipes]
    found = re.findall(r"^--epochs=(\d+)$", "\n".join([*texts, *arguments]), re.MULTILINE)
    return FLAGS.epochs or int(found[-1])


def train(arguments, seed, folder):
    """Runs train.py with these flags to its end, unless it got there before."""
    wanted = (seed, epochs(arguments))
    if (folder / "report.json").exists():
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if (report["seed"], report["epochs"]) != wanted:
            raise UsageError(
                f"{folder} has a run of seed and epochs {(report['seed'], report['epochs'])}, not "
                f"{wanted}. Choose another --workdir."
            )
        return
    arguments = [*arguments, f"--workdir={folder.resolve()}", f"--seed={seed}"]
    if FLAGS.data_dir:
        arguments += [f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}"]
    if FLAGS.epochs:
        arguments += [f"--epochs={FLAGS.epochs}"]
    # Unlike `run`, this leaves an interrupted run the time to save what it has done.
    with subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT) as process:
        status = process.wait()
    if not (folder / "report.json").exists():
        raise UsageError(f"train.py ended with status {status} before {folder} was complete.")


def evaluate(row, folder):
    """Returns the runs to record of a finished training: dicts of costs and accuracies."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    models = {row: keras.saving.load_model(folder / "model.keras", compile=False)}
    if report["recipe"]["structure"] == "channel":
        models[f"{row}{REMOVED}"] = pruning.remove_channels(models[row])
    dataset = open_dataset(report["dataset"], report["data_dir"], report["image_size"])
    names = ["clean", "pgd"] if report["recipe"]["loss"] == "hybrid" else ["clean"]
    found = []
    for title, model in models.items():
        spent = cost.model_cost(model)
        subject = model_subject(title, model)
        results = figures.accuracies(names, subject, None, dataset, report["recipe"]["eps"])
        run = {
            "row": title,
            "note": FLAGS.note,
            "seed": report["seed"],
            "epochs": report["epochs"],
            "density": report["density"],
            "parameters": spent.parameters,
            "conv_parameters": spent.conv_parameters,
            "nonzero_parameters": spent.nonzeros,
            "macs": spent.macs,
            "nonzero_macs": spent.nonzero_macs,
            "clean_accuracy": results["clean"]["accuracy"],
            "clean_examples": results["clean"]["examples"],
            "hours": report["seconds_per_epoch"] * report["epochs"] / 3600,
            "hardware": report["hardware"],
        }
        if "pgd" in results:
            about = results["pgd"]
            run["robust_accuracy"] = about["accuracy"]
            run["robust_attack"] = f"PGD-{about['steps']}, {about['restarts']} restarts"
            run["robust_examples"] = about["examples"]
        found.append(run)
    return found


def read_history(folder):
    """Returns the epochs of a run so far, a list of dicts."""
    path = pathlib.Path(folder) / "history.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


# ---- the page ----

# {title: function from the runs of a row to a cell}
COLUMNS = {
    "weights": lambda runs: f"{runs[0]['parameters']:,}",
    "weights kept": lambda runs: f"{runs[0]['nonzero_parameters']:,} of {runs[0]['parameters']:,}",
    "convolution weights": lambda runs: f"{runs[0]['conv_parameters']:,}",
    "MACs, M": lambda runs: f"{runs[0]['macs'] / 1e6:.2f}",
    "clean, %": lambda runs: mean_text([run["clean_accuracy"] for run in runs]),
    "robust, %": lambda runs: mean_text([run["robust_accuracy"] for run in runs]),
    "n": len,
    "hours a run": lambda runs: f"{np.mean([run['hours'] for run in runs]):.1f}",
}


def table(runs, titles, own=(), first="row"):
    """Returns the Markdown table of runs, a line for each row.

    Args:
        runs: list of dicts.
        titles: of the columns after `first`: keys of COLUMNS or of `own`.
        own: {title: function from the runs of a row to a cell}.
        first: title of the first column, the name of the row.
    """
    columns = {**COLUMNS, **dict(own)}
    lines = [
        [row, *(columns[title](group) for title in titles)] for row, group in by_row(runs).items()
    ]
    return tables.markdown([first, *titles], lines)


def by_row(runs):
    """Returns {row: its runs}, in the order of `runs`."""
    grouped = {}
    for run in runs:
        grouped.setdefault(run["row"], []).append(run)
    return grouped


def facts(runs):
    """Returns what pages say of all runs: note on the data, epochs, examples, and hardware."""
    first = runs[0]
    found = {name: first[name] for name in ("epochs", "robust_attack") if name in first}
    found |= {
        name: f"{first[name]:,}" for name in ("clean_examples", "robust_examples") if name in first
    }
    hardware = " or ".join(sorted({run["hardware"] for run in runs if "hardware" in run}))
    return {**found, "note": f" ({first['note']})" if first["note"] else "", "hardware": hardware}


def mean_text(fractions):
    """Returns "mean ± sample standard deviation" in percent, without the latter for one value."""
    values = 100 * np.array(fractions)
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"
