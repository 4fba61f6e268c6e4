"""The folder of a training run: what `train.py` finds, saves, and reports there."""

import json
import os
import pathlib

from tfsparse import files, optional
from tfsparse.errors import UsageError
from tfsparse.files import replacing, write_bytes
from tfsparse.precision import full_precision
from zoo import finished, outcome


def check_recipe(workdir, recipe, defaults):
    """Refuses a folder that holds the run of another recipe.

    Args:
        workdir: pathlib.Path of the folder.
        recipe: {flag: value} of this run.
        defaults: {flag: default}, for flags that are younger than the run in the folder.

    Raises:
        UsageError: if the folder's flags.json differs from `recipe` or cannot be read.
    """
    before = _read(workdir / "flags.json")
    if before is None:
        return
    before = {name: before.get(name, defaults[name]) for name in recipe}
    differing = [name for name in recipe if _differ(name, before[name], recipe[name])]
    if differing:
        changes = ", ".join(
            f"--{name}={before[name]} there, {recipe[name]} here" for name in differing[:3]
        )
        if len(differing) > 3:
            changes += f", and {len(differing) - 3} more"
        raise UsageError(
            f"--workdir={workdir} holds a run of another recipe ({changes}). Choose another folder."
        )


def _differ(name, before, now):
    if name == "dataset":  # the same folder has many paths; `check_data` compares the images
        before, now = (pathlib.PurePath(str(each)).name for each in (before, now))
    return before != now


def check_data(workdir, dataset):
    """Refuses to continue the run in a folder with other images than it began with.

    Args:
        workdir: pathlib.Path of the folder.
        dataset: a `zoo.data.Dataset` or `zoo.own_data.OwnDataset`.

    Returns:
        What data.json says, a dict: "class_names", and the "identity" of the training images.

    Raises:
        UsageError: if the folder's data.json differs or cannot be read.
    """
    facts = {"class_names": dataset.class_names, "identity": dataset.identity()}
    before = _read(workdir / "data.json")
    for name, what in {"class_names": "classes", "identity": "images"}.items():
        if before is not None and before.get(name) != facts[name]:
            raise UsageError(
                f"--workdir={workdir} holds a run on other {what}: {dataset.name} has changed. "
                "Choose another folder, or restore the data set. Received: "
                f"{facts[name]!s:.80}, before: {before.get(name)!s:.80}"
            )
    return facts


def _read(path):
    """Returns the JSON object at `path`, a dict; None if there is no file."""
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Choose another --workdir.") from error


# What converting a model and reporting on it needs: {module: package}.
_FOR_REPORT = {
    "tensorflow": "tensorflow",
    "ai_edge_litert": "ai-edge-litert",
    "flatbuffers": "flatbuffers",
    "matplotlib": "matplotlib",
}


def read_evaluation(workdir, sha256):
    """Returns what another backend has measured of a model and left in report.json.

    Args:
        workdir: pathlib.Path of the run's folder.
        sha256: `tfsparse.hashing.hash_of_weights` of the model.

    Returns:
        Dict with the accuracies and their settings, "hardware", and "versions"; {} if that model
        has not been evaluated.
    """
    report = _read(workdir / "report.json") or {}
    names = (*outcome.MEASURED, "hardware", "versions")
    is_known = report.get("weights_sha256") == sha256 and report.keys() >= set(names)
    return {name: report[name] for name in names} if is_known else {}


def save_model(model, path):
    """Saves a network; its layers compute in float32 whatever they were trained in."""
    with replacing(path) as partial:
        full_precision(model).save(partial)


def finish(workdir, report, command):
    """Writes report.json without the .tflite file, and goes on under TensorFlow if it is installed.

    Args:
        workdir: pathlib.Path of the run's folder.
        report: dict for JSON, with "weights_sha256".
        command: list of str, the command of this run; it takes the place of this process.
    """
    write_bytes(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    missing = optional.missing(**_FOR_REPORT)
    if not missing:
        print("converting under TensorFlow", flush=True)
        os.execve(command[0], command, {**os.environ, "KERAS_BACKEND": "tensorflow"})
    print(f"\n{outcome.summary(report)}\n\n{written(workdir)}")
    print(
        f"The .tflite file and report.html need {', '.join(missing)}: where they are installed, "
        "the same command makes them."
    )


def write_report(workdir, report, history, results, predictions, flips):
    """Writes report.json, report.html, and summary.txt.

    Args:
        workdir: pathlib.Path of the run's folder.
        report: dict for JSON.
        history: list of dicts, one for each epoch.
        results: of the conversion, a str of lines as `tflite.conversion.results` returns.
        predictions: as `tfsparse.evaluation.predictions` returns, of the clean test images.
        flips: `zoo.robustness.flips.Flips`, or None.

    Returns:
        The summary, a str of lines.
    """
    from zoo import run_page  # which imports Matplotlib

    write_bytes(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    page = run_page.page(report, history, results, predictions, flips)
    write_bytes(workdir / "report.html", page)
    summary = f"{outcome.summary(report)}\n\n{results}\n"
    write_bytes(workdir / finished.SUMMARY, summary)
    return summary


def written(workdir):
    """Returns the lines that name the files of a run, a str."""
    paths = [workdir / name for name in finished.FILES]
    return "\n".join(files.written(path) for path in paths if path.exists())
