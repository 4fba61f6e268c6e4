"""Weight files: numbers of each type, and float32 in 16 bits."""

import keras
import ml_dtypes
import numpy as np
import pytest

import tfsparse
from tests.tfsparse.weight_files import NAMES, RNG, assert_equal, clear, content_of, network, saved
from tfsparse import UsageError, weights


def test_special_numbers_and_types(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(5, dtype="float64")(inputs))
    kernel = np.zeros((4, 5))
    kernel[0] = [np.nan, np.inf, -np.inf, 5e-324, 1.0]
    kernel.view(np.uint64)[1, 0] = 0x7FF8_0000_0000_1234  # a NaN with something in it
    model.layers[-1].kernel.assign(kernel)
    tfsparse.save_weights(model, tmp_path / "model.safetensors")
    clear(model)
    tfsparse.load_weights(model, tmp_path / "model.safetensors")
    assert model.layers[-1].kernel.numpy().tobytes() == kernel.tobytes()


def zeros(shape, dtype):
    return keras.ops.cast(np.zeros(shape, "float32"), dtype)  # TensorFlow has no float8 of int64


class Holder(keras.layers.Layer):
    """A layer with two weights of each of some types."""

    def __init__(self, *dtypes):
        super().__init__()
        self._dtypes = dtypes

    def build(self, _):
        for dtype in self._dtypes:
            for shape in ((), (3, 2)):
                self.add_weight(shape=shape, dtype=dtype, trainable=False, initializer=zeros)

    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("name", NAMES)
def test_every_type(tmp_path, name):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Holder(*weights.DTYPES)(inputs))
    assert {variable.dtype for variable in model.weights} == set(weights.DTYPES)
    for variable in model.weights:
        variable.assign(RNG.integers(0, 2, variable.shape))
    expected = saved(model)
    assert any(values.dtype == ml_dtypes.bfloat16 for values in expected)
    tfsparse.save_weights(model, tmp_path / name)
    clear(model)
    tfsparse.load_weights(model, tmp_path / name)
    assert_equal(model, expected)


def test_half_precision(tmp_path):
    """float32 weights take half the bytes and load as their nearest float16; others stay."""
    model, whole, half = network(), tmp_path / NAMES[0], tmp_path / "half.safetensors"
    expected = [values.astype("float16").astype("float32") for values in saved(model)]
    tfsparse.save_weights(model, whole)
    tfsparse.save_weights(model, half, dtype="float16")
    tensors, _ = content_of(half)
    assert {tensor.dtype.name for tensor in tensors.values()} == {"float16"}
    assert whole.stat().st_size - half.stat().st_size == 2 * model.count_params()
    clear(model)
    tfsparse.load_weights(model, half)
    assert_equal(model, expected)
    wide = network(dtype="float64")
    before = saved(wide)
    with pytest.raises(
        UsageError, match=r"half.safetensors is of another model: it has 0000/.*F16"
    ):
        tfsparse.load_weights(wide, half)
    assert_equal(wide, before)
    tfsparse.save_weights(wide, half, dtype="float16")
    tfsparse.load_weights(wide, half)
    assert wide.get_layer("periodic").kernel.dtype == "float64"
    assert_equal(wide.get_layer("periodic"), before[:2])


def test_half_precision_has_bounds(tmp_path):
    model, path = network(), tmp_path / NAMES[0]
    with pytest.raises(UsageError, match=r'dtype must be "float16" or None\. Received: .bfloat16'):
        tfsparse.save_weights(model, path, dtype="bfloat16")
    model.get_layer("norm").gamma.assign(np.full(8, -1e5))
    message = "float16 holds numbers up to 65504. .*Received: norm/gamma with 1e[+]05"
    with pytest.raises(UsageError, match=message):
        tfsparse.save_weights(model, path, dtype="float16")
    assert not path.exists()


def test_types_that_files_do_not_hold(tmp_path):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Holder("float32", "float8_e4m3fn")(inputs))
    with pytest.raises(UsageError, match=r"Received: .* of float8_e4m3fn"):
        tfsparse.save_weights(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
