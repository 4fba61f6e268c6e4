"""What remove_channels prints: for each layer, why channels without weights stay."""

import keras
import numpy as np
from keras import layers

from tests.tfsparse.networks import conv, randomize, silence
from tests.tfsparse.test_channel_removal import periodic_chain
from tfsparse.pruning import DNRSchedule, Pruner, remove_channels


def report(model):
    lines = []
    remove_channels(model, print_fn=lines.append)
    return lines


def test_nothing_is_printed_when_all_that_was_pruned_goes():
    inputs = keras.Input((6, 6, 3))
    x = conv(4, "second")(conv(6, "first")(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(2, name="scores")(x)))
    silence(model.get_layer("second"), 0, 3)
    silence(model.get_layer("scores"), 1)
    assert report(model) == []
    assert remove_channels(model).get_layer("first").filters == 4


def test_each_reason():
    inputs = keras.Input((6, 6, 3))
    stem = conv(6, "stem")(inputs)
    branch = conv(6, "branch")(stem)
    total = layers.Add(name="total")([stem, branch])
    left, right = conv(6, "left")(total), conv(4, "right", activation="softmax")(total)
    custom = layers.LayerNormalization(name="custom")(left)
    after = conv(5, "after")(custom)
    grouped = conv(6, "grouped", groups=3)(layers.Concatenate()([after, right[..., :1]]))
    outputs = [layers.Dense(2, name="scores")(grouped), right]
    model = randomize(keras.Model(inputs, outputs))
    for name, silent in {
        "stem": [0],
        "branch": [1, 2],
        "left": [1, 2, 3],
        "right": [4],
        "after": [0, 5],
        "grouped": [1],
        "scores": [0],
    }.items():
        silence(model.get_layer(name), *silent)
    filters = model.get_layer("branch").kernel
    filters.assign(np.where(np.arange(6) == 3, 0, keras.ops.convert_to_numpy(filters)))
    assert report(model) == [
        "stem: 1 of 3 input channels without weights stay: read as the model's input (1)",
        "branch: 2 of 6 input channels without weights stay: read by right (2)",
        "branch: 1 of 6 filters without weights stay: read by branch (1), by right (1)",
        "left: 3 of 6 input channels without weights stay: read by right (3), by branch (1)",
        "right: 1 of 6 input channels without weights stay: read by branch (1), by left (1)",
        "after: 2 of 6 input channels without weights stay: read by custom "
        "(LayerNormalization), which keeps all (2)",
        "grouped: 1 of 2 input channels without weights stay: it is not followed",
        "scores: 1 of 6 input channels without weights stay: read by grouped (Conv2D), which "
        "keeps all (1)",
    ]


def test_a_periodic_layer_that_would_grow_says_so():
    model = periodic_chain()
    silence(model.get_layer("periodic"), 0, 1)
    silence(model.get_layer("last"), 5)
    assert report(model) == [
        "periodic: 2 of 16 input channels without weights stay: as a Conv2D, it would be no "
        "smaller",
        "last: 1 of 16 input channels without weights stay: read by periodic (PeriodicConv2D), "
        "which keeps all (1)",
    ]


def test_the_last_channel_of_a_tensor():
    inputs = keras.Input((6, 6, 3))
    x = conv(4, "second")(conv(3, "first")(inputs))
    model = randomize(keras.Model(inputs, x))
    silence(model.get_layer("second"), 0, 1, 2)
    assert report(model) == [
        "second: 1 of 3 input channels without weights stay: read by nothing, but a tensor needs "
        "a channel (1)",
        "second: 4 of 4 filters without weights stay: read as the model's output (4)",
    ]


def test_what_goes_and_what_is_reported_is_all_that_was_pruned():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(conv(16, "stem")(inputs))
    for index in range(2):
        y = layers.BatchNormalization()(conv(16, f"a{index}")(x))
        x = layers.Add()([x, conv(16, f"b{index}")(layers.ReLU()(y))])
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    pruner = Pruner(model, DNRSchedule(0.5, end_step=9, frequency=1), structure="channel")
    pruner.detach()
    lines = []
    small = remove_channels(model, print_fn=lines.append)
    stay = {line.split(":")[0]: int(line.split()[1]) for line in lines if "input" in line}
    for name, mask in zip(pruner.layer_names, pruner.masks, strict=True):
        silent = int(np.sum(~keras.ops.convert_to_numpy(mask).any(axis=(0, 1, 3))))
        gone = 16 - small.get_layer(name).kernel.shape[2]
        assert gone + stay.get(name, 0) == silent, name
    assert any(stay.values())
