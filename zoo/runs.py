"""The folder of a training run: what `train.py` logs and reports there."""

import csv
import gzip
import json
import os

import numpy as np
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import backend, optional, tables
from tfsparse.errors import UsageError
from tfsparse.files import replacing, sha256_of, write_bytes
from tfsparse.precision import full_precision
from zoo.augmentation import as_float

_EXAMPLES_CAPTION = (
    "Test images that the model classifies correctly, the perturbations that PGD finds for them, "
    "and the adversarial examples, with the class that the model predicts."
)


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
    differing = [name for name in recipe if before[name] != recipe[name]]
    if differing:
        changes = ", ".join(
            f"--{name}={before[name]} there, {recipe[name]} here" for name in differing[:3]
        )
        if len(differing) > 3:
            changes += f", and {len(differing) - 3} more"
        raise UsageError(
            f"--workdir={workdir} holds a run of another recipe ({changes}). Choose another folder."
        )


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


class Log:
    """Prints each epoch and writes it to history.csv and tensorboard/.

    Without TensorFlow, which writes the latter, that is done when the run goes on where it is.

    Args:
        workdir: pathlib.Path of the run's folder.
        epochs: of the whole run.
        history: list of dicts, one for each epoch that is finished.
    """

    def __init__(self, workdir, epochs, history=()):
        self._workdir, self._epochs = workdir, epochs
        self._tensorboard = None
        if optional.are_installed("tensorflow", "tensorboard"):
            import tensorflow as tf

            folder = workdir / "tensorboard"
            is_new = not folder.exists()
            self._tensorboard = tf.summary.create_file_writer(str(folder))
            for row in history if is_new else ():
                self._write_scalars(row)

    def write(self, history):
        """Logs the last row of `history`, a list of dicts, one for each epoch."""
        row = history[-1]
        print(self._line(row), flush=True)
        path = self._workdir / "history.csv"
        with replacing(path) as partial, open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, history[0].keys())
            writer.writeheader()
            writer.writerows(history)
        if self._tensorboard:
            self._write_scalars(row)

    def _write_scalars(self, row):
        import tensorflow as tf

        try:
            with self._tensorboard.as_default(step=row["epoch"]):
                for name, value in row.items():
                    tf.summary.scalar(name, value)
            self._tensorboard.flush()
        except tf.errors.OpError as error:
            raise UsageError(
                f"Cannot write to {self._workdir / 'tensorboard'}: {error.message}. The same "
                "command continues this run once there is space."
            ) from error

    def _line(self, row):
        shown = ", ".join(
            f"{name.removesuffix('_accuracy').replace('_', ' ')} {100 * value:.1f} %"
            for name, value in row.items()
            if name.endswith("accuracy")
        )
        density = f"density {100 * row['density']:.2f} %, " if "density" in row else ""
        return (
            f"epoch {row['epoch']}/{self._epochs}: loss {row['loss']:.3f}, {shown}, {density}"
            f"{row['seconds']:.0f} s"
        )


# What a run measures on the test set, and where: in its report.
_EVALUATION = (
    "clean_accuracy",
    "clean_examples",
    "robust_accuracy",
    "robust_attack",
    "robust_examples",
)
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
    names = (*_EVALUATION, "hardware", "versions")
    return {name: report[name] for name in names} if report.get("weights_sha256") == sha256 else {}


def save_model(model, path):
    """Saves a network; its layers compute in float32 whatever they were trained in."""
    with replacing(path) as partial:
        full_precision(model).save(partial)


def finished(workdir):
    """Returns the report of a run that has all its files, converted and verified, else None."""
    report = _read(workdir / "report.json") or {}
    names = ("model.keras", "model_int8.tflite", "report.html", "history.csv")
    if not all((workdir / name).exists() for name in names):
        return None
    is_same = report.get("model_sha256") == sha256_of(workdir / "model.keras")
    return report if is_same and report["int8"]["passed"] else None


def where(workdir):
    """Returns the line that ends a run."""
    return f"model, .tflite, history, and report.html are in {workdir}"


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
    print(f"\n{closing_table(report)}")
    print(
        f"\nmodel, history, and report.json are in {workdir}. The .tflite file and report.html "
        f"need {', '.join(missing)}: where they are installed, the same command makes them."
    )


