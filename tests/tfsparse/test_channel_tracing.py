"""Which channels stay: in sums, shared layers and nested models, and in tensors nothing reads."""

import keras
import numpy as np
from keras import layers

from tests.tfsparse.networks import (
    assert_equal_outputs,
    assert_is_smaller_form,
    channels,
    conv,
    filters_of,
    outputs,
    randomize,
    silence,
)
from tfsparse.graph import leaf_layers
from tfsparse.pruning import remove_channels


def residual():
    """stem -> + -> + -> head, with two convolutions in each of the branches."""
    inputs = keras.Input((6, 6, 3))
    x = conv(6, "stem")(inputs)
    for name in ("a", "b"):
        y = layers.ReLU()(layers.BatchNormalization(name=f"norm_{name}")(x))
        y = conv(4, f"in_{name}", activation="relu")(y)
        x = layers.Add(name=f"add_{name}")([x, conv(6, f"out_{name}")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def test_an_addition_keeps_what_any_of_its_readers_reads():
    model = residual()
    silence(model.get_layer("in_a"), 0, 1, 2, 3)
    silence(model.get_layer("in_b"), 0, 1, 2, 4)
    silence(model.get_layer("head"), 0, 2, 3, 4)
    silence(model.get_layer("out_a"), 1)
    silence(model.get_layer("out_b"), 0, 1, 2)
    small = remove_channels(model)
    # 0 and 2 are read by nobody, 1 by the head, 3 by in_b, 4 by in_a, 5 by all.
    for name in ("stem", "out_a", "out_b"):
        assert filters_of(small.get_layer(name), model) == [1, 3, 4, 5]
    assert filters_of(small.get_layer("in_a"), model) == [0, 2, 3]
    assert filters_of(small.get_layer("in_b"), model) == [3]
    assert small.get_layer("in_a").kernel.shape == (3, 3, 4, 3)
    assert small.get_layer("head").kernel.shape == (4, 3)
    assert channels(small, "norm_a", "add_a", "norm_b", "add_b") == [4, 4, 4, 4]
    assert_equal_outputs(small, model)


def test_shared_layers_and_nested_models():
    shared = conv(6, "shared", activation="relu")
    norm = layers.BatchNormalization(name="norm")
    nested_inputs = keras.Input((None, None, 6), name="nested_inputs")
    nested = keras.Model(nested_inputs, norm(conv(6, "inner")(nested_inputs)), name="nested")
    block = keras.Sequential([keras.Input((5, 5, 6)), conv(6, "deep"), layers.ReLU()], name="block")
    inputs = keras.Input((5, 5, 3))
    x = shared(conv(6, "stem")(inputs))
    x = block(nested(x, training=False))
    x = norm(shared(x))
    x = layers.Flatten()(conv(4, "last")(nested(x)))
    model = randomize(keras.Model(inputs, layers.Dense(2, name="scores")(x)))
    assert_equal_outputs(remove_channels(model), model)
    # `norm` and `nested` are called twice, so what they, `inner` and `shared` put out is one group,
    # read by inner, deep and last. The stem and deep are another, read by shared.
    silence(shared, 2, 5)
    silence(nested.get_layer("inner"), 2, 5)
    silence(block.get_layer("deep"), 3, 5)
    silence(model.get_layer("last"), 2, 5)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    found = {layer.name: layer for layer in leaf_layers(small)}
    sizes = {"stem": (3, 4), "shared": (4, 5), "inner": (5, 5), "deep": (5, 4), "last": (5, 4)}
    assert sizes == {name: found[name].kernel.shape[2:] for name in sizes}
    assert small.get_layer("nested").get_layer("norm") is small.get_layer("norm")


def test_each_tensor_keeps_a_channel_that_computes_what_it_did():
    inputs = keras.Input((5, 5, 3))
    x = conv(4, "stem")(inputs)
    dead = conv(3, "dead_2", activation="relu")(conv(5, "dead_1", activation="exponential")(x))
    joined = layers.Concatenate(name="joined")([dead, conv(4, "alive")(x)])
    model = randomize(keras.Model(inputs, layers.Dense(2, name="scores")(joined)))
    silence(model.get_layer("scores"), 0, 1, 2)
    silence(model.get_layer("dead_2"), 1, 2, 3, 4)
    small = remove_channels(model)
    assert channels(small, "dead_1", "dead_2", "joined") == [1, 1, 5]
    assert_equal_outputs(small, model)
    before = keras.Model(model.input, dead)
    after = keras.Model(small.input, small.get_layer("dead_2").output)
    np.testing.assert_allclose(outputs(after)[0][..., 0], outputs(before)[0][..., 0], atol=1e-5)
