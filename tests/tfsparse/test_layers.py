"""PeriodicConv2D against keras.layers.Conv2D with the equivalent dense kernel."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import UsageError
from tfsparse._tfmot import PrunableLayer
from tfsparse.layers import PeriodicConv2D
from tfsparse.patterns import parse


def outputs_and_gradients(layer, inputs, kernel):
    """Returns the layer's output and the gradients of a random projection of it."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        projection = tf.random.stateless_normal(outputs.shape, [1, 2])
        loss = tf.reduce_sum(outputs * projection)
    return outputs, *tape.gradient(loss, [inputs, kernel.value, layer.bias.value])


def twins(channels, size, **arguments):
    """Returns a periodic layer and the stock layer with its weights, and inputs."""
    inputs = tf.random.stateless_normal((2, *size, channels), [3, 4])
    layer = PeriodicConv2D(bias_initializer="random_normal", **arguments)
    layer(inputs)
    del arguments["pattern"]
    stock = keras.layers.Conv2D(**arguments)
    stock(inputs)
    stock.set_weights([to_numpy(layer.dense_kernel()), to_numpy(layer.bias)])
    return layer, stock, inputs


# 128 and 140 channels run as small convolutions over shifted slices, 12 with the dense kernel.
@pytest.mark.parametrize("pattern", ["PS4_P4", "PSD2_P4", "PS1_P3", "PS2_P4_F1", "PSD4_P3_F2"])
@pytest.mark.parametrize("channels", [12, 128, 140])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("kernel_size", "strides", "size"),
    [(3, 1, (7, 9)), (3, 2, (8, 7)), ((2, 5), (1, 2), (9, 9)), (5, 3, (11, 12))],
)
def test_equals_the_stock_layer(pattern, channels, padding, kernel_size, strides, size):
    layer, stock, inputs = twins(
        channels,
        size,
        filters=10,
        kernel_size=kernel_size,
        pattern=pattern,
        strides=strides,
        padding=padding,
        activation="tanh",
    )
    actual = outputs_and_gradients(layer, inputs, layer.kernel)
    expected = list(outputs_and_gradients(stock, inputs, stock.kernel))
    expected[2] = tf.gather(tf.reshape(expected[2], [-1]), layer.kernel_positions)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [8, 128])
def test_dense_kernel_is_zero_exactly_where_the_pattern_has_no_taps(channels):
    layer = PeriodicConv2D(24, 3, "PSD1_P4")
    layer.build((None, 8, 8, channels))
    mask = parse("PSD1_P4").mask((3, 3), channels, 24)
    np.testing.assert_array_equal(to_numpy(layer.dense_kernel()) != 0, mask)
    assert layer.count_params() == mask.sum() + 24
    np.testing.assert_array_equal(np.bincount(layer.kernel_channels), mask.sum(axis=(0, 1, 3)))


def test_runs_on_images_of_unknown_size():
    inputs = keras.Input((None, None, 64))
    model = keras.Model(inputs, PeriodicConv2D(8, 3, "PS4_P4", padding="same")(inputs))
    for size in (5, 9):
        assert model(np.ones((1, size, size, 64), "float32")).shape == (1, size, size, 8)


def test_initialiser_counts_kept_taps():
    layer = PeriodicConv2D(256, 3, "PS1_P4", kernel_initializer="he_normal")
    layer.build((None, 8, 8, 256))
    # he_normal: variance 2 / fan-in, with a fan-in of 256 kept taps instead of 9 * 256.
    assert np.std(to_numpy(layer.kernel)) == pytest.approx(np.sqrt(2 / 256), rel=0.02)
    plain = PeriodicConv2D(8, 3, "PS1_P4", kernel_initializer=keras.initializers.Constant(0.5))
    plain.build((None, 8, 8, 64))
    np.testing.assert_array_equal(to_numpy(plain.kernel), 0.5)


def test_config_and_file_round_trip(tmp_path):
    inputs = keras.Input((6, 6, 64))
    layer = PeriodicConv2D(
        8, (3, 2), "PS2_P6_F2", 2, "same", "relu", kernel_regularizer=keras.regularizers.L2(0.1)
    )
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].get_config() == layer.get_config()
    x = np.random.default_rng(0).random((2, 6, 6, 64), "float32")
    np.testing.assert_array_equal(model(x), loaded(x))
    np.testing.assert_allclose(
        model.losses[0], 0.1 * np.sum(np.square(to_numpy(layer.kernel))), rtol=1e-5
    )


def test_is_prunable_for_tfmot():
    layer = PeriodicConv2D(8)
    layer.build((None, 4, 4, 4))
    assert isinstance(layer, PrunableLayer)
    assert layer.get_prunable_weights() == [layer.kernel]


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"pattern": "PS5P4"}, "PS5P4"),
        ({"kernel_size": 1}, "kernel of 1x1"),
        ({"kernel_size": 0}, "0"),
        ({"strides": (1, 2, 3)}, "(1, 2, 3)"),
        ({"padding": "causal"}, "causal"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, received):
    with pytest.raises(UsageError) as error:
        PeriodicConv2D(8, **arguments)
    assert received in str(error.value)
