"""Models by name or path, and their data, for the commands that take --model."""

import json
import pathlib
import textwrap
import zipfile

import keras

from tfsparse.errors import UsageError
from tfsparse.examples import UNIT_RANGE, check_range, from_unit
from tfsparse.precision import full_precision
from zoo.data import as_float, open_dataset
from zoo.models import card, list_models, load, load_tflite, suggestion
from zoo.own_data import public_name

MAX_UNPACKED = 100  # times its size, for a .keras file; Keras does not compress them


def find_model(name, flag="model"):
    """Loads a Keras model.

    Args:
        name: of a zoo model, or the path of a .keras file or of a run's folder.
        flag: that the user gave it with, for error messages.

    Returns:
        `(model, about)`: the keras.Model, and what is known about it: its card, or the report or
        card beside it, or {}.

    Raises:
        UsageError: if there is no such model or Keras cannot load it.
    """
    path = pathlib.Path(name)
    try:
        if name and path.is_dir() and name not in list_models():
            path = path / "model.keras"
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, or a folder that may not be read
        raise UsageError(f"Cannot read --{flag}={name}: {error.strerror}.") from error
    if path.suffix != ".keras":
        if name not in list_models():
            raise UsageError(
                f"--{flag} must be a .keras file, a run's folder, or the name of a model. "
                f"{suggestion(name)} Received: {name or 'nothing'}"
            )
        return load(name), card(name)
    if not is_file:
        raise UsageError(f"There is no file {path}. Check --{flag}.")
    try:
        _check_unpacked_size(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged or foreign file can break anywhere in Keras
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise UsageError(f"Keras cannot load {path}: {reason}") from error
    return model, about_beside(path)


def find_file(name):
    """Returns the bytes of an int8 .tflite file, or None if `name` is not one.

    Args:
        name: of a zoo model, with or without ".tflite", or the path of a .tflite file.

    Raises:
        UsageError: if the file cannot be read.
    """
    path, model = pathlib.Path(name), name.removesuffix(".tflite")
    if model in list_models() and not path.is_file():
        return load_tflite(model).read_bytes()
    if path.suffix != ".tflite":
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {name}: {error.strerror}. Check --model.") from error
    if content[4:8] != b"TFL3":
        raise UsageError(f"{name} is not a .tflite file. Check --model.")
    return content


def _check_unpacked_size(path):
    """Raises a ValueError if a .keras file, a zip, unpacks to far more than a model would."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_UNPACKED * path.stat().st_size + 10e6:
        raise ValueError(f"it unpacks to {size:,} bytes from {path.stat().st_size:,}")


# The entries of a report that are read, and their types.
_REPORT = {
    "dataset": (str, type(None)),
    "data_dir": (str, type(None)),
    "image_size": (int, type(None)),
    "class_names": (list, type(None)),
    "model": (dict, type(None)),
}


def read_report(path):
    """Returns the report of a run at `path`, a dict; {} if there is none.

    Raises:
        UsageError: if the file is not a report.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Repair or remove it.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a report, a JSON object. Repair or remove it.")
    for name, kind in _REPORT.items():
        if not isinstance(content.get(name), kind):
            found = repr(content[name])[:80]
            raise UsageError(f"{path}: {name} cannot be {found}. Repair or remove it.")
    return content


def about_beside(path):
    """Returns the report of a run beside the model at `path`, or the card of a model of the hub."""
    report, card_path = read_report(path.with_name("report.json")), path.with_name("card.json")
    if report or not card_path.exists():
        return report
    try:
        found = json.loads(card_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(found, dict) and {"name", "recipe", "class_names"} <= found.keys()
    return read_report(card_path) if is_ours else {}  # others may call a file so


def find_dataset(about, model, dataset=None, data_dir=None, image_size=None):
    """Opens the data set that the arguments name or, without them, `about`.

    Args:
        about: as `find_model` returns.
        model: the name that the user gave, for the error message.
        dataset, data_dir, image_size: as in `zoo.data.open_dataset`, or None.
    """
    if from_report := dataset is None:
        dataset = about.get("dataset")
        data_dir = data_dir or about.get("data_dir")
        image_size = image_size or about.get("image_size")
    if dataset is None:
        raise UsageError(f"It is unknown which data set {model} was trained on. Give --dataset.")
    try:
        return open_dataset(dataset, data_dir=data_dir, image_size=image_size)
    except UsageError as error:
        if not from_report:
            raise
        raise UsageError(
            f"{error} {model} was trained on it; if that is a path, --dataset gives it from here."
        ) from error


def check_fit(image_shape, num_classes, data, class_names=None):
    """Raises a `UsageError` unless a model of these sizes fits the data set `data`.

    Args:
        image_shape, num_classes: of the model.
        data: a `zoo.data.Dataset`.
        class_names: of the model, or None if they are unknown.
    """
    if tuple(data.image_shape) != tuple(image_shape):
        raise UsageError(
            f"The model takes images of shape {tuple(image_shape)}. Give --dataset, or "
            f"--image_size, to match. Received: a data set of {tuple(data.image_shape)}"
        )
    if data.num_classes != num_classes:
        raise UsageError(
            f"The model has {num_classes} classes. Give the --dataset that it was trained on. "
            f"Received: a data set of {data.num_classes} classes"
        )
    known = class_names and not any(map(_is_number, (*class_names, *data.class_names)))
    if known and list(class_names) != list(data.class_names):
        raise UsageError(
            f"The model's classes are {', '.join(map(str, class_names)):.200}. Give a --dataset of "
            f"these, by the same names in the same order. Received: "
            f"{', '.join(data.class_names):.200}"
        )


def _is_number(name):
    """Whether a class has no name, as in an .npz file."""
    return str(name).isdecimal()


def find_model_and_data(name, dataset=None, data_dir=None, image_size=None):
    """Returns `(model, data)` of the model called `name`, after checking that they fit.

    The model is a keras.Model in float32 that can be converted, data a `zoo.data.Dataset`.

    Args:
        name: as in `find_model`.
        dataset, data_dir, image_size: as in `find_dataset`.
    """
    from tflite.convert import check_model  # imports TensorFlow

    model, about = find_model(name)
    check_model(model)
    model = full_precision(model)
    data = find_dataset(about, name, dataset, data_dir, image_size)
    names = about.get("class_names")
    check_fit(model.inputs[0].shape[1:], model.outputs[0].shape[-1], data, names)
    return model, data


def conversion_images(data, calibration_examples=None, input_range=UNIT_RANGE):
    """Returns the `tflite.conversion.Images` of a `zoo.data.Dataset`, scaled to `input_range`.

    Calibration takes the first training images, by default CALIBRATION_EXAMPLES of
    `tflite.conversion`; verification the first VERIFICATION_EXAMPLES test images, or all if there
    are fewer.
    """
    from tflite.conversion import CALIBRATION_EXAMPLES, VERIFICATION_EXAMPLES, Images

    input_range = check_range(input_range)
    images, labels = data.read("test", VERIFICATION_EXAMPLES)
    calibration, _ = data.read("train", calibration_examples or CALIBRATION_EXAMPLES)
    calibration, images = (from_unit(as_float(each), input_range) for each in (calibration, images))
    name = public_name(data.name)  # the file goes elsewhere
    return Images(calibration, images, labels, data.class_names, name, input_range)
