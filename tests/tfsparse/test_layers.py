"""PeriodicConv2D against keras.layers.Conv2D with the equivalent dense kernel."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from tests.without_tensorflow import QUICK_XLA
from tfsparse import UsageError, backend
from tfsparse._tfmot import PrunableLayer
from tfsparse.layers import PeriodicConv2D
from tfsparse.lowering import lower
from tfsparse.patterns import parse


def outputs_and_gradients(layer, inputs, kernel):
    """Returns the layer's output and the gradients of a random projection of it."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        projection = np.random.default_rng(1).normal(size=outputs.shape)
        projection = tf.constant(projection, outputs.dtype)
        loss = tf.reduce_sum(outputs * projection)
    return outputs, *tape.gradient(loss, [inputs, kernel.value, layer.bias.value])


def twins(channels, size, **arguments):
    """Returns a periodic layer and the stock layer with its weights, and inputs."""
    inputs = tf.random.stateless_normal((2, *size, channels), [3, 4])
    layer = PeriodicConv2D(bias_initializer="random_normal", **arguments)
    inputs = tf.cast(inputs, layer.compute_dtype)
    layer(inputs)
    del arguments["pattern"]
    stock = keras.layers.Conv2D(**arguments)
    stock(inputs)
    stock.set_weights([to_numpy(layer.dense_kernel()), to_numpy(layer.bias)])
    return layer, stock, inputs


def random_case(seed):
    """Returns arguments of a layer and the shape of its input, drawn at random."""
    rng = np.random.default_rng(seed)
    kernel_size = rows, columns = rng.integers(1, 8, 2).tolist()
    taps, period = rows * columns, int(rng.integers(1, 10))
    kept, phases = int(rng.integers(1, taps + 1)), int(rng.integers(1, period + 1))
    supports = [
        [divmod(int(tap), columns) for tap in rng.permutation(taps)[: rng.integers(1, kept + 1)]]
        for _ in range(period)
    ]
    pattern = [
        f"PS{kept}_P{period}_F{phases}",
        f"PSD{kept}_P{period + 1}",
        f"PSD{kept}_P{period + phases}_F{phases}",
        f"pSC{kept}_S{seed}",
        {"supports": supports, "filter_phases": phases},
    ][rng.integers(5)]
    channels, filters = rng.integers(1, 30, 2).tolist()
    arguments = {
        "pattern": pattern,
        "filters": filters,
        "kernel_size": kernel_size,
        "strides": rng.integers(1, 4, 2).tolist(),
        "padding": ["same", "valid"][rng.integers(2)],
        "activation": ["linear", "tanh", "sigmoid"][rng.integers(3)],
    }
    size = [taps + int(rng.integers(6)) for taps in kernel_size]
    return arguments, size, channels


def has_small_convolutions(seed):
    arguments, _, channels = random_case(seed)
    pattern = parse(arguments["pattern"])
    return bool(lower(pattern, arguments["kernel_size"], channels, arguments["filters"]))


@pytest.mark.parametrize(
    ("small", "seed"),
    [
        *(pytest.param(False, seed, id=f"dense kernel-{seed}") for seed in range(120)),
        *(
            pytest.param(True, seed, id=f"small convolutions-{seed}")
            for seed in range(120)
            if has_small_convolutions(seed)
        ),
    ],
)
def test_equals_the_stock_layer(small, seed, monkeypatch):
    """Outputs and all gradients, however the layer runs."""
    monkeypatch.setattr(PeriodicConv2D, "runs_dense", lambda self, inputs: not small)
    arguments, size, channels = random_case(seed)
    layer, stock, inputs = twins(channels, size, **arguments)
    actual = outputs_and_gradients(layer, inputs, layer.kernel)
    expected = list(outputs_and_gradients(stock, inputs, stock.kernel))
    expected[2] = tf.gather(tf.reshape(expected[2], [-1]), layer.kernel_positions)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    assert layer.compute_output_shape(inputs.shape) == stock.compute_output_shape(inputs.shape)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, (1, 5), 7])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_all_taps_kept_is_the_stock_layer_exactly(kernel_size, padding):
    taps = np.prod(np.broadcast_to(kernel_size, 2))
    layer, stock, inputs = twins(
        8, (9, 8), filters=6, kernel_size=kernel_size, pattern=f"PS{taps}_P3", padding=padding
    )
    ours = outputs_and_gradients(layer, inputs, layer.kernel)
    theirs = list(outputs_and_gradients(stock, inputs, stock.kernel))
    theirs[2] = tf.gather(tf.reshape(theirs[2], [-1]), layer.kernel_positions)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("pattern", ["PS4_P4_F1", "PSD1_P4_F1", "PS1_P9", "pSC4"])
