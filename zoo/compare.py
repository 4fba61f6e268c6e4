"""Is one model more robust than another? Compares their results example by example.

    python -m zoo.compare --results=a.json,b.json

Takes what `zoo.evaluate` wrote for the same test images and prints, for each attack that both were
run under, the difference of the accuracies and its 95 % interval.
"""

import json
import pathlib

from zoo import environment

if __name__ == "__main__":
    environment.prepare()

import numpy as np
from absl import flags

from tfsparse import commandline
from tfsparse.errors import UsageError
from tfsparse.timing import aligned
from zoo.robustness.intervals import paired
from zoo.robustness.runner import HELD, read_examples

FLAGS = flags.FLAGS
# What has to be equal for two examples of the same number to be the same.
SAME = ("dataset", "examples")


def main():
    if len(FLAGS.results) != 2:
        raise UsageError(f"--results are two files. Received: {','.join(FLAGS.results)}")
    first, second = (read(path) for path in FLAGS.results)
    for key in SAME:
        if first[key] != second[key]:
            raise UsageError(
                f"The results are of other images: {key} {first[key]} and {second[key]}. "
                "Evaluate both models on the same."
            )
    shared = first["correct"].keys() & second["correct"].keys()
    names = [name for name in first["correct"] if name in shared]
    for name in names:
        if first["settings"][name] != second["settings"][name]:
            raise UsageError(
                f"The attack {name} was run with other settings: {first['settings'][name]} and "
                f"{second['settings'][name]}. Evaluate both models alike."
            )
    rows = [["attack", "first %", "second %", "first - second", "95 % interval", "n"]]
    rows += [[name, *cells(first["correct"][name], second["correct"][name])] for name in names]
    print(f"first:  {first['model']}\nsecond: {second['model']}\n\n{aligned(rows)}")


def read(path):
    """Returns {"model", "dataset", "examples", "correct", "settings"}; the last two by attack."""
    try:
        report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        about = {key: report[key] for key in ("model", *SAME)}
        settings = {name: dict(result["settings"]) for name, result in report["results"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is not a file that zoo.evaluate wrote: {error!r}") from error
    examples = read_examples(pathlib.Path(path).with_suffix(".safetensors"))[0]
    missing = settings.keys() - examples.keys()
    if missing:
        raise UsageError(f"The examples of {path} lack {', '.join(sorted(missing))}.")
    for each in settings.values():
        each.pop("sha256", None)  # which model was attacked
    correct = {name: examples[name] == HELD for name in settings}
    return {**about, "correct": correct, "settings": settings}


def cells(first, second):
    difference, low, high = (100 * value for value in paired(first, second))
    accuracies = [f"{100 * np.mean(correct):.2f}" for correct in (first, second)]
    interval = f"{low:+.2f} to {high:+.2f}"
    return [*accuracies, f"{difference:+.2f}", interval, f"{len(first):,}"]


if __name__ == "__main__":
    flags.DEFINE_list("results", None, "Two JSON files that zoo.evaluate wrote.", required=True)
    commandline.run(main)
