"""Hashes that identify a Keras model: of its weights, and of its graph and weights."""

import hashlib
import json

import keras
import numpy as np

from tfsparse.graph import leaf_layers


def hash_of_weights(model):
    """Returns the sha256 of all weights of a Keras model, a hexadecimal str.

    Zeros of either sign are the same: masks leave -0.0, files of sparse weights do not store it.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(np.where(values == 0, np.zeros_like(values), values).tobytes())
    return digest.hexdigest()


def hash_of_model(model):
    """Returns the sha256 of a Keras model's graph and weights; names of layers do not matter."""
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass
        config = [[type(layer).__qualname__, layer.get_config()] for layer in leaf_layers(model)]
    names = {name: f"operation {index}" for index, name in enumerate(_names(model))}
    config = keras.tree.map_structure(lambda value: _renamed(value, names), config)
    text = json.dumps(config, sort_keys=True, default=lambda value: type(value).__qualname__)
    return hashlib.sha256((hash_of_weights(model) + text).encode()).hexdigest()


def _names(model):
    """Yields the names of a model and of all operations in it and in its nested models."""
    yield model.name
    for operation in getattr(model, "operations", None) or model.layers:
        if isinstance(operation, keras.Model):
            yield from _names(operation)
        else:
            yield operation.name


def _renamed(value, names):
    return names.get(value, value) if isinstance(value, str) else value
