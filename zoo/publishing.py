"""Makes a zoo model of a finished training run: its weights, its int8 file, and its card."""

import json
import pathlib
import re
import tempfile

import numpy as np

from tflite import file_metadata
from tflite.arena import arena
from tflite.conversion import convert_and_verify, source_facts
from tfsparse import evaluation, pruning, save_weights
from tfsparse.errors import UsageError
from tfsparse.files import sha256_of, write_bytes
from tfsparse.hashing import hash_of_weights
from zoo import adversarial_examples, figures, models
from zoo.architectures.costs import costs
from zoo.cards import NAME, threat_model
from zoo.data import batches
from zoo.loading import conversion_images, find_dataset, find_model
from zoo.robustness.subjects import file_subject, model_subject

_COPIED = (
    "dataset",
    "image_size",
    "class_names",
    "recipe",
    "epochs",
    "seconds_per_epoch",
    "seed",
    "hardware",
    "versions",
)
_LARGE = 1_000_000  # weights from which a model is stored in 16 bits, if it is as accurate
_SAME = 0.0005  # the most by which its accuracy may then differ
_BATCH = 500
_ROBUST = {
    "standard": "It is not robust to adversarial perturbations.",
    "hybrid": "It was trained to be robust to L_inf perturbations of up to {eps:.4g}/255; its "
    "results show how robust it is to these. Robustness to other perturbations was not measured.",
}
_LIMITS = (
    "The model recognizes only the classes of its data set, in images like those it was trained "
    "on; it assigns one of these classes to any other image, too. {robust} The figures are those "
    "of one training run; another seed gives others. Do not rely on its predictions where people's "
    "safety is at stake."
)


def publish(workdir, name, data_dir=None, *, purpose="", note="", license="", intended_use=""):
    """Adds the model of a finished training run to `zoo.models.folder_of_own_models()`.

    Its card, weights, int8 file, and adversarial examples go to the folders cards/, weights/, and
    examples/.

    Args:
        workdir: folder of the run.
        name: of the model.
        data_dir: where tensorflow-datasets keeps its data, or None for its default.
        purpose: why it is in the zoo, one line.
        note: what users must know about the data, such as its form.
        license: the SPDX identifier of its license.
        intended_use: what it is for.

    Returns:
        The card, a dict.

    Raises:
        UsageError: if there is no finished run in `workdir`, its files do not fit together, a
            teacher of it is gone, or the zoo has a model of that name.
    """
    workdir = pathlib.Path(workdir)
    if not re.fullmatch(NAME, name, re.ASCII):
        raise UsageError(
            f"--name must consist of letters, digits, '.', '_', and '-'. Received: {name!r}"
        )
    folder = models.folder_of_own_models()
    path = folder / "cards" / f"{name}.json"
    # Of two models of a name, in the package and where TFSPARSE_MODELS says, one is never found.
    taken = models.path_of_card(name) if name in models.list_models() else path
    if taken.exists():
        raise UsageError(
            f"{taken} exists already. Remove it to replace {name}, or choose another --name."
        )
    model, content, report = read_run(workdir)
    if file_metadata.read(content).get("source_sha256") != hash_of_weights(model):
        raise UsageError(
            f"{workdir / 'model_int8.tflite'} was not made from the model.keras beside it. Run "
            "tfsparse train again."
        )
    recipe = {**report["recipe"], "teacher": teachers(report["recipe"].get("teacher") or [])}
    for kind in ("cards", "weights", "examples"):
        _make_writable(folder / kind)  # what follows takes minutes
    # Everything is measured before anything is written.
    data = find_dataset(report, workdir, data_dir=data_dir)
    is_half = model.count_params() >= _LARGE and halve(model, data)
    small = model
    if report["recipe"]["structure"] == "channel":
        small = pruning.remove_channels(model)
    if is_half:
        content = _converted(small, data)
    elif small is not model:
        # The file is that of the model that `zoo.load` returns.
        content = file_metadata.embed(
            content, {**file_metadata.read(content), **source_facts(small)}
        )
    card = {
        "name": name,
        "purpose": purpose,
        "note": note,
        "license": license,
        "intended_use": intended_use,
        "limits": limits(report["recipe"]),
        "model": report["model"],
        **{key: report[key] for key in _COPIED},
        "recipe": recipe,
        "threat_model": threat_model(report["recipe"]),
        "hours": report["epochs"] * report["seconds_per_epoch"] / 3600,
        **measure(small, content, report, data),
    }
    card["baseline"] = figures.baseline(card)
    card |= {"deployed": None, "seeds": None}  # studies measure them: python -m studies cards
    examples = adversarial_examples.make(small, content, data)
    weights = folder / "weights" / f"{name}.safetensors.gz"
    int8 = folder / "weights" / f"{name}_int8.tflite"
    save_weights(model, weights, "float16" if is_half else None)
    write_bytes(int8, content)
    card |= {"weights": _entry(weights), "tflite": _entry(int8)}
    card["examples"] = adversarial_examples.write(examples, name, card["test_sha256"], folder)
    write_bytes(path, json.dumps(card, indent=2) + "\n")
    return card


def _make_writable(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"Cannot write into {folder}: {error.strerror}. The environment variable "
            f"{models.FURTHER} may name another folder of models."
        ) from error


