"""A network, its weights, and what is in a weight file, for tests of these files."""

import gzip
import json

import keras
import numpy as np
import safetensors.numpy

from tfsparse.layers import PeriodicConv2D

RNG = np.random.default_rng(0)
NAMES = ["model.safetensors", "model.safetensors.gz"]


def network(pattern="PS4_P4", width=8, **options):
    """A periodic convolution, BatchNorm, a dense convolution and a classifier, by names."""
    inputs = keras.Input((8, 8, 6))
    x = PeriodicConv2D(width, 3, pattern, name="periodic", **options)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(16, 3, name="dense")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="classifier")(x))
    for variable in model.weights:
        variable.assign(RNG.normal(size=variable.shape))
    return model


def prune(variable, keep):
    """Multiplies with a mask, as pruners do: zeros of negative weights are -0.0."""
    variable.assign(variable.numpy() * keep)


def saved(model):
    return [variable.numpy().copy() for variable in model.weights]


def clear(model):
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 7))


def assert_equal(model, expected):
    for variable, values in zip(model.weights, expected, strict=True):
        assert variable.numpy().dtype == values.dtype
        np.testing.assert_array_equal(variable.numpy(), values, err_msg=variable.path)


def content_of(path):
    """Returns the tensors and the metadata of a file, without tfsparse."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return safetensors.numpy.load(content), header["__metadata__"]
