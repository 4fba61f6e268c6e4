"""Conversion: interfaces, operators, sizes, and models that cannot be converted."""

import math
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import tflite.convert
import zoo
from tests.tflite.networks import residual_network
from tflite.conversion import Images, file_facts
from tflite.convert import convert
from tflite.routes import Route
from tflite.runtimes import FileModel
from tflite.verify import BOUNDS, verify
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D

PRECISIONS = list(BOUNDS)


def operators(content):
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return [operator["op_name"] for operator in interpreter._get_ops_details()]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_agrees_with_keras(network, content, held_out, precision):
    result = verify(content[precision], network, *held_out, precision=precision)
    assert result.passed, result.failures
    assert result.examples == 300
    expected = network(held_out[0]).numpy().argmax(axis=1)
    assert result.keras_accuracy == np.mean(expected == held_out[1]) > 0.2
    assert abs(result.file_accuracy - result.keras_accuracy) <= 0.02


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_takes_one_image_with_builtin_operators(content, precision):
    found = set(operators(content[precision])) - {"DEQUANTIZE"}  # of float16's weights
    dense = set() if precision == "int8" else {"FULLY_CONNECTED"}
    assert found == {"CONV_2D", "ADD", "MAX_POOL_2D", "RESHAPE"} | dense
    interpreter = Interpreter(model_content=content[precision])
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert source["shape"].tolist() == source["shape_signature"].tolist() == [1, 28, 28, 1]
    assert target["shape"].tolist() == [1, 10]
    expected = {"int8": np.int8, "int16x8": np.int16}.get(precision, np.float32)
    assert source["dtype"] is target["dtype"] is expected
    assert list(interpreter.get_signature_list()["serving_default"]["inputs"]) == ["image"]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_float_input_and_output(network, content, calibration, held_out, precision):
    """Rounding the input and the output is all that the two files do differently."""
    images = held_out[0][:50]
    with_float = FileModel(convert(network, precision, calibration, float_io=True))
    quantized = FileModel(content[precision])
    assert with_float.source.dtype is with_float.target.dtype is np.float32
    np.testing.assert_allclose(with_float(images), quantized(images), rtol=0, atol=1e-4)


def test_the_same_model_gives_the_same_bytes(network, content, calibration):
    assert convert(network, "int8", calibration) == content["int8"]


def test_sparse_storage(network, content, calibration, held_out):
    """Smaller, and the same outputs to the bit; of a dense network, the file as it would be."""
    assert convert(network, "float32", sparse_storage=True) == content["float32"]
    network = residual_network()
    kernel = network.layers[4].kernel
    kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.1, kernel, 0))
    for precision in ("float32", "int8"):
        dense, sparse = (
            convert(network, precision, calibration, sparse_storage=each) for each in (False, True)
        )
        weight = {"float32": 4, "int8": 1}[precision]
        assert len(dense) - len(sparse) > 0.6 * 0.9 * weight * math.prod(kernel.shape)
        outputs = [
            FileModel(each, "reference").outputs(held_out[0][:20]) for each in (dense, sparse)
        ]
        np.testing.assert_array_equal(*outputs)


def test_sizes(network, content):
    # Besides the weights, 6 kB hold the graph, biases and, in int8, a scale for each channel.
    for precision, width in {"float32": 4, "float16": 2, "int8": 1}.items():
        weights = width * network.count_params()
        assert weights < len(content[precision]) < weights + 6000


