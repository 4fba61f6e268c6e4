"""Whether a training run is finished, from the files in its folder alone.

Imports nothing but Python's own modules: TensorFlow takes longer to import than this to answer.
"""

import hashlib
import json

SUMMARY = "summary.txt"
# What a run leaves, in the order in which it names them to the user.
FILES = (
    *("model.keras", "best.keras", "model_int8.tflite"),
    *("history.csv", "report.json", "report.html", SUMMARY),
)


def summary(workdir, recipe, defaults):
    """Returns the summary of a run that has all its files, converted and verified; else None.

    Args:
        workdir: pathlib.Path of the run's folder.
        recipe: {flag: value} of the run that is asked for.
        defaults: {flag: default}, for flags that are younger than the run in the folder.
    """
    try:
        before = json.loads((workdir / "flags.json").read_text(encoding="utf-8"))
        report = json.loads((workdir / "report.json").read_text(encoding="utf-8"))
        model = (workdir / "model.keras").read_bytes()
        is_same = all(before.get(name, defaults[name]) == recipe[name] for name in recipe)
        is_same = is_same and report["model_sha256"] == hashlib.sha256(model).hexdigest()
        is_whole = all((workdir / name).exists() for name in FILES)
        if is_same and is_whole and report["int8"]["passed"]:
            return (workdir / SUMMARY).read_text(encoding="utf-8")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        pass  # not there or damaged, which whoever continues the run finds out
    return None