def int8_facts(conversion, dense_content):
    """Returns what report.json says about the int8 file and that of the dense network, a dict."""
    verification, content = conversion.verifications[0], conversion.content
    return {
        "int8": {
            "bytes": len(content),
            "gzip_bytes": len(gzip.compress(content)),
            "top1_agreement": verification.top1_agreement,
            "top1_or_tied": verification.top1_or_tied,
            "verification_examples": verification.examples,
            "passed": not conversion.failures,
        },
        "dense_int8": {
            "bytes": len(dense_content),
            "gzip_bytes": len(gzip.compress(dense_content)),
        },
    }


def write_report(workdir, report, history, examples):
    """Writes report.json and report.html.

    Args:
        workdir: pathlib.Path of the run's folder.
        report: dict for JSON.
        history: list of dicts, one for each epoch.
        examples: figure of adversarial examples, or None.
    """
    from zoo import report as pictures  # imports Matplotlib

    write_bytes(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    figures = [
        (pictures.accuracy_picture(history), "Accuracy over epochs."),
        (pictures.density_picture(history), "Density of each layer over epochs."),
        (examples, _EXAMPLES_CAPTION),
    ]
    title = f"{report['model']['arch']} on {report['dataset']}"
    facts = {name: str(value) for name, value in {**report["recipe"], **report["versions"]}.items()}
    shown = [(figure, caption) for figure, caption in figures if figure]
    page = pictures.page(title, facts, _rows(report), shown)
    write_bytes(workdir / "report.html", page)


def adversarial_examples(model, images, labels, attack, dataset, eps, seed, count=8):
    """Returns the figure of `count` correctly classified images and of what the attack makes.

    Args:
        model: Keras model.
        images, labels: uint8 [n, h, w, c] and int [n], of which the first 200 are considered.
        attack: function as `tfsparse.attacks.pgd` returns.
        dataset: their `zoo.data.Dataset`.
        eps: bound of the attack, for the figure.
        seed: of the attack's random start.

    Returns:
        A matplotlib figure; None if none of the images is classified correctly.
    """
    from zoo import report as pictures

    images, labels = as_float(images[:200]), labels[:200]
    before = np.argmax(model(images, training=False), axis=-1)
    chosen = np.flatnonzero(before == labels)[:count]
    if not len(chosen):
        return None
    images, labels = images[chosen], labels[chosen]
    adversarial = to_numpy(attack(images, labels, backend.seed(seed, 0)))
    after = np.argmax(model(adversarial, training=False), axis=-1)
    titles = [
        (dataset.class_names[label], dataset.class_names[predicted])
        for label, predicted in zip(labels, after, strict=True)
    ]
    return pictures.adversarial_picture(images, adversarial, titles, eps)


def closing_table(report):
    """Returns the table that ends a run, a str of lines: this network beside the dense one."""
    return tables.aligned(_rows(report))


def _rows(report):
    sizes, agreement = [], []
    if "int8" in report:
        int8, dense = report["int8"], report["dense_int8"]
        sizes = [
            ("int8 .tflite, bytes*", dense["bytes"], int8["bytes"]),
            ("int8 .tflite gzipped, bytes*", dense["gzip_bytes"], int8["gzip_bytes"]),
        ]
        agreement = [
            ("int8 top-1 agreement with Keras", "", f"{100 * int8['top1_agreement']:.2f} %", ""),
            ("  if ties count as agreement", "", f"{100 * int8['top1_or_tied']:.2f} %", ""),
            ("* the dense file has untrained weights", "", "", ""),
        ]
    clean, robust = 100 * report["clean_accuracy"], 100 * report["robust_accuracy"]
    return [
        ("", "dense", "this model", "ratio"),
        *(
            (name, f"{before:,}", f"{after:,}", f"{before / after:.2f}x")
            for name, before, after in [
                ("parameters", report["dense_parameters"], report["parameters"]),
                ("non-zero parameters", report["dense_parameters"], report["nonzero_parameters"]),
                ("MACs", report["dense_macs"], report["macs"]),
                ("non-zero MACs", report["dense_macs"], report["nonzero_macs"]),
                *sizes,
            ]
        ),
        (f"clean accuracy, {report['clean_examples']:,} images", "", f"{clean:.2f} %", ""),
        (f"{report['robust_attack']}, {report['robust_examples']:,}", "", f"{robust:.2f} %", ""),
        *agreement,
    ]