class PartialKernel(keras.layers.Layer):
    """A 3x3 convolution of which one weight in `period` exists, the others being zero."""

    def __init__(self, period):
        super().__init__()
        self.period = period

    def build(self, shape):
        self.shape = (3, 3, shape[-1], 64)
        size = int(np.prod(self.shape))
        kept = np.random.default_rng(0).permutation(size)[: size // self.period]
        self.kernel = self.add_weight(shape=(len(kept),), initializer="random_normal")
        self.source = np.full(size, len(kept))  # where each weight is; the last place holds 0
        self.source[kept] = np.arange(len(kept))

    def call(self, x):
        kernel = keras.ops.concatenate([self.kernel, keras.ops.zeros(1)])
        kernel = keras.ops.reshape(keras.ops.take(kernel, self.source), self.shape)
        return keras.ops.conv(x, kernel, padding="same")


# ops.scatter instead of ops.take stays in the file where a result is over 4 times its input.
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("period", [2, 9, 16])
def test_kernel_taken_from_kept_weights_becomes_a_constant(period, precision, calibration):
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(64, 3, strides=4)(image)
    x = keras.layers.BatchNormalization()(PartialKernel(period)(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))
    assert operators(convert(model, precision, calibration)) == ["CONV_2D", "CONV_2D", "MEAN"]


@pytest.mark.parametrize("pattern", ["PS4_P4", "PSD2_P4", "PS1_P3_F1", "PS2_P4_F2"])
def test_lowered_periodic_layers(pattern, calibration, held_out):
    """Both strides, more inputs to a concatenation than one, and only the kept weights."""
    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(128, 3, 4, activation="relu")(image)
    for strides in (1, 2):
        layer = PeriodicConv2D(128, 3, pattern, strides, "same", use_bias=False)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(layer(x)))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    images = held_out[0][:50]
    content = convert(model, "float32")
    assert verify(content, model, images, precision="float32").passed
    # Layers of so few filters a phase that a dense convolution is faster store all taps.
    stored = model.count_params() if "D" not in pattern else math.inf
    assert len(content) <= 4 * stored + 20_000
    content = convert(model, "int8", calibration)
    # An untrained network has near-ties only, so that its classes say nothing.
    assert verify(content, model, images, precision="int8").mean_difference < 0.1
    # In int8 four filter phases of 7x7 pixels are faster dense.
    assert len(content) <= stored + 30_000 or "_F" not in pattern


# The numbers of their blocks: each kind of block once or twice.
SHORTENED = {
    "mobilenet_v2": ("_STAGES", [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 1, 2)]),
    "resnet8": None,
    "shufflenet": ("_BLOCKS", [2, 1]),
    "vgg16": ("_STAGES", [(1, 2), (2, 1)]),
}


@pytest.mark.parametrize("arch", SHORTENED)
def test_architectures(arch, held_out, monkeypatch):
    """ResNet14 and ResNet18 are of the same blocks as ResNet8."""
    assert {*SHORTENED, "resnet14", "resnet18"} == set(zoo.ARCHITECTURES)
    if SHORTENED[arch]:
        monkeypatch.setattr(
            sys.modules[f"zoo.architectures.{arch.removesuffix('16')}"], *SHORTENED[arch]
        )
    keras.utils.set_random_seed(0)
    model = zoo.build(arch, (28, 28, 1), 10, width=48 if arch == "shufflenet" else 8)
    content = convert(model, "float32")
    assert verify(content, model, held_out[0][:50], precision="float32").passed


def test_models_that_cannot_be_converted():
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    two = keras.Model(images, keras.layers.Flatten()(keras.layers.Add()(images)))
    with pytest.raises(UsageError, match=r"one input.*Received: 2"):
        convert(two, "float32")
    image = keras.Input((None, None, 1))
    sizeless = keras.Model(image, keras.layers.GlobalMaxPooling2D()(image))
    with pytest.raises(UsageError, match="known size"):
        convert(sizeless, "float32")
    with pytest.raises(UsageError, match="one output"):
        convert(keras.Model(image := keras.Input((8, 8, 1)), image * 2), "float32")
    with pytest.raises(UsageError, match="inputs are unknown"):
        convert(keras.Sequential([keras.layers.Flatten()]), "float32")


def test_operation_without_builtin_operator_is_named():
    class Quantile(keras.layers.Layer):
        def call(self, x):
            return keras.ops.erfinv(x)

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Flatten()(Quantile(name="probit")(image)))
    with pytest.raises(UsageError, match=r"operator for: Erfinv at .*probit"):
        convert(model, "float32")


