"""Models whose robustness is known."""

import keras
import numpy as np

from zoo.robustness.subjects import Subject

CLASSES = 5


def linear(weights=None):
    """Returns a linear model of 8x8 images and its weights [64, CLASSES], without bias."""
    if weights is None:
        weights = np.random.default_rng(0).normal(size=(64, CLASSES)).astype(np.float32)
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(CLASSES, use_bias=False)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.set_weights([weights])
    return model, weights


def images(count=60):
    """Returns float32 images around gray, so that no attack meets the bounds 0 and 1."""
    return np.random.default_rng(1).uniform(0.3, 0.7, (count, 8, 8, 1)).astype(np.float32)


def margins(weights, images, labels, eps):
    """Returns what is left of each image's margin after the worst perturbation, float [n].

    logit_y - logit_j falls by at most eps * ||w_y - w_j||_1.
    """
    logits = images.reshape(len(images), -1) @ weights
    left = np.empty((len(images), CLASSES))
    for j in range(CLASSES):
        gap = weights[:, labels] - weights[:, [j]]
        left[:, j] = logits[np.arange(len(labels)), labels] - logits[:, j]
        left[:, j] -= eps * np.abs(gap).sum(axis=0)
    left[np.arange(len(labels)), labels] = np.inf
    return left.min(axis=1)


def subject(model, name="model"):
    """Returns `model` as what is attacked."""
    return Subject(
        name=name,
        logits=lambda images: np.asarray(model(images, training=False)),
        model=model,
        image_shape=tuple(model.inputs[0].shape[1:]),
        num_classes=model.outputs[0].shape[-1],
        sha256=name,
        about={},
    )
