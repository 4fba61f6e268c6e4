"""What is attacked: a Keras model, or a .tflite file in LiteRT."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable

import keras

from tfsparse import optional
from tfsparse.errors import UsageError
from tfsparse.evaluation import logits
from tfsparse.examples import UNIT_RANGE, check_range, from_unit, interface
from tfsparse.hashing import hash_of_model
from zoo.loading import about_beside, find_file, find_model
from zoo.models import card, list_models, load_tflite
from zoo.robustness.sizes import in_few_sizes


@dataclasses.dataclass(frozen=True)
class Subject:
    """A classifier under attack.

    Attributes:
        name: as the user gave it.
        logits: function of images, float32 [n, h, w, c] in [0, 1], that returns a NumPy array
            [n, classes].
        model: the keras.Model of images in [0, 1]; None for a file.
        image_shape: (h, w, c).
        num_classes: number of logits.
        sha256: identifies the model.
        about: its card, the report of its run, or {}.
        source: name or path of the float model that a file was made from, or None if unknown.
        input_range: smallest and largest value of the images that the model itself takes; `logits`
            and `model` take images in [0, 1] all the same.
        content: bytes of the file; None for a Keras model.
        class_names: in the order of the logits, or None if they are unknown.
    """

    name: str
    logits: Callable
    model: keras.Model | None
    image_shape: tuple
    num_classes: int
    sha256: str
    about: dict
    source: str | None = None
    input_range: tuple = UNIT_RANGE
    content: bytes | None = None
    class_names: list | None = None


def find_subject(name, input_range=None):
    """Returns the `Subject` of a zoo name, a .keras file, a .tflite file, or ZOO_NAME.tflite.

    Args:
        name: as above.
        input_range: smallest and largest value of the images that the model takes; by default what
            a file's metadata says, and [0, 1].

    Raises:
        UsageError: if there is none or it cannot be run.
    """
    if pathlib.Path(name).suffix == ".tflite":
        return _file(name, input_range)
    return model_subject(name, *find_model(name), input_range or UNIT_RANGE)


def model_subject(name, model, about=None, input_range=UNIT_RANGE):
    """Returns the `Subject` of a Keras model; raises a `UsageError` if it is not a classifier."""
    _check_sizes(*interface(model))
    input_range = check_range(input_range)
    model = of_unit_images(model, input_range)
    return Subject(
        name=name,
        logits=lambda images: keras.ops.convert_to_numpy(
            in_few_sizes(functools.partial(logits, model), images)
        ),
        model=model,
        image_shape=tuple(model.inputs[0].shape[1:]),
        num_classes=model.outputs[0].shape[-1],
        sha256=hash_of_model(model),
        about=about or {},
        input_range=input_range,
        class_names=(about or {}).get("class_names"),
    )


def of_unit_images(model, input_range):
    """Returns the keras.Model of images in [0, 1] that scales them to `input_range` for `model`."""
    if input_range == UNIT_RANGE:
        return model
    low, high = input_range
    image = keras.Input(model.inputs[0].shape[1:])
    return keras.Model(image, model(keras.layers.Rescaling(high - low, low)(image)))


def _file(name, input_range):
    path, about, source = pathlib.Path(name), {}, None
    if name.removesuffix(".tflite") in list_models() and not path.exists():
        path = load_tflite(name.removesuffix(".tflite"))
    for model in list_models():
        if path.name == f"{model}_int8.tflite":
            about, source = card(model), model
    if path.with_name("model.keras").exists():
        about, source = about_beside(path), path.with_name("model.keras")
    return file_subject(name, find_file(str(path)), about, source and str(source), input_range)


def file_subject(name, content, about=None, source=None, input_range=None):
    """Returns the `Subject` of a .tflite file's bytes `content`, made from the model `source`."""
    optional.require(
        "Attacking a .tflite file", flatbuffers="flatbuffers", ai_edge_litert="ai-edge-litert"
    )
    from tflite import file_metadata
    from tflite.runtimes import FileModel

    file = FileModel(content)
    _check_sizes(file.image_shape, file.num_classes)
    facts = file_metadata.read(content)
    input_range = check_range(input_range or facts.get("input_range", UNIT_RANGE))
    return Subject(
        name=name,
        logits=lambda images: file(from_unit(images, input_range)),
        model=None,
        image_shape=file.image_shape,
        num_classes=file.num_classes,
        sha256=hashlib.sha256(content).hexdigest(),
        about=about or {},
        source=source,
        input_range=input_range,
        content=content,
        class_names=facts.get("labels"),
    )


def _check_sizes(image_shape, outputs):
    if None in image_shape or not outputs or outputs < 2:
        raise UsageError(
            "A model under attack must take images of known size and have an output for each of "
            f"two or more classes. Received: {image_shape} to {outputs}"
        )
