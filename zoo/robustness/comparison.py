"""Is one model more robust than another? Compares their results example by example."""

import json
import pathlib

import numpy as np

from tfsparse.errors import UsageError
from tfsparse.tables import aligned
from zoo.robustness.intervals import paired
from zoo.robustness.runner import CORRECT, NOT_RUN, read_examples

# What two evaluations must have in common for an example of one to be that of the other.
SAME = ("dataset", "examples", "images")


def compare(first, second):
    """Compares two models, attack by attack, a str of lines.

    Args:
        first, second: JSON files that `zoo.robustness.evaluation` wrote, of the same test images.

    Returns:
        For each attack that was run on both with the same settings: both accuracies, their
        difference, and its 95 % interval. The other attacks of both are named below.

    Raises:
        UsageError: if a file cannot be read or is incomplete, or they are of different images.
    """
    first, second = read(first), read(second)
    for key in SAME:
        if first[key] != second[key]:
            raise UsageError(
                f"The results are of different images: {key} {first[key]} and {second[key]}. "
                "Evaluate both models on the same images."
            )
    rows = [["attack", "first %", "second %", "first - second", "95 % interval", "n"]]
    other = []
    for name in first["correct"]:
        if name not in second["correct"]:
            continue
        settings = [each["settings"][name] for each in (first, second)]
        if settings[0] == settings[1]:
            rows.append([name, *_cells(first["correct"][name], second["correct"][name])])
        else:
            other.append(
                f"\n{name} is left out, as its settings differ: {settings[0]} and {settings[1]}"
            )
    models = f"first:  {first['model']}\nsecond: {second['model']}\n"
    return "\n".join([models, aligned(rows), *other])


def read(path):
    """Returns {"model": name, "correct": by attack, "settings": by attack}, and what SAME names.

    All but the name comes from the .safetensors file beside the JSON file at `path`, which is the
    newer one if another run was stopped.
    """
    path = pathlib.Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} is not a file of tfsparse evaluate: {reason}") from error
    model = report.get("model") if isinstance(report, dict) else None
    if not isinstance(model, str):  # a dict in a card
        raise UsageError(f"{path} is not a file of tfsparse evaluate: it names no model")
    beside = path.with_suffix(".safetensors")
    examples, attacks, identity = read_examples(beside)
    unfinished = [name for name, found in examples.items() if (found == NOT_RUN).any()]
    if unfinished or not identity.keys() >= set(SAME):
        raise UsageError(
            f"{beside} is not complete ({', '.join(unfinished) or 'of another version'}). Run "
            "tfsparse evaluate to its end."
        )
    settings = {name: dict(about["settings"]) for name, about in attacks.items()}
    for each in settings.values():
        each.pop("sha256", None)  # of the model
    correct = {name: found == CORRECT for name, found in examples.items()}
    same = {key: identity[key] for key in SAME}
    return {"model": model, "correct": correct, "settings": settings, **same}


def _cells(first, second):
    difference, low, high = (100 * value for value in paired(first, second))
    accuracies = [f"{100 * np.mean(correct):.2f}" for correct in (first, second)]
    interval = f"{low:+.2f} to {high:+.2f}"
    return [*accuracies, f"{difference:+.2f}", interval, f"{len(first):,}"]