def test_compiled_by_xla_is_the_same(pattern):
    layer, _, inputs = twins(64, (6, 7), filters=64, kernel_size=3, pattern=pattern, padding="same")
    plain = outputs_and_gradients(layer, inputs, layer.kernel)
    compiled = tf.function(
        lambda x: outputs_and_gradients(layer, x, layer.kernel), jit_compile=True
    )
    for ours, theirs in zip(compiled(inputs), plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("mixed_float16", 2e-2), ("mixed_bfloat16", 1e-1)]
)
@pytest.mark.parametrize("channels", [12, 64])
def test_dtypes(dtype, tolerance, channels):
    layer, stock, inputs = twins(
        channels, (6, 6), filters=channels // 4, kernel_size=3, pattern="PS4_P4_F1", dtype=dtype
    )
    assert layer.runs_dense(inputs) == (channels == 12)
    ours = outputs_and_gradients(layer, inputs, layer.kernel)
    theirs = list(outputs_and_gradients(stock, inputs, stock.kernel))
    theirs[2] = tf.gather(tf.reshape(theirs[2], [-1]), layer.kernel_positions)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(tf.cast(each, tf.float64)) for each in (a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


# What was measured to be faster: without XLA, in docs/layer_speed.md, and with it (--xla).
@pytest.mark.parametrize(
    ("pattern", "channels", "strides", "small", "small_in_xla"),
    [
        ("PS4_P4", 64, 1, True, False),  # (9 - 4) * 64 / 4 saved for each number copied
        ("PS4_P4", 64, 2, False, False),  # a quarter of that
        ("PS4_P4", 128, 1, True, True),
        ("PS1_P9", 64, 1, True, False),
        ("PS1_P9", 256, 1, True, True),
        ("PS1_P9", 256, 2, True, False),
        ("PS4_P4_F1", 64, 1, True, True),
        ("PSD1_P16", 64, 1, False, False),
        ("PSD1_P16", 128, 1, True, False),
        ("PSD1_P16", 256, 1, True, True),
        ("PSD1_P16", 512, 1, True, True),
        ("PS1_P9_F1", 16, 1, True, False),  # slices of 1 channel
        ("PSD1_P16_F1", 32, 1, False, False),  # the whole kernels are over slices of 2 channels
        ("pSC1", 512, 1, False, False),
        ("PS5_P4", 512, 1, False, False),  # 5 taps of 3x3 are no rectangle
        ("PS9_P4", 512, 1, False, False),
    ],
)
def test_rule(pattern, channels, strides, small, small_in_xla):
    layer = PeriodicConv2D(channels, 3, pattern, strides)
    layer.build((None, 8, 8, channels))
    found = []

    def call(inputs):
        found.append(not layer.runs_dense(inputs))

    for xla in (False, True):
        tf.function(call, jit_compile=xla)(tf.zeros((1, 8, 8, channels)))
    assert found == [small, small_in_xla]


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


def test_initializer_counts_kept_taps():
    layer = PeriodicConv2D(256, 3, "PS1_P4", kernel_initializer="he_normal")
    layer.build((None, 8, 8, 256))
    # he_normal: variance 2 / fan-in, with a fan-in of 256 kept taps instead of 9 * 256.
    assert np.std(to_numpy(layer.kernel)) == pytest.approx(np.sqrt(2 / 256), rel=0.02)
    plain = PeriodicConv2D(8, 3, "PS1_P4", kernel_initializer=keras.initializers.Constant(0.5))
    plain.build((None, 8, 8, 64))
    np.testing.assert_array_equal(to_numpy(plain.kernel), 0.5)


@pytest.mark.parametrize(
    "pattern", ["PS2_P6_F2", "pSC2_S5", {"supports": [[[0, 0], [2, 1]], [[1, 1]]]}]
)
def test_config_and_file_round_trip(pattern, tmp_path):
    inputs = keras.Input((6, 6, 64))
    layer = PeriodicConv2D(
        8,
        (3, 2),
        pattern,
        2,
        "same",
        "relu",
        kernel_regularizer=keras.regularizers.L2(0.1),
        kernel_constraint=keras.constraints.MaxNorm(3, axis=[0, 1, 2]),
        bias_constraint="non_neg",
    )
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].get_config() == layer.get_config()
    assert loaded.layers[1].pattern == layer.pattern == parse(pattern)
    x = np.random.default_rng(0).random((2, 6, 6, 64), "float32")
    np.testing.assert_array_equal(model(x), loaded(x))
    np.testing.assert_allclose(
        model.losses[0], 0.1 * np.sum(np.square(to_numpy(layer.kernel))), rtol=1e-5
    )


