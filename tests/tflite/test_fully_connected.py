"""Fully connected layers as convolutions: the same outputs, and the same bits in TFLM."""

import keras
import numpy as np
import pytest

from tflite.convert import convert
from tflite.flatbuffer import operator_name, unpack
from tflite.fully_connected import as_convolutions
from tflite.runtimes import FileModel


def perceptron(activation="relu", use_bias=True):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(16, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(64, activation=activation, use_bias=use_bias)(x)
    model = keras.Model(inputs, keras.layers.Dense(10)(x))
    for weight in model.trainable_variables:
        if len(weight.shape) == 1:
            weight.assign(np.linspace(-0.1, 0.1, weight.shape[0]))
    return model


def sequential(*layers):
    return keras.Sequential([keras.Input((6, 6, 2)), *layers])


def nested():
    inner = perceptron()
    head = keras.Sequential([keras.Input((10,)), keras.layers.Dense(7)])
    image = keras.Input((6, 6, 2))
    return keras.Model(image, keras.layers.Dense(5)(head(inner(image))))


def kinds(model):
    for layer in model.layers:
        yield from kinds(layer) if isinstance(layer, keras.Model) else [type(layer).__name__]


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (perceptron(), 0),
        (perceptron("tanh", use_bias=False), 0),
        (sequential(keras.layers.Flatten(), keras.layers.Dense(3)), 0),
        (sequential(keras.layers.Dense(3), keras.layers.Flatten()), 1),
        (nested(), 0),
    ],
    ids=["functional", "without bias", "sequential", "on pixels", "nested"],
)
def test_outputs_are_the_same(model, left):
    images = np.random.default_rng(0).random((5, 6, 6, 2), np.float32)
    copy = as_convolutions(model)
    np.testing.assert_allclose(copy(images), model(images), rtol=1e-5, atol=1e-6)
    assert list(kinds(copy)).count("Dense") == left
    assert copy.count_params() == model.count_params()


def test_tflm_and_litert_give_the_same_bits():
    pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")
    model = perceptron()
    images = np.random.default_rng(0).random((1000, 6, 6, 2), np.float32)
    content = convert(model, "int8", images[:50])
    names = {operator_name(code) for code in unpack(content).operatorCodes}
    assert "FULLY_CONNECTED" not in names
    reference, tflm = (FileModel(content, name).outputs(images) for name in ("reference", "tflm"))
    assert len(np.unique(reference)) > 50
    np.testing.assert_array_equal(tflm, reference)
