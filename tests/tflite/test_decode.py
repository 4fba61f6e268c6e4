"""Files with kernels without zeros: TFLM computes the same bits from fewer bytes."""

import functools

import keras
import numpy as np
import pytest

from tflite.arena import arena
from tflite.convert import convert
from tflite.decode import HEADER, compress
from tflite.flatbuffer import operator_name, unpack
from tflite.runtimes import FileModel
from tfsparse.errors import UsageError

pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")


IMAGES = np.random.default_rng(0).random((20, 12, 12, 3), np.float32)


@functools.cache
def converted(density):
    """An int8 file with all kinds of kernels, of which a share is not zero."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=8)(x)
    x = keras.layers.Conv2D(32, 1, activation="relu")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(x))
    model = keras.Model(image, keras.layers.Dense(10)(x))
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(np.where(rng.random(weight.shape) < density, weight, 0))
    return convert(model, "int8", IMAGES)


@pytest.mark.parametrize("density", [0.05, 0.1, 0.5, 0.8])
def test_the_same_bits_from_fewer_bytes(density):
    content = converted(density)
    smaller = compress(content)
    expected = FileModel(content, "reference").outputs(IMAGES)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(FileModel(smaller, "tflm").outputs(IMAGES), expected)
    weights = 16 * 27 + 9 * 128 + 128 * 32 + 800 * 10
    # A byte for each weight that is not zero, a bit for each weight, and 400 bytes an operator.
    assert len(smaller) <= len(content) - weights * (1 - density - 1 / 8) + 4 * 400
    # The largest kernel is in the arena beside the activations.
    grown = arena(smaller).activations - arena(content).activations
    assert 0 <= grown <= 800 * 10 + 64


def test_bits_and_values_are_the_kernel():
    """The file is read by ten lines of NumPy."""
    content = converted(0.1)
    kernels = [
        array
        for array in arrays(content).values()
        if array.dtype == np.int8 and len(array) > 300  # without inputs, outputs, biases
    ]
    model = unpack(compress(content))
    tensors, found = arrays(compress(content)), []
    for operator in model.subgraphs[0].operators:
        if operator_name(model.operatorCodes[operator.opcodeIndex]) == "TFLM_DECODE":
            bits, values = (tensors[int(index)] for index in operator.inputs)
            assert values[:16].tobytes() == HEADER
            shape = model.subgraphs[0].tensors[int(operator.outputs[0])].shape
            kernel = np.zeros(np.prod(shape), np.int8)
            kernel[np.unpackbits(bits)[: kernel.size] == 1] = values[16:].view(np.int8)
            found.append(kernel)
    assert len(found) == len(kernels) == 4
    key = np.ndarray.tobytes
    assert sorted(map(key, found)) == sorted(map(key, kernels))


def arrays(content):
    """{tensor: its constant} of a file."""
    model, types = unpack(content), {9: np.int8, 3: np.uint8, 2: np.int32}
    return {
        index: np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(types[tensor.type])
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if model.buffers[tensor.buffer].data is not None
    }


def test_dense_and_float_files_stay_as_they_are():
    content = converted(1)
    assert compress(content) == content
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    content = convert(model, "float32")
    assert compress(content) == content


def test_litert_cannot_run_them_and_names_the_operator():
    with pytest.raises(UsageError, match=r"LiteRT cannot run the file: .*TFLM_DECODE"):
        FileModel(compress(converted(0.1)))