@pytest.mark.parametrize("constraint", [keras.constraints.MaxNorm(0.5, [0, 1, 2]), "non_neg"])
def test_constraint_and_regularizer_see_the_dense_kernel(constraint):
    """One step of `fit` beside the stock layer."""

    class Largest(keras.regularizers.Regularizer):
        def __call__(self, kernel):
            return 0.1 * keras.ops.sum(keras.ops.max(keras.ops.abs(kernel), axis=(0, 1, 2)))

    layer, stock, inputs = twins(
        12,
        (6, 6),
        filters=8,
        kernel_size=3,
        pattern="PS2_P6",
        kernel_constraint=constraint,
        kernel_regularizer=Largest(),
    )
    for each in (layer, stock):
        model = keras.Sequential([each])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(inputs, tf.zeros((2, 4, 4, 8)), verbose=0)
    mask = parse("PS2_P6").mask((3, 3), 12, 8)
    expected = to_numpy(stock.kernel)
    if constraint == "non_neg":  # of the norms, taps that the stock layer has trained are part
        np.testing.assert_allclose(to_numpy(layer.dense_kernel()), expected * mask, atol=1e-6)
    norms = np.linalg.norm(to_numpy(layer.dense_kernel()).reshape(-1, 8), axis=0)
    assert (norms <= 0.5 + 1e-6).all() or constraint == "non_neg"
    assert np.ptp(norms) > 0


def test_assign_dense_kernel_keeps_what_the_pattern_keeps():
    layer = PeriodicConv2D(8, 3, "PSD2_P4")
    layer.build((None, 6, 6, 12))
    dense = np.random.default_rng(0).normal(size=(3, 3, 12, 8)).astype("float32")
    layer.assign_dense_kernel(dense)
    mask = parse("PSD2_P4").mask((3, 3), 12, 8)
    np.testing.assert_array_equal(to_numpy(layer.dense_kernel()), dense * mask)
    with pytest.raises(UsageError, match=r"shape \(3, 3, 12, 8\). Received: \(3, 3, 8, 12\)"):
        layer.assign_dense_kernel(dense.swapaxes(2, 3))


