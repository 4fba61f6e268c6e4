"""Models by name or path, and the data they belong to, for the commands that take --model."""

import hashlib
import json
import pathlib
import textwrap
import zipfile

import keras
import numpy as np

from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers
from zoo.data import open_dataset
from zoo.models import card, close_names, list_models, load

MAX_UNPACKED = 100  # times its size, for a .keras file; Keras does not compress them


def find_model(name):
    """Loads a Keras model.

    Args:
        name: of a zoo model, or the path of a .keras file or of a run's folder.

    Returns:
        `(model, about)`: the keras.Model, and what is known of it: its card, the report of the run
        that it lies beside, or {}.

    Raises:
        UsageError: where there is no such model or Keras cannot load it.
    """
    path = pathlib.Path(name)
    try:
        if path.is_dir() and name not in list_models():
            path = path / "model.keras"
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, or a folder that may not be read
        raise UsageError(f"Cannot read --model={name}: {error.strerror}.") from error
    if path.suffix != ".keras":
        if name not in list_models():
            raise UsageError(
                "--model must be a .keras file, a run's folder or a name of zoo.list_models(), "
                f"such as {close_names(name)}. Received: {name}"
            )
        return load(name), card(name)
    if not is_file:
        raise UsageError(f"There is no file {path}. Check --model.")
    try:
        _check_unpacked_size(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged or foreign file can break anywhere in Keras
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise UsageError(f"Keras cannot load {path}: {reason}") from error
    return model, read_report(path.with_name("report.json"))


def _check_unpacked_size(path):
    """Raises ValueError where a .keras file, a zip, unpacks to far more than a model would."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_UNPACKED * path.stat().st_size + 10e6:
        raise ValueError(f"it unpacks to {size:,} bytes from {path.stat().st_size:,}")


# What of a report others read, and of which types it is.
_REPORT = {
    "dataset": (str, type(None)),
    "data_dir": (str, type(None)),
    "image_size": (int, type(None)),
    "model": (dict, type(None)),
}


def read_report(path):
    """Returns the report of a run at `path`, a dict; {} where there is none.

    Raises:
        UsageError: where the file is not a report.
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


def find_dataset(about, model, dataset=None, data_dir=None, image_size=None):
    """Opens the data set that the arguments or, failing them, `about` name.

    Args:
        about: as `find_model` returns.
        model: what the user called the model, for the error.
        dataset, data_dir, image_size: as in `zoo.data.open_dataset`, or None.
    """
    if dataset is None:
        dataset = about.get("dataset")
        data_dir = data_dir or about.get("data_dir")
        image_size = image_size or about.get("image_size")
    if dataset is None:
        raise UsageError(
            f"Nothing beside {model} says which data set it was trained on. Give --dataset."
        )
    return open_dataset(dataset, data_dir=data_dir, image_size=image_size)


def check_fit(image_shape, num_classes, data):
    """Raises a `UsageError` unless a model of these sizes fits the data set `data`."""
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


def hash_of_weights(model):
    """Returns the sha256 of the values of all weights of a Keras model, a hexadecimal str."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def hash_of_model(model):
    """Returns a sha256 of a Keras model's graph and weights, whatever the layers are called."""
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass
        config = [[type(layer).__qualname__, layer.get_config()] for layer in leaf_layers(model)]
    names = {name: f"operation {index}" for index, name in enumerate(_names(model))}
    config = keras.tree.map_structure(lambda value: _renamed(value, names), config)
    text = json.dumps(config, sort_keys=True, default=lambda value: type(value).__qualname__)
    return hashlib.sha256((hash_of_weights(model) + text).encode()).hexdigest()


def _names(model):
    """Yields the names of a model, of all its operations and of those of the models in it."""
    yield model.name
    for operation in getattr(model, "operations", None) or model.layers:
        if isinstance(operation, keras.Model):
            yield from _names(operation)
        else:
            yield operation.name


def _renamed(value, names):
    return names.get(value, value) if isinstance(value, str) else value
