"""Costs against arithmetic by hand, against what ones add up to, and against encoded kernels."""

import keras
import numpy as np
import pytest

from tfsparse import UsageError, energy, storage
from tfsparse.cost import model_cost
from tfsparse.layers import PeriodicConv2D
from tfsparse.summaries import summary

LAYERS = keras.layers


def test_costs_by_hand():
    x = inputs = keras.Input((8, 10, 3))
    x = keras.layers.Conv2D(16, 3, 2, "same", name="conv")(x)  # 4 x 5 positions
    x = PeriodicConv2D(8, 3, "PS4_P4", padding="same", use_bias=False, name="periodic")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)  # 2 x 3 positions
    x = keras.layers.Conv2D(4, 1, groups=2, use_bias=False, name="grouped")(x)
    inner = keras.Sequential([keras.Input((2, 3, 4)), keras.layers.Flatten(name="f")])
    x = keras.layers.Dense(5, name="dense")(inner(x))
    model = keras.Model(inputs, x)
    kernel = model.get_layer("conv").kernel
    kernel.assign(kernel * (np.arange(27 * 16).reshape(3, 3, 3, 16) % 4 == 0))
    cost = model_cost(model)
    found = {
        layer.name: (layer.parameters, layer.nonzeros, layer.macs, layer.nonzero_macs)
        for layer in cost.layers
    }
    assert found == {
        "conv": (432, 108, 20 * 432, 20 * 108),
        "periodic": (16 * 8 * 4, 512, 20 * 512, 20 * 512),
        "depthwise": (9 * 8, 72, 6 * 72, 6 * 72),
        "grouped": (4 * 4, 16, 6 * 16, 6 * 16),
        "dense": (24 * 5, 120, 120, 120),
    }
    assert cost.parameters == model.count_params() == 432 + 16 + 512 + 72 + 16 + 120 + 5
    assert cost.nonzeros == cost.parameters - 324
    assert cost.conv_parameters == 432 + 512 + 72 + 16
    assert cost.macs == sum(layer.macs for layer in cost.layers)
    assert cost.macs - cost.nonzero_macs == 20 * 324


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS.Conv2D(6, (3, 2), (2, 1), use_bias=False),
        LAYERS.Conv2D(6, 3, dilation_rate=2, use_bias=False),
        LAYERS.Conv2D(8, 1, groups=4, use_bias=False),
        LAYERS.DepthwiseConv2D(3, 2, depth_multiplier=3, use_bias=False),
        LAYERS.Conv2DTranspose(5, 3, 2, use_bias=False),
        LAYERS.Conv2DTranspose(5, (2, 3), (3, 1), use_bias=False),
        LAYERS.Dense(7, use_bias=False),
        PeriodicConv2D(8, 3, "PSD2_P4", use_bias=False),
        PeriodicConv2D(8, 3, "pSC2", use_bias=False),
    ],
    ids=lambda layer: layer.name,
)
def test_macs_are_what_ones_add_up_to(layer):
    """Without padding, each multiply-accumulate of ones by ones adds 1 to the sum of outputs."""
    inputs = keras.Input((9, 11, 4))
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.ones(weight.shape) for weight in layer.weights])
    cost = model_cost(model)
    assert cost.macs == cost.nonzero_macs == np.sum(model(np.ones((1, 9, 11, 4), "float32")))
    assert cost.layers[0].output_shape == model.output_shape[1:]
    assert cost.layers[0].kind == type(layer).__name__
    assert cost.conv_macs == (0 if isinstance(layer, LAYERS.Dense) else cost.macs)


def test_a_layer_called_twice_has_its_weights_once_and_its_macs_twice():
    shared = LAYERS.Conv2D(4, 3, use_bias=False, kernel_initializer="ones", name="shared")
    # Inside, the size of the images is unknown; the two calls have 10x10 and 5x5.
    nested = keras.Sequential([keras.Input((None, None, 4)), shared])
    inputs = keras.Input((10, 10, 4))
    small = LAYERS.AveragePooling2D(2)(inputs)
    outputs = [nested(inputs), nested(small), shared(small)]
    model = keras.Model(inputs, outputs)
    cost = model_cost(model)
    (layer,) = cost.layers
    assert cost.parameters == layer.parameters == 9 * 4 * 4
    assert (layer.calls, layer.macs) == (3, (64 + 9 + 9) * 144)
    assert layer.macs == sum(np.sum(y) for y in model(np.ones((1, 10, 10, 4), "float32")))
    assert layer.inputs + layer.outputs == 4 * (100 + 25 + 25 + 64 + 9 + 9)
    assert cost.dram_traffic() == (3 * 144 * 32, 32 * (layer.inputs + layer.outputs))


