"""The rules of single layers: those that channels are followed through, and all others."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.tfsparse.networks import (
    assert_equal_outputs,
    assert_is_smaller_form,
    channels,
    conv,
    everything,
    filters_of,
    prune,
    randomize,
    silence,
)
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import remove_channels


def test_layers_that_channels_are_followed_through():
    model = randomize(everything())
    # In `both`, left's channel k is 2k and 2k + 1, right's is 16 + k; part_b starts at 12.
    silence(model.get_layer("part_a"), 0, 1, 2, 4, 5, 9)  # left's 0 and 2, halves of its 1 and 4
    silence(model.get_layer("part_b"), 0, 1, 2, 4, 5, 6)  # left's 6, a half of 7; right's 0, 1, 2
    silence(model.get_layer("map"), 0, 1, 3, 5)
    positions = model.get_layer("hidden").kernel.shape[0] // 6
    silence(model.get_layer("hidden"), *(6 * p + c for p in range(positions) for c in (0, 1, 2)))
    silence(model.get_layer("scores"), 4)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    # The product's 0 and 1 are read by neither hidden nor map. Its 2 is, so right's 2 stays.
    for name in ("part_a", "part_b", "right"):
        assert filters_of(small.get_layer(name), model) == [2, 3, 4, 5]
    assert filters_of(small.get_layer("left"), model) == [1, 3, 4, 5, 7]
    assert channels(small, "depthwise", "both", "norm", "product", "stacked") == [10, 14, 14, 4, 4]
    assert filters_of(small.get_layer("hidden"), model) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("parts", "axis", "silent", "sizes"),
    [
        (2, -1, (0, 5), [3, 3]),
        (2, 3, (0, 1), [2, 4]),
        ([3, 4], -1, (1, 2, 4, 5), [1, 1, 2]),
        ([3, 4], -1, (3,), [3, 1, 4]),  # a tensor keeps a channel
        (4, -1, (0, 2, 4, 6), [1, 1, 1, 1]),
        (2, 1, (2, 3), [8, 8]),  # of rows: not followed
    ],
)
def test_splits(parts, axis, silent, sizes):
    inputs = keras.Input((6, 6, 3))
    split = keras.ops.split(conv(8, "before")(inputs), parts, axis=axis)
    convs = [conv(2, f"part_{index}")(part) for index, part in enumerate(split)]
    joined = [layers.GlobalAveragePooling2D()(x) for x in convs]
    model = randomize(keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(joined))))
    first = 0
    for index, part in enumerate(split):
        inside = range(part.shape[-1])
        number = [first + c if axis != 1 else c for c in inside]
        silence(model.get_layer(f"part_{index}"), *(c for c in inside if number[c] in silent))
        first += part.shape[-1]
    small = remove_channels(model)
    kernels = [small.get_layer(f"part_{index}").kernel for index in range(len(split))]
    assert [kernel.shape[2] for kernel in kernels] == sizes
    assert_equal_outputs(small, model)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: layers.LayerNormalization()(x),
        lambda x: layers.Lambda(lambda x: x - keras.ops.mean(x, -1, keepdims=True))(x),
        lambda x: layers.Softmax()(x),
        lambda x: layers.Activation("softmax")(x),
        lambda x: conv(6, "mixing", activation="softmax")(x),
        lambda x: layers.DepthwiseConv2D(3, activation="softmax")(x),
        lambda x: conv(6, "grouped", groups=3)(x),
        lambda x: layers.Conv2DTranspose(6, 3, padding="same")(x),
        lambda x: layers.SeparableConv2D(6, 3, padding="same")(x),
        lambda x: layers.Permute((2, 1, 3))(x),
        lambda x: layers.Reshape((3, 12, 6))(x),
        lambda x: layers.BatchNormalization(axis=1)(x),
        lambda x: layers.PReLU()(x),
        lambda x: layers.Flatten(data_format="channels_first")(x),
        lambda x: layers.GlobalAveragePooling2D(data_format="channels_first")(x),
        lambda x: layers.Dropout(0.1, noise_shape=(None, 1, 1, 6))(x),
        lambda x: x[..., ::-1],
        lambda x: x[:, 1],
        lambda x: keras.ops.stack([x[..., 0], x[..., 2], x[..., 5]], axis=-1),
        lambda x: x * np.arange(6, dtype="float32"),
        lambda x: x * keras.ops.max(x, axis=-1, keepdims=True),
        lambda x: keras.ops.flip(x, axis=-1),
        lambda x: keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
    ],
)
def test_other_layers_keep_their_tensors_whole(between):
    inputs = keras.Input((6, 6, 3))
    x = conv(6, "first")(inputs)
    x = conv(6, "before")(x)
    x = between(x)
    after = layers.Dense(7, name="after")(x)
    model = keras.Model(inputs, layers.Dense(3, name="last")(after))
    randomize(model)
    silence(model.get_layer("before"), 1, 2)
    silence(model.get_layer("after"), 0, 1)
    silence(model.get_layer("last"), 3)
    small = remove_channels(model)
    assert channels(small, "first", "before", "after") == [4, 6, 6]
    assert_equal_outputs(small, model)


def random_model(rng):
    """A random network of up to a dozen layers over tensors of one height and width."""
    inputs = keras.Input((5, 5, 3))
    tensors = [inputs, layers.Conv2D(int(rng.integers(3, 7)), 1)(inputs)]
    shared = []

    def pick():
        return tensors[-1 - int(rng.integers(min(3, len(tensors))))]

    def like(x):
        """A tensor with the channels of `x`: one that exists or the output of a convolution."""
        found = [y for y in tensors if y.shape == x.shape and y is not x]
        return found[int(rng.integers(len(found)))] if found else new_conv(pick(), x.shape[-1])

    def new_conv(x, filters=None):
        kind = PeriodicConv2D if rng.random() < 0.3 else layers.Conv2D
        activation = ["relu", "tanh", None][int(rng.integers(3))]
        filters = filters or int(rng.integers(3, 9))
        shared.append(kind(filters, 3, padding="same", activation=activation))
        return shared[-1](x)

    def again(x):
        found = [y for y in shared if y.input_spec.axes[-1] == x.shape[-1]]
        return found[int(rng.integers(len(found)))](x) if found else new_conv(x)

    steps = [
        new_conv,
        new_conv,
        again,
        lambda x: layers.BatchNormalization()(x),
        lambda x: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
        lambda x: layers.Add()([x, like(x)]),
        lambda x: x * like(x) + 0.5,
        lambda x: layers.Concatenate()([x, pick()]),
        lambda x: keras.ops.concatenate([x[..., 1:], pick()[..., :2]], axis=-1),
        lambda x: layers.ReLU()(layers.MaxPooling2D(3, 1, "same")(x)),
        lambda x: layers.LayerNormalization()(x),
        lambda x: layers.Reshape(x.shape[1:])(layers.Permute((2, 1, 3))(x)),
    ]
    for _ in range(int(rng.integers(4, 11))):
        tensors.append(steps[int(rng.integers(len(steps)))](pick()))
    head = layers.Flatten() if rng.random() < 0.5 else layers.GlobalAveragePooling2D()
    outputs = [layers.Dense(3)(head(new_conv(x))) for x in tensors[-2:]]
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed):
    rng = np.random.default_rng(seed)
    model = prune(randomize(random_model(rng), seed), float(rng.uniform(0.2, 0.7)), seed)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert small.count_params() <= model.count_params()
    assert_equal_outputs(small, model)
    if not any(isinstance(layer, PeriodicConv2D) for layer in small.layers):
        assert remove_channels(small).count_params() == small.count_params()