BACKEND_CODE = """
import keras, numpy as np, sys
from tfsparse.layers import PeriodicConv2D
x = np.random.default_rng(0).normal(size=(2, 9, 8, 64)).astype("float32")
outputs = []
for pattern in ("PS4_P4_F1", "PSD1_P4_F1", "PS2_P6", "pSC4"):
    for strides in (1, 2):
        layer = PeriodicConv2D(64, 3, pattern, strides, "same")
        layer.build(x.shape)
        size = layer.kernel.shape[0]
        layer.kernel.assign(np.random.default_rng(size).normal(size=size))
        outputs.append(keras.ops.convert_to_numpy(layer(x)).ravel())
assert keras.backend.backend() == sys.argv[2]
np.save(sys.argv[1], np.concatenate(outputs))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_give_the_same_output(run, tmp_path, backend, monkeypatch):
    pytest.importorskip(backend)
    (tmp_path / "program.py").write_text(BACKEND_CODE)
    start, variables = [], {"KERAS_BACKEND": backend}
    if backend == "jax":
        start, variables["XLA_FLAGS"] = ["-m", "tests.without_tensorflow"], QUICK_XLA
    done = run(*start, tmp_path / "program.py", tmp_path / "theirs.npy", backend, **variables)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", ["-c", tmp_path / "ours.npy", "tensorflow"])
    exec(BACKEND_CODE, {})
    ours, theirs = (np.load(tmp_path / f"{name}.npy") for name in ("ours", "theirs"))
    assert np.abs(ours).max() > 1
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_is_prunable_for_tfmot():
    layer = PeriodicConv2D(8)
    layer.build((None, 4, 4, 4))
    assert isinstance(layer, PrunableLayer)
    assert layer.get_prunable_weights() == [layer.kernel]


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"pattern": "PS5P4"}, "PS5P4"),
        ({"kernel_size": 1}, "a kernel of 1x1"),
        ({"kernel_size": 0}, "0"),
        ({"kernel_size": 3.0}, "3.0"),
        ({"kernel_size": np.float32(3)}, "3.0"),
        ({"kernel_size": (3, 3.5)}, "(3, 3.5)"),
        ({"filters": 8.0}, "8.0"),
        ({"strides": (1, 2, 3)}, "(1, 2, 3)"),
        ({"padding": "causal"}, "causal"),
        ({"filters": 0}, "0"),
        ({"pattern": "pSC10"}, "10 taps"),
        ({"pattern": {"supports": [[[0, 3]]]}}, "(0, 3)"),
        ({"pattern": {"supports": [[]]}}, "at least one tap"),
        ({"pattern": {"support": [[0, 0]]}}, "'support'"),
        ({"pattern": {"supports": [[[0, -1]]]}}, "-1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, received):
    with pytest.raises(UsageError) as error:
        PeriodicConv2D(**{"filters": 8, **arguments})
    assert received in str(error.value)


def test_numpy_integers_are_as_good():
    layer = PeriodicConv2D(np.int64(8), np.array([3, 5]), strides=np.int32(2))
    plain = PeriodicConv2D(8, (3, 5), strides=2, name=layer.name)
    assert layer.get_config() == plain.get_config()
    json.dumps(layer.get_config())
    assert layer.compute_output_shape((1, 7, 7, 4)) == (1, 3, 2, 8)


@pytest.mark.parametrize("pattern", ["PS4_P4", "pSC4", "PS1_P9"])
@pytest.mark.parametrize("size", [(2, 5), (5, 2), (1, 1)])
def test_images_smaller_than_the_kernel(pattern, size):
    """With padding as in the stock layer; without, one line, however the layer is called."""
    inputs = np.random.default_rng(0).normal(size=(2, *size, 16)).astype("float32")
    layer, stock = (
        PeriodicConv2D(8, 3, pattern, padding="same"),
        keras.layers.Conv2D(8, 3, 1, "same"),
    )
    assert layer(inputs).shape == stock(inputs).shape
    stock.kernel.assign(layer.dense_kernel())
    np.testing.assert_allclose(layer(inputs), stock(inputs), rtol=1e-4, atol=1e-5)

    images = keras.Input((None, None, 16))
    model = keras.Model(images, PeriodicConv2D(8, 3, pattern)(images))
    for call in (
        lambda: PeriodicConv2D(8, 3, pattern)(inputs),
        lambda: PeriodicConv2D(8, 3, pattern)(keras.Input((*size, 16))),
        lambda: keras.Sequential([keras.Input((*size, 16)), PeriodicConv2D(8, 3, pattern)]),
        lambda: model(inputs),
        lambda: model.predict(inputs, verbose=0),
    ):
        with pytest.raises(UsageError, match=r"kernel of \(3, 3\).*smaller") as caught:
            call()
        assert str(size) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "is_dense"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_the_form_is_that_of_the_device(monkeypatch, kind, is_dense):
    monkeypatch.setattr(backend, "device_kind", lambda: kind)
    layer = PeriodicConv2D(256, 3, pattern="PS1_P9", padding="same")
    images = np.zeros((1, 4, 4, 256), np.float32)
    layer.build(images.shape)
    assert layer.runs_dense(images) == is_dense
