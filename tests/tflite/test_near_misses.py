"""Layers that look like those that are folded or replaced, and are not: they are left alone."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.tflite.test_fully_connected import kinds
from tflite.fully_connected import as_convolutions
from tflite.lowering import lower
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D


class OwnNorm(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class OwnReLU(layers.ReLU):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=-1, keepdims=True)


class OwnActivation(layers.Activation):
    def call(self, inputs):
        return keras.ops.flip(inputs, axis=-1)


class OwnPeriodic(PeriodicConv2D):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), axis=-1)


class OwnDense(layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def randomize(model):
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "float" in variable.dtype:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def assert_same(copy, model):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, *model.inputs[0].shape[1:])).astype("float32")
    expected, actual = model(images), copy(images)
    for ours, theirs in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        assert np.std(theirs) > 0.01
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def norm(*arguments, **names):
    """Returns a function that applies BatchNorm; `names` that `call` takes go there."""
    called = {name: names.pop(name) for name in ("training", "mask") if name in names}
    return lambda inputs: layers.BatchNormalization(*arguments, **names)(inputs, **called)


def twice(layer):
    return lambda x: layer(layer(x))


# What follows a periodic layer, and how many BatchNorm layers are left.
FOLLOWERS = {
    "of rows": (norm(axis=1), 1),
    "of columns": (norm(axis=2), 1),
    "of rows, counted from the end": (norm(axis=-3), 1),
    "training": (norm(training=True), 1),
    "masked": (norm(mask=np.ones((1, 8, 8), bool)), 1),
    "subclass": (OwnNorm(), 1),
    "twice": (twice(layers.BatchNormalization()), 1),
    "another kind": (layers.GroupNormalization(4), 0),
    "activation of a subclass": (OwnReLU(), 0),
    "another activation of a subclass": (OwnActivation("relu"), 0),
    "softmax after BatchNorm": (lambda x: layers.Softmax()(norm()(x)), 0),
    "softmax": (layers.Activation("softmax"), 0),
    "noise": (lambda x: norm()(layers.GaussianNoise(0.1)(x)), 1),
    "dropout": (lambda x: norm()(layers.Dropout(0.1)(x)), 1),
    "activation first": (lambda x: norm()(layers.ReLU()(x)), 1),
    "constant": (lambda x: keras.ops.concatenate([x, np.ones((1, 8, 8, 2), "float32")], -1), 0),
    "also read": (lambda x: layers.Add()([norm()(x), x]), 1),
    # These are folded.
    "last axis": (norm(axis=3), 0),
    "by name": (lambda x: layers.ReLU()(inputs=norm()(inputs=x)), 0),
    "inference": (norm(training=False), 0),
    "frozen": (norm(trainable=False), 0),
    "without scale": (norm(scale=False), 0),
    "without center": (norm(center=False), 0),
    "without both": (lambda x: layers.ReLU(0.5)(norm(scale=False, center=False)(x)), 0),
}


@pytest.mark.parametrize("after", FOLLOWERS)
def test_what_follows_a_periodic_layer(after):
    function, left = FOLLOWERS[after]
    inputs = keras.Input((8, 8, 16))
    x = function(PeriodicConv2D(16, 3, "PS2_P6", padding="same")(inputs=inputs))
    model = randomize(keras.Model(inputs, x))
    lowered = lower(model)
    assert_same(lowered, model)
    found = [layer for layer in lowered.layers if isinstance(layer, layers.BatchNormalization)]
    assert len(found) == left
    assert not any(isinstance(layer, PeriodicConv2D) for layer in lowered.layers)


@pytest.mark.parametrize("periodic", ["subclass", "twice", "output", "own activation", "PReLU"])
def test_what_a_norm_follows(periodic):
    inputs = keras.Input((8, 8, 16))
    activation = {"own activation": "relu", "PReLU": layers.PReLU()}.get(periodic)
    kind = OwnPeriodic if periodic == "subclass" else PeriodicConv2D
    layer = kind(16, 3, "PS2_P6", padding="same", activation=activation)
    x = layer(layer(inputs)) if periodic == "twice" else layer(inputs)
    outputs = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(inputs, [outputs, x] if periodic == "output" else outputs)
    if periodic == "PReLU":
        model(np.zeros((1, 8, 8, 16), "float32"))  # Keras builds it at the first call
    lowered = lower(randomize(model))
    assert_same(lowered, model)
    assert any(isinstance(each, layers.BatchNormalization) for each in lowered.layers)
    left = any(isinstance(each, PeriodicConv2D) for each in leaf_layers(lowered))
    assert left == (periodic == "subclass")


def vector(*after):
    inputs = keras.Input((4, 4, 3))
    x = layers.Flatten()(inputs)
    for layer in after:
        x = layer(x)
    return keras.Model(inputs, x)


def shared(first):
    """A Dense layer of vectors and of pixels, called in either order."""
    dense = layers.Dense(3)
    inputs = keras.Input((4, 4, 3))
    pool = layers.GlobalAveragePooling2D()
    x = [dense(pool(inputs)), dense(inputs)] if first else [dense(inputs), dense(pool(inputs))]
    return keras.Model(inputs, [keras.ops.tanh(each) for each in x])


def with_lora():
    model = vector(layers.Dense(6, name="dense"), layers.Dense(2))
    model.get_layer("dense").enable_lora(2)
    return model


DENSE = {
    "subclass": (lambda: vector(OwnDense(5)), 1),
    "activation that is a layer": (lambda: vector(layers.Dense(5, layers.PReLU())), 1),
    "vectors and pixels": (lambda: shared(True), 1),
    "pixels and vectors": (lambda: shared(False), 1),
    "inside another layer": (lambda: vector(layers.RepeatVector(2), layers.Dense(3)), 1),
    "flag": (lambda: vector(lambda x: layers.Dense(5)(x, training=True)), 1),
    "LoRA": (with_lora, 1),
    # These are replaced.
    "twice": (lambda: vector(layers.Dense(48, "softmax", name="d"), twice(layers.Dense(48))), 0),
    "by name": (lambda: vector(lambda x: layers.Dense(5)(inputs=x)), 0),
    "without bias": (lambda: vector(layers.Dense(5, use_bias=False)), 0),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_layers(name):
    make, left = DENSE[name]
    model = make()
    model(np.zeros((1, *model.inputs[0].shape[1:]), "float32"))
    copy = as_convolutions(randomize(model))
    assert_same(copy, model)
    assert len([kind for kind in kinds(copy) if kind.endswith("Dense")]) == left