def encoded_bits(matrix, bits):
    """Returns the sizes of `matrix` in CSR and with a bitmap, written out bit by bit."""
    rows, columns = np.nonzero(matrix)

    def index(values, largest):
        return "".join(format(value, f"0{len(format(largest, 'b'))}b") for value in values)

    weights = "w" * bits * len(rows)
    pointers = np.searchsorted(rows, np.arange(len(matrix) + 1))
    csr = weights + index(columns, matrix.shape[1] - 1) + index(pointers, len(rows))
    return len(csr), len(weights + "".join("01"[bit] for bit in (matrix != 0).ravel().astype(int)))


@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
@pytest.mark.parametrize(
    ("layer", "channels_last"),
    [
        (LAYERS.Conv2D(6, 3, groups=2, use_bias=False), True),
        (LAYERS.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), True),
        (LAYERS.Conv2DTranspose(5, 3, use_bias=False), False),
        (LAYERS.Dense(7, use_bias=False), True),
    ],
    ids=["grouped", "depthwise", "transposed", "dense"],
)
def test_storage_is_the_size_of_the_encoded_kernel(layer, channels_last, density):
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, layer(inputs))
    kernel = np.random.default_rng(0).random(layer.kernel.shape)
    kernel *= np.random.default_rng(1).random(kernel.shape) < density
    layer.kernel.assign(kernel)
    if isinstance(layer, LAYERS.DepthwiseConv2D):
        matrix = kernel.reshape(9, -1).T
    else:
        matrix = np.moveaxis(kernel, -1 if channels_last else 2, 0)
        matrix = matrix.reshape(len(matrix), -1)
    found = model_cost(model).storage(8)
    assert found == {
        "dense": 8 * kernel.size,
        **dict(zip(("csr", "bitmap"), encoded_bits(matrix, 8), strict=True)),
        "periodic": None,
    }
    assert model_cost(model).dram_traffic(8).weights == min(filter(None, found.values()))


def test_index_of_a_wide_periodic_layer():
    """512 x 512 kernels of 3x3 taps, PSD4_P8, at 32 bits."""
    inputs = keras.Input((4, 4, 512))
    layer = PeriodicConv2D(512, 3, "PSD4_P8", use_bias=False, kernel_initializer="ones")
    cost = model_cost(keras.Model(inputs, layer(inputs)))
    kept = 512 * 512 * (9 + 7 * 4) // 8
    sizes = cost.storage(32)
    assert cost.nonzeros == kept
    assert 32 * kept / 1e6 == pytest.approx(38.8, abs=0.05)
    assert (sizes["csr"] - 32 * kept) / 1e6 == pytest.approx(15.8, abs=0.05)
    assert sizes["periodic"] - 32 * kept == 72
    assert sizes["bitmap"] - 32 * kept == 512 * 512 * 9
    assert cost.dram_traffic(32) == (sizes["periodic"], 32 * 512 * (16 + 4))


def test_periodic_storage_keeps_zeros_and_random_patterns_have_none():
    inputs = keras.Input((8, 8, 8))
    x = PeriodicConv2D(8, 3, "pSC4", use_bias=False, kernel_initializer="ones")(inputs)
    random = model_cost(keras.Model(inputs, x))
    assert random.storage()["periodic"] is None
    x = PeriodicConv2D(8, 3, "PS4_P4", use_bias=False, kernel_initializer="zeros")(x)
    cost = model_cost(keras.Model(inputs, x))
    assert cost.layers[1].storage(16)["periodic"] == 64 * 4 * 16 + 4 * 9
    assert cost.layers[1].storage(16)["bitmap"] == 64 * 9
    # In the total, the random layer is dense.
    assert cost.storage(16)["periodic"] == 64 * 9 * 16 + 64 * 4 * 16 + 4 * 9


def small_model():
    inputs = keras.Input((6, 6, 4))
    x = PeriodicConv2D(8, 3, "PS1_P4", kernel_initializer="ones", name="periodic")(inputs)
    x = LAYERS.BatchNormalization()(x)
    x = LAYERS.Conv2D(2, 1, use_bias=False, kernel_initializer="ones", name="conv")(x)
    return inputs, x


