"""Predictions and accuracy of a model on a data set, clean or under an attack."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tqdm

from tfsparse import backend
from tfsparse.errors import UsageError
from tfsparse.examples import UNIT_RANGE, check_images, class_labels, interface
from tfsparse.graph import producer
from tfsparse.starts import image_seeds, random_starts


def logits(model, images):
    """Returns the logits of images (a tensor or an array) in inference mode, a tensor."""
    return _compiled()(model, images)


@functools.cache
def _compiled():
    return backend.compiled_for_batches(one_output)


def one_output(model, images):
    """Returns a model's only output in inference mode, which may be in a dict."""
    (outputs,) = keras.tree.flatten(model(images, training=False))
    return outputs


def shapes(model, images):
    """Returns (h, w, c) of a classifier's images, and how many outputs it has.

    Raises:
        UsageError: if it has several inputs or outputs, or others than images and logits.
    """
    if getattr(model, "outputs", None):
        return interface(model)
    return tuple(images.shape[1:]), logits(model, images[:1]).shape[-1]  # a class of the user's own


def decision_threshold(model):
    """Returns above which output a model of one output predicts class 1: 0.5 or, of a logit, 0."""
    if not getattr(model, "outputs", None):
        return 0.0
    return 0.5 if ends_in(model, "sigmoid") else 0.0


def ends_in(model, name):
    """Returns whether the last operation of a functional model is an activation, a bool.

    Args:
        model: functional or Sequential Keras model.
        name: "sigmoid" or "softmax".
    """
    operation = producer(model.outputs[0])
    while isinstance(operation, keras.Model):
        operation = producer(operation.outputs[0])
    if getattr(operation, "activation", None) is getattr(keras.activations, name):
        return True
    if name == "softmax" and isinstance(operation, keras.layers.Softmax):
        return True
    return type(operation) is _operation(name)


@functools.cache
def _operation(name):
    """Returns the class of an operation of keras.ops."""
    return type(producer(getattr(keras.ops, name)(keras.Input((2,)))))


def predicted_classes(model, outputs):
    """Returns the class that a Keras model predicts, int [n], from its outputs [n, classes].

    One output tells two classes apart; see `decision_threshold`.
    """
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > decision_threshold(model)).astype(int)
    return outputs.astype(np.float64).argmax(axis=1)  # NumPy cannot for bfloat16


def accuracy(
    model: keras.Model,
    batches: Iterable[tuple[Any, Any]],
    attack: Callable[[Any, Any, Any], Any] | None = None,
    seed: int = 0,
    restarts: int = 1,
    description: str = "evaluating",
    input_range: tuple[float, float] = UNIT_RANGE,
) -> float:
    """Returns the fraction of images that `model` classifies correctly, a float in [0, 1].

    Takes and raises what `predictions` does.
    """
    labels, predicted = predictions(
        model, batches, attack, seed, restarts, description, input_range
    )
    return float(np.mean(labels == predicted))


def predictions(
    model: keras.Model,
    batches: Iterable[tuple[Any, Any]],
    attack: Callable[[Any, Any, Any], Any] | None = None,
    seed: int = 0,
    restarts: int = 1,
    description: str = "evaluating",
    input_range: tuple[float, float] = UNIT_RANGE,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(labels, predicted)`: each image's class and the one that `model` predicts, int [n].

    Args:
        model: takes float images [n, h, w, c] in `input_range` and returns logits [n, classes].
        batches: iterable of (images, labels), such as a tf.data.Dataset; labels as
            `tfsparse.examples.class_labels` takes them.
        attack: None, or a function as `tfsparse.attacks.pgd` returns, whose adversarial examples
            are classified instead of the images. It gets the random starts of the images.
        seed: int, 0 or more. The random start of an image follows from it, the restart, and the
            index of the image among all; the size of the batches does not matter.
        restarts: how often each image is attacked. It counts as correct if the model classifies
            all of its adversarial examples correctly; otherwise the first wrong class is returned.
        description: label of the progress bar.
        input_range: smallest and largest value of the images.

    Raises:
        UsageError: if images or labels do not fit the model, there are none, or seed or restarts
            is out of range.
    """
    if seed < 0 or restarts < 1:
        raise UsageError(
            "predictions needs seed >= 0 and restarts >= 1. "
            f"Received: seed={seed}, restarts={restarts}"
        )
    found = []
    count = 0
    for batch in tqdm.tqdm(batches, description, leave=False, disable=None):
        images, labels = _pair(batch)
        shape, outputs = shapes(model, images)
        check_images(images, shape, input_range)
        labels = class_labels(labels, len(images), outputs)
        predicted = labels
        for restart in range(restarts if attack else 1):
            attacked = images
            if attack:
                seeds = image_seeds(seed, restart, np.arange(count, count + len(labels)))
                attacked = attack(images, labels, random_starts(seeds, images.shape[1:]))
            outputs_of_batch = keras.ops.convert_to_numpy(logits(model, attacked))
            classes = predicted_classes(model, outputs_of_batch)
            predicted = np.where(predicted == labels, classes, predicted)
        found.append((labels, predicted))
        count += len(labels)
    if not found:
        raise UsageError(f"There are no images to classify. Received: {batches!r}")
    labels, predicted = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return labels, predicted


def _pair(batch):
    """Returns `(images, labels)`; raises a `UsageError` if a batch is anything else."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise UsageError(
            "batches must be an iterable of pairs (images, labels), such as [(images, labels)]. "
            f"Received: an item that is a {type(batch).__name__}"
        )
    return batch