def test_operation_without_integers_is_named_with_the_way_out(held_out):
    inputs = keras.Input((28, 28, 1))
    x = keras.ops.sin(keras.layers.Conv2D(4, 3, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    with pytest.raises(UsageError, match=r"no int8 form of SIN at .*precision dynamic_range"):
        convert(model, "int8", held_out[0][:5])
    convert(model, "dynamic_range")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_the_converter_does_not_survive_in_int8_is_refused(precision, calibration):
    """Quantizing an LSTM ends the process, so this is refused before it comes to that."""
    image = keras.Input((28, 28, 1))
    x = keras.layers.LSTM(4)(keras.layers.Reshape((28, 28))(image))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    with pytest.raises(UsageError, match="loops or branches"):
        convert(model, precision, calibration[:5])


def test_a_rewrite_that_changes_the_outputs_is_refused(network, calibration, monkeypatch):
    other = residual_network(seed=1)
    monkeypatch.setattr(tflite.convert, "find_route", lambda *_: Route(other, ["periodic: 3"]))
    with pytest.raises(UsageError, match=r"changed its outputs by .*The rewrites: periodic: 3\."):
        convert(network, "float32")
    same = keras.models.clone_model(network)
    same.set_weights([weight * (1 + 1e-7) for weight in network.get_weights()])
    monkeypatch.setattr(tflite.convert, "find_route", lambda *_: Route(same, []))
    assert len(convert(network, "float32")) > 1000


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_dict_of_one_input_and_one_output(precision, calibration, held_out):
    image = keras.Input((28, 28, 1), name="image")
    outputs = {"logits": keras.layers.Dense(10)(keras.layers.Flatten()(image))}
    model = keras.Model({"image": image}, outputs)
    content = convert(model, precision, calibration)
    assert verify(content, model, *held_out, precision=precision).difference < 0.01
    two = keras.Model(image, {**outputs, "more": keras.layers.Flatten()(image)})
    with pytest.raises(UsageError, match=r"one output.*Received: 2"):
        convert(two, precision, calibration)
    with pytest.raises(UsageError, match=r"one output.*Received: 2"):
        verify(content, two, *held_out, precision=precision)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_images_of_another_range(network, content, calibration, held_out, precision):
    """A model of images in 0..255 that divides by 255 has the same logits."""
    images, labels = held_out
    image = keras.Input((28, 28, 1))
    model = keras.Model(image, network(keras.layers.Rescaling(1 / 255)(image)))
    options = {"precision": precision, "input_range": (0, 255)}
    found = convert(model, calibration_images=255 * calibration, **options)
    result = verify(found, model, 255 * images, labels, **options)
    assert result.passed, result.failures
    assert not result.at_chance
    # Given images in [0, 1], it sees black ones, and says so.
    assert verify(found, model, images, labels, precision=precision).at_chance
    facts = file_facts(model, precision, Images(calibration, images, labels, input_range=(0, 255)))
    assert facts["input_range"] == [0, 255]


def test_weights_that_are_not_finite_are_named(calibration):
    model = residual_network()
    model.layers[1].kernel.assign(model.layers[1].kernel * np.nan)
    with pytest.raises(UsageError, match=r"conv2d.*/kernel is not finite"):
        convert(model, "int8", calibration)


def test_images_that_do_not_fit(network, content):
    for precision in ("int8", "int16x8"):
        with pytest.raises(UsageError, match="needs calibration_images"):
            convert(network, precision)
    for images, message in [
        (np.zeros((3, 32, 32, 1)), r"\(n, 28, 28, 1\).*\(3, 32, 32, 1\)"),
        (np.zeros((0, 28, 28, 1)), "n > 0"),
        (np.zeros((3, 28, 28, 1), np.uint8), "uint8"),
        (np.full((3, 28, 28, 1), 255.0), "255.0"),
        (np.full((3, 28, 28, 1), np.nan), "nan"),
    ]:
        with pytest.raises(UsageError, match=message):
            convert(network, "int8", images)
        with pytest.raises(UsageError, match=message):
            verify(content["int8"], network, images, precision="int8")
