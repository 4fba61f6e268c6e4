"""A file in LiteRT and in TFLM: the same bits from the same kernels, and errors in one line."""

import keras
import numpy as np
import pytest

from tflite.arena import arena
from tflite.convert import convert
from tflite.runtimes import FileModel, Tensor, tflm_interpreter
from tfsparse.errors import UsageError

pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((30, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((16, 16, 3)),
        keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(24, 3, strides=2, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def int8(network, images):
    return convert(network, "int8", images)


@pytest.mark.parametrize(
    ("precision", "float_io"),
    [("int8", False), ("int8", True), ("int16x8", False), ("float32", False)],
)
def test_tflm_computes_what_the_reference_kernels_do(network, images, precision, float_io):
    content = convert(network, precision, images, float_io=float_io)
    reference, micro = (FileModel(content, each).outputs(images) for each in ("reference", "tflm"))
    assert len(np.unique(reference)) > 20
    # int16x8: their means round in different ways, by one step of 65,536.
    tolerance = {"int8": 0, "int16x8": 2, "float32": 1e-5}[precision]
    np.testing.assert_allclose(micro.astype(float), reference, rtol=0, atol=tolerance)


def test_logits_are_those_of_keras(network, images, int8):
    expected = network(images).numpy()
    for runtime in ("xnnpack", "reference", "tflm"):
        file = FileModel(int8, runtime)
        assert (file.image_shape, file.num_classes) == ((16, 16, 3), 10)
        assert np.abs(file(images) - expected).mean() < 0.02 * np.abs(expected).max()


def test_codes():
    tensor = Tensor((1, 3), np.int8, 0.5, -10)
    codes = tensor.encode(np.array([0.0, 1.0, 1000.0, -1000.0]))
    assert codes.tolist() == [-10, -8, 127, -128]
    assert codes.dtype == np.int8
    assert tensor.decode(codes[:2]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("precision", "reason"), [("float16", "DEQUANTIZE"), ("dynamic_range", "Hybrid models")]
)
def test_what_tflm_cannot_run(network, images, precision, reason, capfd):
    with pytest.raises(UsageError, match=f"TFLM cannot run the file: .*{reason}") as caught:
        FileModel(convert(network, precision, images), "tflm")
    assert "\n" not in str(caught.value)
    assert ".cc" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_arena_is_what_tflm_takes(int8):
    measured = arena(int8)
    assert measured.total == measured.activations + measured.persistent
    # The largest two tensors at a time: what the pooling reads and writes.
    assert 16 * 16 * 16 + 8 * 8 * 16 <= measured.activations < 16 * 16 * 16 * 1.5
    # TFLM plans in memory that it then gives back: 4 kB more than it keeps always do.
    tflm_interpreter(int8, measured.total + 4096)
    with pytest.raises(UsageError, match="TFLM cannot run the file"):
        tflm_interpreter(int8, measured.activations)
