"""What is attacked: a Keras model, or a .tflite file in LiteRT."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import keras

from tflite.runtimes import FileModel
from tfsparse.errors import UsageError
from tfsparse.evaluation import logits
from tfsparse.hashing import hash_of_model
from zoo.loading import find_model, read_report
from zoo.models import card, list_models, load_tflite


@dataclasses.dataclass(frozen=True)
class Subject:
    """A classifier under attack.

    Attributes:
        name: as the user gave it.
        logits: function of images, float32 [n, h, w, c] in [0, 1], that returns a NumPy array
            [n, classes].
        model: the keras.Model, which has gradients; None for a file.
        image_shape: (h, w, c).
        num_classes: number of logits.
        sha256: identifies the model.
        about: its card, the report of its run, or {}.
        source: name or path of the float model that a file was made from, or None if unknown.
    """

    name: str
    logits: Callable
    model: keras.Model | None
    image_shape: tuple
    num_classes: int
    sha256: str
    about: dict
    source: str | None = None


def find_subject(name):
    """Returns the `Subject` of a zoo name, a .keras file, a .tflite file, or ZOO_NAME.tflite.

    Raises:
        UsageError: if there is none or it cannot be run.
    """
    if pathlib.Path(name).suffix == ".tflite":
        return _file(name)
    return model_subject(name, *find_model(name))


def model_subject(name, model, about=None):
    """Returns the `Subject` of a Keras model; raises a `UsageError` if it is not a classifier."""
    _check_model(model)
    return Subject(
        name=name,
        logits=lambda images: logits(model, images).numpy(),
        model=model,
        image_shape=tuple(model.inputs[0].shape[1:]),
        num_classes=model.outputs[0].shape[-1],
        sha256=hash_of_model(model),
        about=about or {},
    )


def _file(name):
    path, about, source = pathlib.Path(name), {}, None
    if name.removesuffix(".tflite") in list_models() and not path.exists():
        path = load_tflite(name.removesuffix(".tflite"))
    for model in list_models():
        if path.name == f"{model}_int8.tflite":
            about, source = card(model), model
    if path.with_name("model.keras").exists():
        about, source = read_report(path.with_name("report.json")), path.with_name("model.keras")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {name}: {error.strerror}. Check --model.") from error
    return file_subject(name, content, about, source and str(source))


def file_subject(name, content, about=None, source=None):
    """Returns the `Subject` of a .tflite file's bytes `content`, made from the model `source`."""
    file = FileModel(content)
    return Subject(
        name=name,
        logits=file,
        model=None,
        image_shape=file.image_shape,
        num_classes=file.num_classes,
        sha256=hashlib.sha256(content).hexdigest(),
        about=about or {},
        source=source,
    )


def _check_model(model):
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if [len(shape) for shape in shapes] != [4, 2] or None in shapes[0][1:]:
        raise UsageError(
            "A model under attack must take images of known size, (batch, height, width, "
            f"channels), and return logits, (batch, classes). Received: {shapes}"
        )