def test_summary_says_what_was_counted():
    lines = []
    model = keras.Model(*small_model())
    assert summary(model, print_fn=lines.append) == model_cost(model)
    header, *rows = [line.split() for line in lines[: lines.index("")]]
    assert header[:5] == ["layer", "kernel", "parameters", "non-zeros", "MACs"]
    # 288 and 16 weights of 32 bits; the periodic form also has the table of its pattern.
    assert rows == [
        ["periodic", "3x3x4x8", "32", "32", "512", "1.2", "periodic", "0.1", "0.0"],
        ["conv", "1x1x8x2", "16", "16", "256", "0.1", "dense", "0.1", "0.0"],
        ["total", "48", "48", "768", "1.2", "0.2", "0.0"],
    ]
    assert max(map(len, lines)) <= 100
    text = " ".join(lines)
    assert "included: 88" in text  # 8 biases and 4 x 8 of BatchNorm
    # (32 * 32 + 36 + 16 * 32) / 32 rounded up, and 6*6*4 + 4*4*8 + 4*4*8 + 4*4*2 numbers
    assert "482 words" in text
    assert "(49 weights, 432 activations)" in text
    # 768 * (4.6 + 10) and 482 * 640 pJ
    assert "0.320 µJ = arithmetic 0.004 µJ + cache 0.008 µJ + DRAM 0.308 µJ" in text
    assert "Not in the table" not in text


def test_what_is_not_counted_is_named():
    inputs, x = small_model()
    model = keras.Model(inputs, LAYERS.SeparableConv2D(3, 3, name="separable")(x))
    lines = []
    summary(model, print_fn=lines.append)
    assert model_cost(model).uncounted == ["separable"]
    assert lines[-1].endswith(": separable")


class Block(LAYERS.Layer):
    """A layer of one's own, with a matrix of its own and layers inside."""

    def __init__(self, shared, **arguments):
        super().__init__(**arguments)
        self.shared = shared
        self.conv = LAYERS.Conv2D(2, 3, padding="same", name="inner")
        self.norm = LAYERS.BatchNormalization()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(shape)
        self.matrix = self.add_weight(shape=(2, 2), name="matrix")

    def call(self, inputs):
        return self.norm(self.conv(self.shared(inputs))) @ self.matrix


def test_layers_inside_layers_are_named_but_those_that_are_counted_elsewhere():
    inputs, x = small_model()
    shared = LAYERS.Conv2D(2, 1, name="shared")
    x = Block(shared, name="block")(shared(x))
    x = LAYERS.Reshape((1, 4, 4, 2))(x)
    x = LAYERS.TimeDistributed(LAYERS.Conv2D(3, 1, name="timed"), name="wrapper")(x)
    cost = model_cost(keras.Model(inputs, x))
    assert [layer.name for layer in cost.layers] == ["periodic", "conv", "shared"]
    assert cost.uncounted == ["block", "block/inner", "wrapper/timed"]


def test_energy_by_hand():
    assert energy.estimate(1000, 10) == pytest.approx((4600, 10000, 6400))
    assert energy.estimate(1000, 10, 16) == pytest.approx((1500, 5000, 6400))
    assert energy.estimate(1000, 10, 8) == pytest.approx((300, 2500, 6400))
    assert energy.estimate(1000, 10).total == pytest.approx(21000)


def test_smallest_sizes():
    assert storage.csr(1, 1, 0, 32) == 0
    assert storage.csr(1, 1, 1, 32) == 32 + 2
    assert storage.bitmap(1, 1, 0, 32) == 1


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.conv = LAYERS.Conv2D(2, 1)

    def call(self, x):
        return self.conv(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


def nested_subclassed():
    inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, Subclassed()(inputs))


@pytest.mark.parametrize(
    ("make", "bits", "received"),
    [
        (Subclassed, 32, "Received: subclassed, a Subclassed"),
        (nested_subclassed, 32, "Received: subclassed, a Subclassed"),
        (lambda: keras.Sequential([LAYERS.Conv2D(2, 1)], name="open"), 32, "Received: open"),
        (
            lambda: keras.Sequential([keras.Input((None, 8, 3)), LAYERS.Conv2D(2, 1, name="c")]),
            32,
            "Received: layer c with a shape of (None, 8, 3)",
        ),
        (lambda: keras.Model(*small_model()), 7, "Received: 7"),
    ],
)
def test_what_cannot_be_counted_is_said(make, bits, received):
    with pytest.raises(UsageError) as error:
        summary(make(), bits)
    assert received in str(error.value)
