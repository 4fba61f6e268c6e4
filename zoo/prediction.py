"""Classes of images: arrays or files, for a model of the zoo or one of your own."""

import os
import pathlib
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tflite.file_metadata import read as read_metadata
from tflite.runtimes import FileModel
from tfsparse.errors import UsageError
from tfsparse.evaluation import decision_threshold
from tfsparse.examples import UNIT_RANGE, check_images, check_range, from_unit, interface
from zoo.augmentation import as_float
from zoo.folders import read_image
from zoo.loading import find_model

BATCH = 64


class Prediction(NamedTuple):
    """A class and its probability, in [0, 1], as the model sees it."""

    class_name: str
    probability: float


def predict(
    model: keras.Model | str | os.PathLike[str],
    images: Any,
    top: int = 5,
    class_names: Sequence[str] | None = None,
) -> list[list[Prediction]]:
    """Classifies images.

    Args:
        model: keras.Model that takes images in [0, 1]; or the name of a zoo model; or the path of a
            .keras file, a run's folder, or a .tflite file.
        images: an array or a file, or a list of these. Arrays are [h, w, c], or [n, h, w, c] for
            several images, uint8, or floats in [0, 1]. Files are paths or file: URLs of anything
            that Pillow reads; they are converted to gray or RGB as the model needs. Images of
            another size than the model's are resized (bilinear, antialiased).
        top: number of classes for each image, 1 or more.
        class_names: list of str; None for those of the model's card, report, or metadata, or the
            numbers of the classes if it has none.

    Returns:
        A list with a list for each image: its `top` `Prediction`s, the most probable first. The
        probabilities are the softmax of the model's outputs, or these outputs themselves if they
        are probabilities already. One output is that of the second of two classes.

    Raises:
        UsageError: if there is no such model, an image cannot be read or does not fit, or there is
            another number of classes than of class names.

    Examples:
        >>> zoo.predict("resnet8_cifar10", "photo.jpg")[0][0].class_name
    """
    run, shape, known = _find(model)
    listed = _listed(images)
    if not listed:
        raise UsageError(f"images must be one image or more. Received: {images!r}")
    scaled = np.concatenate([_images(each, shape) for each in listed])
    check_images(scaled, shape)
    batches = (scaled[i : i + BATCH] for i in range(0, len(scaled), BATCH))
    probabilities = np.concatenate([_probabilities(run(batch)) for batch in batches])
    names = known if class_names is None else list(class_names)
    names = names or [str(index) for index in range(probabilities.shape[1])]
    if len(names) != probabilities.shape[1]:
        raise UsageError(
            f"The model tells {probabilities.shape[1]} classes apart. Received: {len(names)} "
            "class_names"
        )
    if top < 1:
        raise UsageError(f"top must be at least 1. Received: {top}")
    return [
        [Prediction(names[index], float(row[index])) for index in np.argsort(-row)[:top]]
        for row in probabilities
    ]


def _find(model):
    """Returns a function from images to outputs, the shape of an image, and class names or None."""
    if isinstance(model, (str, os.PathLike)):
        path = pathlib.Path(model)
        if path.suffix == ".tflite":
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UsageError(f"Cannot read {path}: {error.strerror}.") from error
            file, facts = FileModel(content), read_metadata(content)
            input_range = check_range(facts.get("input_range", UNIT_RANGE))
            return (
                lambda images: file(from_unit(images, input_range)),
                tuple(file.image_shape),
                facts.get("labels"),
            )
        model, about = find_model(str(model))
        return *_keras(model), about.get("class_names")
    if isinstance(model, keras.Model):
        return *_keras(model), None
    raise UsageError(f"model must be a Keras model, a name, or a path. Received: {model!r}")


def _keras(model):
    shape, outputs = interface(model)
    is_logit = outputs == 1 and decision_threshold(model) == 0

    def run(images):
        found = np.asarray(keras.ops.cast(model(images, training=False), "float32"), np.float64)
        if outputs == 1:
            second = 1 / (1 + np.exp(-found)) if is_logit else found
            return np.concatenate([1 - second, second], axis=1)
        return found

    return run, shape


def _probabilities(outputs):
    """Returns outputs as they are if each row is a distribution, else their softmax, [n, c]."""
    if (outputs >= 0).all() and np.abs(outputs.sum(axis=1) - 1).max() < 1e-2:
        return outputs
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _listed(images):
    return images if isinstance(images, (list, tuple)) else [images]


def _images(source, shape):
    """Returns a file or an array as float32 [n, h, w, c] in the size of `shape`."""
    height, width, channels = shape
    if isinstance(source, (str, os.PathLike)):
        return as_float(read_image(_path(source), shape))[None]
    images = np.asarray(source)
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[3] != channels or not images.size:
        raise UsageError(
            f"An image must be a file or an array [height, width, {channels}], or several in one "
            f"array [n, height, width, {channels}]. Received: {np.shape(source)}"
        )
    if images.dtype == np.uint8:
        images = as_float(images)
    # Before images are resized, which makes integers of a wrong range floats.
    check_images(images, images.shape[1:])
    if None not in (height, width) and images.shape[1:3] != (height, width):
        resized = keras.ops.image.resize(images, (height, width), "bilinear", antialias=True)
        images = np.clip(keras.ops.convert_to_numpy(resized), 0, 1)
    return images.astype(np.float32)


def _path(source):
    """Returns the path of a file that is given as a path or as a file: URL."""
    url = urllib.parse.urlparse(str(source))
    if url.scheme == "file":
        return pathlib.Path(urllib.request.url2pathname(url.path))
    if url.scheme in ("http", "https"):
        raise UsageError(f"Download the image first and give its path. Received: {source}")
    return pathlib.Path(source)