def halve(model, data):
    """Rounds the float32 weights of a model to float16 if it stays as accurate.

    Args:
        model: Keras model; its weights stay as they are if its accuracy would not.
        data: the `zoo.data.Dataset` on whose test images the accuracy is measured.

    Returns:
        Whether it did.
    """
    weights = model.get_weights()
    with np.errstate(over="ignore"):
        halves = [
            each.astype("float16").astype("float32") if each.dtype == np.float32 else each
            for each in weights
        ]
    if not all(np.isfinite(each).all() for each in halves):
        return False
    images, labels = data.read("test")
    before = evaluation.accuracy(model, batches(images, labels, _BATCH))
    model.set_weights(halves)
    after = evaluation.accuracy(model, batches(images, labels, _BATCH))
    if abs(after - before) <= _SAME:
        return True
    model.set_weights(weights)
    return False


def refresh(name, data):
    """Makes the int8 file of a zoo model again, and the entries of its card that depend on it.

    Args:
        name: of the model.
        data: the `zoo.data.Dataset` of its card.

    Returns:
        The card, a dict.

    Raises:
        UsageError: if the new file fails verification, or has another accuracy than the card says.
    """
    card, model = models.card(name), models.load(name)
    conversion = convert_and_verify(model, "int8", conversion_images(data))
    content = conversion.content
    subjects = model_subject(name, model), file_subject(name, content)
    found = figures.accuracies(["int8"], *subjects, data, card["recipe"]["eps"])["int8"]
    failures = conversion.failures
    if not figures.is_same_accuracy(card["results"]["int8"], found):
        said = card["results"]["int8"]["accuracy"]
        failures.append(f"Its accuracy is {found['accuracy']:.4f}, that on the card {said:.4f}.")
    if failures:
        raise UsageError(f"The int8 file of {name} stays as it is: {' '.join(failures)}")
    folder = models.folder_of(name)
    path = folder / "weights" / card["tflite"]["file"]
    if content != path.read_bytes():
        card["deployed"] = None  # another file was attacked
    write_bytes(path, content)
    golden = {**card["golden"], "int8": figures.golden(model, content)["int8"]}
    device = {**card["device"], "arena_bytes": arena(content).total}
    results = {**card["results"], "int8": found}
    card |= {"golden": golden, "device": device, "results": results, "tflite": _entry(path)}
    card["c_package"] = figures.as_c(content)
    examples = adversarial_examples.make(model, content, data)
    card["examples"] = adversarial_examples.write(examples, name, card["test_sha256"], folder)
    write_bytes(models.path_of_card(name), json.dumps(card, indent=2) + "\n")
    return card


def _converted(model, data):
    """Returns the bytes of a model's verified int8 file."""
    conversion = convert_and_verify(model, "int8", conversion_images(data))
    if conversion.failures:
        raise UsageError(f"The int8 file was not made: {' '.join(conversion.failures)}")
    return conversion.content


def teachers(names):
    """Returns the teachers of a run as its card names them, a list of str.

    A model of the zoo has its name. Any other one has that of its folder or file, and the hash of
    its weights: the rest of its path means nothing elsewhere.

    Args:
        names: as `train --teacher` takes them.

    Raises:
        UsageError: if one of them is gone.
    """
    found = []
    for name in names:
        if name not in models.list_models():
            try:
                model, _ = find_model(name, "teacher")
            except UsageError as error:
                raise UsageError(
                    f"The card needs the hash of the run's teacher {name}, which cannot be read. "
                    "Put it back, or run this in the folder in which the run was trained."
                ) from error
            name = f"{name_of_teacher(name)} (sha256 {hash_of_weights(model)[:16]})"
        found.append(name)
    return found


def name_of_teacher(name):
    """Returns the name of a teacher without the rest of its path, a str."""
    path = pathlib.Path(name).resolve()
    return path.parent.name if path.name == "model.keras" else path.name.removesuffix(".keras")


def limits(recipe):
    """Returns what a card says about the limits of a model, a str."""
    return _LIMITS.format(robust=_ROBUST[recipe["loss"]].format(eps=recipe["eps"] * 255))


def read_run(workdir):
    """Returns the Keras model, the bytes of the int8 file and the report of a finished run."""
    if not (workdir / "report.json").is_file():
        raise UsageError(f"--workdir must be the folder of a finished run. Received: {workdir}")
    model, report = find_model(str(workdir / "model.keras"))  # a folder may have a zoo model's name
    missing = {*_COPIED, "model", "int8"} - report.keys()
    if not missing and not report["int8"]["passed"]:
        raise UsageError(
            f"The int8 file of the run in {workdir} did not agree with its model, so there is no "
            "file to publish."
        )
    content = None
    try:
        content = (workdir / "model_int8.tflite").read_bytes()
    except OSError as error:
        missing.add(str(error))
    if missing:
        raise UsageError(
            f"--workdir must be the folder of a finished run. Received: {workdir}, which lacks "
            f"{', '.join(sorted(missing))}"
        )
    return model, content, report


def measure(model, content, report, data):
    """Returns the card's figures of a run's model, as `zoo.load` will return it, and its file."""
    subjects = model_subject("model", model), file_subject("file", content)
    later = figures.SLOW + figures.OLDER
    quick = [name for name in figures.ACCURACIES if name not in later]
    return {
        "test_sha256": figures.hash_of_test_set(data),
        **costs(model, report["model"]),
        "golden": figures.golden(model, content),
        "results": figures.accuracies(quick, *subjects, data, report["recipe"]["eps"]),
        "device": figures.on_device(report["model"], content, data),
        "c_package": figures.as_c(content),
    }


def _entry(path):
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
