"""remove_channels: the same outputs as the whole model, and sizes worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

import zoo
from tests.tfsparse.networks import (
    assert_equal_outputs,
    assert_is_smaller_form,
    channels,
    conv,
    everything,
    prune,
    randomize,
    silence,
)
from tfsparse import UsageError
from tfsparse.cost import model_cost
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import DNRSchedule, Pruner, remove_channels

ARCHITECTURES = {"vgg16": 8, "resnet18": 8, "resnet8": 8, "mobilenet_v2": 8, "shufflenet": 48}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_networks_of_the_zoo(arch):
    model = randomize(zoo.build(arch, (16, 16, 3), 10, width=ARCHITECTURES[arch]))
    prune(model, 0.25)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    cost, before = model_cost(small), model_cost(model)
    assert cost.parameters < before.parameters
    assert cost.macs < before.macs


def test_what_the_pruner_zeroes(tmp_path):
    model = randomize(zoo.build("vgg16", (8, 8, 3), 10, width=8))
    schedule = DNRSchedule(0.5, end_step=9, frequency=1)
    pruner = Pruner(model, schedule, structure="channel")
    small = remove_channels(model)
    assert_equal_outputs(small, model)
    # In a chain each convolution keeps the channels that the next one reads; the last one all.
    masks = [to_numpy(mask).any(axis=(0, 1, 3)) for mask in pruner.masks]
    kept = [*(int(mask.sum()) for mask in masks), 64]
    convolutions = [layer for layer in small.layers if isinstance(layer, layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == kept
    pairs = zip([3, *kept[:-1]], kept, strict=True)
    weights = sum(9 * inputs * filters for inputs, filters in pairs)
    assert small.count_params() == weights + 4 * sum(kept) + 64 * 10 + 10
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert loaded.count_params() == small.count_params()
    assert_equal_outputs(loaded, model)


def test_sizes_and_weights_of_three_layers_by_hand():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(5, 3, padding="same", name="second"),
            layers.Flatten(),
            layers.Dense(2, name="scores"),
        ]
    )
    randomize(model)
    first, norm, second, scores = (
        model.get_layer(name) for name in ("first", "norm", "second", "scores")
    )
    silence(second, 1)
    kernel = to_numpy(second.kernel).copy()
    kernel[:, :, 3, 1:] = 0  # only filter 0 reads channel 3
    second.kernel.assign(kernel)
    silence(scores, *range(0, 16 * 5, 5))  # and filter 0 is read at no position
    small = remove_channels(model)
    assert type(small) is keras.Sequential
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    expected = [
        to_numpy(first.kernel)[..., [0, 2]],
        to_numpy(first.bias)[[0, 2]],
        *(weight[[0, 2]] for weight in norm.get_weights()),
        kernel[:, :, [0, 2]][..., 1:],
        to_numpy(second.bias)[1:],
        to_numpy(scores.kernel).reshape(16, 5, 2)[:, 1:].reshape(64, 2),
        to_numpy(scores.bias),
    ]
    assert small.count_params() == (27 * 2 + 2) + 4 * 2 + (9 * 2 * 4 + 4) + (64 * 2 + 2)
    weights = [array for layer in small.layers for array in layer.get_weights()]
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def periodic_chain(width=16):
    """first -> periodic -> last, with a pattern of 4 of 9 taps."""
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(conv(width, "first")(inputs))
    x = PeriodicConv2D(
        width,
        3,
        "PS4_P4",
        2,
        "same",
        activation="relu",
        kernel_regularizer=keras.regularizers.L2(0.1),
        name="periodic",
    )(x)
    x = layers.GlobalAveragePooling2D()(conv(4, "last")(x))
    return randomize(keras.Model(inputs, layers.Dense(2)(x)))


@pytest.mark.parametrize(("read", "written", "converts"), [(10, 10, True), (11, 11, False)])
def test_a_periodic_layer_is_converted_where_that_saves(read, written, converts):
    model = periodic_chain()
    periodic = model.get_layer("periodic")
    assert periodic.count_params() == 4 * 16 * 16 + 16
    silence(periodic, *range(read, 16))
    silence(model.get_layer("last"), *range(written, 16))
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    layer = small.get_layer("periodic")
    if not converts:  # 9 * 11 * 11 > 4 * 16 * 16
        assert type(layer) is PeriodicConv2D
        assert small.count_params() == model.count_params()
        return
    assert type(layer) is layers.Conv2D
    assert layer.count_params() == 9 * read * written + written
    assert channels(small, "first", "periodic") == [read, written]
    assert layer.strides == (2, 2)
    assert layer.activation is keras.activations.relu
    assert layer.kernel_regularizer.l2 == pytest.approx(0.1)


def test_a_periodic_layer_that_loses_nothing_stays_periodic():
    model = periodic_chain()
    silence(model.get_layer("first"), 0)  # an input of the model, which stays
    silence(model.get_layer("last"), 0)
    model = keras.Model(
        model.input, [model.output, model.get_layer("periodic").output], name="two_outputs"
    )
    small = remove_channels(model)
    assert type(small.get_layer("periodic")) is PeriodicConv2D
    assert small.get_layer("periodic").count_params() == 4 * 16 * 16 + 16
    assert_equal_outputs(small, model)


def test_arguments_are_kept():
    inputs = keras.Input((7, 7, 3))
    x = layers.Conv2D(
        6,
        (3, 5),
        strides=(2, 1),
        dilation_rate=1,
        activation="elu",
        use_bias=False,
        kernel_regularizer=keras.regularizers.L1(0.1),
        kernel_constraint=keras.constraints.MaxNorm(9),
        dtype=keras.DTypePolicy("mixed_bfloat16"),
        trainable=False,
        name="first",
    )(inputs)
    x = layers.BatchNormalization(momentum=0.7, epsilon=0.01, scale=False, name="norm")(x)
    model = keras.Model(inputs, conv(2, "last", kernel_initializer="he_normal")(x))
    randomize(model)
    model.get_layer("norm").trainable = False
    silence(model.get_layer("last"), 0, 3)
    small = remove_channels(model)
    for layer, new in zip(model.layers, small.layers, strict=True):
        config = layer.get_config()
        if layer.name == "first":
            assert config.pop("filters") == 6
            assert new.filters == 4
        assert {key: new.get_config()[key] for key in config} == config
        assert [v.trainable for v in new.variables] == [v.trainable for v in layer.variables]
        assert [v.dtype for v in new.variables] == [v.dtype for v in layer.variables]


def test_an_equal_copy_where_nothing_can_go():
    model = randomize(zoo.build("resnet8", (8, 8, 3), 10, width=4, pattern="PS4_P4"))
    copy = remove_channels(model)
    assert_is_smaller_form(copy, model)
    assert [x.get_config() for x in copy.layers] == [x.get_config() for x in model.layers]
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_original_is_left_as_it_is():
    model = prune(randomize(everything()), 0.4)
    model.compile("sgd", loss=lambda labels, scores: 0.0)
    config, weights = model.get_config(), model.get_weights()
    calls = [len(layer._inbound_nodes) for layer in leaf_layers(model)]
    small = remove_channels(model)
    assert small.count_params() < model.count_params()
    assert not small.compiled
    assert model.compiled
    for variable in small.variables:
        variable.assign(variable + 1)
    assert model.get_config() == config
    assert calls == [len(layer._inbound_nodes) for layer in leaf_layers(model)]
    for after, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(after, before)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(4, 3)

    def call(self, inputs):
        return self.convolution(inputs)


def with_another_rank():
    nested = keras.Sequential([keras.Input((1,)), layers.Dense(2)], name="nested")
    inputs = keras.Input(())
    return keras.Model(inputs, nested(inputs))


def with_unknown_function():
    def own(x):
        return x

    return keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="own", activation=own)]
    )


@pytest.mark.parametrize(
    ("build", "received"),
    [
        (Subclassed, "of class Subclassed"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), Subclassed()]), "of class Subclassed"),
        (lambda: keras.Sequential([layers.Conv2D(4, 3)], name="raw"), "raw is not built"),
        (lambda: layers.Conv2D(4, 3), "of class Conv2D"),
        (lambda: "model.keras", "'model.keras' of class str"),
        (with_unknown_function, "Layer own"),
        (with_another_rank, "Model nested is called with other inputs"),
    ],
)
def test_what_cannot_be_copied_is_named(build, received):
    with pytest.raises(UsageError, match=received) as caught:
        remove_channels(build())
    assert "\n" not in str(caught.value)
