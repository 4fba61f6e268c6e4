"""Is one model more robust than another? Compares their results example by example.

    python -m zoo.compare --results=a.json,b.json

Takes what `zoo.evaluate` wrote for the same test images and prints, for each attack that both were
run under alike, the difference of the accuracies and its 95 % interval.
"""

import json
import pathlib

import numpy as np
from absl import flags

from tfsparse.errors import UsageError
from tfsparse.tables import aligned
from zoo.commands import commandline
from zoo.robustness.intervals import paired
from zoo.robustness.runner import HELD, NOT_RUN, read_examples

FLAGS = flags.FLAGS
# What has to be equal for two examples of the same number to be the same.
SAME = ("dataset", "examples", "images")


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
    other = [name for name in names if first["settings"][name] != second["settings"][name]]
    names = [name for name in names if name not in other]
    rows = [["attack", "first %", "second %", "first - second", "95 % interval", "n"]]
    rows += [[name, *cells(first["correct"][name], second["correct"][name])] for name in names]
    print(f"first:  {first['model']}\nsecond: {second['model']}\n\n{aligned(rows)}")
    for name in other:
        print(
            f"\n{name} is left out, as it was run with other settings: {first['settings'][name]} "
            f"and {second['settings'][name]}"
        )


def read(path):
    """Returns {"model", "correct", "settings"}, the last two by attack, and what SAME names.

    All but the model's name is that of the examples beside the JSON file, which is of before where
    another run was stopped.
    """
    try:
        model = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a file that zoo.evaluate wrote: {error!r}") from error
    beside = pathlib.Path(path).with_suffix(".safetensors")
    examples, attacks, identity = read_examples(beside)
    unfinished = [name for name, held in examples.items() if (held == NOT_RUN).any()]
    if unfinished or not identity.keys() >= set(SAME):
        raise UsageError(
            f"{beside} is not complete ({', '.join(unfinished) or 'of another version'}). Run "
            "zoo.evaluate to its end."
        )
    correct = {name: held == HELD for name, held in examples.items()}
    # Without which model was attacked.
    settings = {
        name: {key: value for key, value in about["settings"].items() if key != "sha256"}
        for name, about in attacks.items()
    }
    about = {key: identity[key] for key in SAME}
    return {"model": model, **about, "correct": correct, "settings": settings}


def cells(first, second):
    difference, low, high = (100 * value for value in paired(first, second))
    accuracies = [f"{100 * np.mean(correct):.2f}" for correct in (first, second)]
    interval = f"{low:+.2f} to {high:+.2f}"
    return [*accuracies, f"{difference:+.2f}", interval, f"{len(first):,}"]


if __name__ == "__main__":
    flags.DEFINE_list("results", None, "Two JSON files that zoo.evaluate wrote.", required=True)
    commandline.run(main)
