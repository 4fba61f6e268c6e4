"""Records what networks of the papers' width reach, from the finished runs of `studies queue`.

    python -m studies full_width --workdir=runs/queue --note="JPEG copy"

Trains and attacks nothing: it reads what each run left in its folder, with the AutoAttack of
`tfsparse evaluate --attacks=autoattack --json=FOLDER/autoattack.json` if there is one. Writes
full_width.json, whose runs claims.md compares after `python -m studies pages`.
"""

import json
import pathlib

from absl import flags

from studies import queue, recipe_runs, records
from tfsparse.errors import UsageError

NAME = "full_width"
KEYS = recipe_runs.KEYS
AUTOATTACK = "autoattack.json"
OF_REPORT = (
    *("seed", "epochs", "best_epoch", "density", "parameters", "nonzero_parameters", "macs"),
    *("nonzero_macs", "clean_accuracy", "clean_examples", "hardware"),
)

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    flags.DEFINE_string("note", "", "What a reader must know about the data, such as its form.")
    records.define_output()


def main():
    rows = [row["row"] for row in records.read_csv("queue")]
    folders = [
        (row, folder)
        for row in rows
        for folder in sorted(pathlib.Path(FLAGS.workdir).glob(f"{row}_seed*"))
    ]
    found = [run for row, folder in folders if (run := run_of(row, folder))]
    if not found:
        raise UsageError(f"--workdir={FLAGS.workdir} has no finished run of studies queue.")
    runs = records.record(
        FLAGS.output, NAME, found, None, KEYS, lambda run: (rows.index(run["row"]), run["seed"])
    )
    print(f"{len(found)} runs recorded, {len(runs)} in all")


def run_of(row, folder):
    """Returns the run of a folder, a dict for JSON as `recipe_runs.evaluate` returns; else None."""
    if not (folder / "report.json").exists():
        return None
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    run = {"row": row, "note": FLAGS.note, **{name: report[name] for name in OF_REPORT}}
    run["hours"] = report["seconds_per_epoch"] * report["epochs"] / 3600
    if report["recipe"]["loss"] == "standard":
        return run
    if not (folder / queue.ROBUST).exists():
        return None
    pgd = _results(folder / queue.ROBUST)["pgd"]
    run["robust_accuracy"], run["robust_examples"] = pgd["accuracy"], pgd["examples"]
    settings = pgd["settings"]
    run["robust_attack"] = f"PGD-{settings['steps']}, {settings['restarts']} restarts"
    if (folder / AUTOATTACK).exists():
        attacked = _results(folder / AUTOATTACK)["autoattack"]
        run["autoattack"] = attacked["accuracy"]
        run["autoattack_examples"] = attacked["examples"]
    return run


def _results(path):
    return json.loads(path.read_text(encoding="utf-8"))["results"]
