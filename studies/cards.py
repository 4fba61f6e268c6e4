"""Writes what records know of the zoo's models into their cards.

    python -m studies cards

From robustness.json in --output: the int8 file under attack (`deployed`); from claims.json and
dnr.json: how accuracy varies over seeds (`seeds`). A card says null where the records have nothing
of its model. Run it after these records have changed, or after a model was published.
"""

import json

import numpy as np
from absl import flags

from studies import claims, dnr, recipe_runs, records, robustness
from tfsparse.files import write_bytes
from zoo.models import card, list_models, path_of_card

FLAGS = flags.FLAGS


def define_flags():
    records.define_output()


def main():
    found = from_records(FLAGS.output)
    for name, entries in found.items():
        before = card(name)
        if {**before, **entries} != before:
            write_bytes(path_of_card(name), json.dumps({**before, **entries}, indent=2) + "\n")
            print(f"wrote {path_of_card(name)}")


def from_records(folder):
    """Returns {model: {"deployed": dict or None, "seeds": dict or None}} of all models."""
    attacked = robustness.reports(records.read(folder, robustness.NAME, robustness.KEYS))
    runs = {}
    for name in (claims.NAME, dnr.NAME):
        runs |= recipe_runs.by_row(records.read(folder, name, recipe_runs.KEYS))
    return {
        name: {
            "deployed": _deployed(card(name), attacked.get(name, {})),
            "seeds": _seeds(card(name), runs.get(name, [])),
        }
        for name in list_models()
    }


def _deployed(about, parts):
    """Returns how accurate an int8 file is under attack, or None if another file was attacked."""
    same = about["tflite"]["sha256"]
    parts = {part: report for part, report in parts.items() if report["sha256"] == same}
    report = parts.get("deployed")
    if not report:
        return None
    found = robustness.on_file(parts)
    settings = report["results"]["pgd"]["settings"]
    return {
        "sha256": report["sha256"],
        **{key: report[key] for key in ("examples", "eps", "seed", "twin_agreement")},
        **{key: settings[key] for key in ("steps", "restarts")},
        **{
            name: {key: result[key] for key in ("accuracy", "interval")}
            for name, result in found.items()
        },
        "worst": robustness.worst(found),
    }


def _seeds(about, runs):
    """Returns mean and spread over a recipe's seeds, or None if this model is not among several."""
    same = [run for run in runs if (run["note"], run["epochs"]) == (about["note"], about["epochs"])]
    own = (about["seed"], about["results"]["clean"]["accuracy"])
    if len(same) < 2 or own not in [(run["seed"], run["clean_accuracy"]) for run in same]:
        return None
    found = {"n": len(same), "seeds": [run["seed"] for run in same]}
    for key, name in (("clean", "clean_accuracy"), ("pgd", "robust_accuracy")):
        if name in same[0]:
            values = [run[name] for run in same]
            found[key] = {
                "mean": float(np.mean(values)),
                "standard_deviation": float(np.std(values, ddof=1)),
                "examples": same[0][name.replace("accuracy", "examples")],
            }
    return found
