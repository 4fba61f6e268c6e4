"""Networks that are not of the zoo, as C: of Keras, of other converters, and those refused."""

import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from tests.tflite.codegen.models import flattened_cnn
from tests.tflite.codegen.programs import SANITIZED, STRICT
from tflite.codegen import host
from tflite.codegen.package import write_package
from tflite.convert import convert
from tflite.quiet import quiet
from tflite.runtimes import FileModel
from tflite.sources import operator_names
from tfsparse.errors import UsageError

pytestmark = pytest.mark.skipif(host.compiler() is None, reason="no C compiler")


def plain_cnn():
    """What a Keras CNN may have beside what the zoo's networks have."""
    layers = keras.layers
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu6")(x)
    x = layers.Conv2D(8, 3, 2)(layers.ZeroPadding2D(((0, 1), (1, 2)))(x))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    z = layers.Conv2D(16, 3, padding="same", dilation_rate=2, activation="relu")(x)
    x = layers.Concatenate()([x, layers.MaxPooling2D(3, 1, padding="same")(y), z])
    x = layers.LeakyReLU(0.1)(layers.Conv2D(12, 3, padding="same", groups=4)(x))
    x = layers.Add()([x, layers.Conv2D(12, 1)(x)])
    x = layers.Cropping2D(1)(layers.AveragePooling2D(2, 1)(x))
    x = layers.Activation("sigmoid")(layers.Dense(10)(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(4)(x))


@pytest.mark.slow
def test_a_plain_cnn(tmp_path):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((20, 12, 12, 3), np.float32)
    content = convert(plain_cnn(), "int8", images)
    folder = tmp_path / "package"
    folder.mkdir()
    made = write_package(content, images, folder, "plain")
    program = host.build(folder, tmp_path, (*STRICT, *SANITIZED))
    expected = FileModel(content, "reference").outputs(images)
    np.testing.assert_array_equal(host.run(program, made.images), expected)
    assert len(np.unique(expected)) > 10


def test_a_network_of_one_layer_compiles_without_warnings(tmp_path):
    layers = [keras.layers.Conv2D(4, 6), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
    images = np.random.default_rng(0).random((8, 6, 6, 3), np.float32)
    package, build = tmp_path / "package", tmp_path / "build"
    package.mkdir()
    build.mkdir()
    made = write_package(convert(model, "int8", images), images, package, "x")
    program = host.build(package, build, STRICT)
    np.testing.assert_array_equal(host.run(program, made.images), made.logits)


def test_a_row_longer_than_the_table_of_gathered_convolutions(tmp_path):
    """Its offsets need more than 16 bits: another kernel computes it, to the same bits."""
    rng = np.random.default_rng(0)
    layers = [keras.layers.Conv2D(4, (1, 5)), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((1, 5, 30_000)), *layers])
    kernel = np.zeros(model.layers[0].kernel.shape)
    kept = rng.choice(kernel.size, 2000, replace=False)
    kernel.flat[kept] = rng.normal(size=2000)
    model.layers[0].kernel.assign(kernel)
    images = rng.random((8, 1, 5, 30_000), np.float32)
    made = write_package(convert(model, "int8", images), images, tmp_path, "x")
    assert made.checked == 8
    assert len(np.unique(made.logits)) > 10
    assert "convolve_gathered" not in {call.kernel for call in made.program.calls}


def by_the_stock_converter(converter, images):
    """Returns the int8 file of a `tf.lite.TFLiteConverter` alone."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return converter.convert()


def foreign_cnn():
    """A network with operators that our converter does not write."""
    layers = keras.layers
    x = inputs = keras.Input((10, 10, 3), batch_size=1)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, activation="relu")(x))
    x = layers.Permute((2, 1, 3))(layers.Activation("tanh")(layers.MaxPooling2D()(x)))
    x = layers.Dense(21, activation="relu")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Softmax()(layers.Dense(7)(x)))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(4 * layer.kernel)
    return model


def test_a_file_whose_batch_is_not_fixed(tmp_path):
    model = flattened_cnn((12, 12, 1), 3)
    model.export(tmp_path / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    images = np.random.default_rng(0).random((8, 12, 12, 1), np.float32)
    content = by_the_stock_converter(converter, images)
    (tmp_path / "package").mkdir()
    with pytest.raises(UsageError, match=r"SHAPE.*Convert the model with a batch of one"):
        write_package(content, images, tmp_path / "package", "x")


def test_a_file_of_the_stock_converter(tmp_path):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((30, 10, 10, 3), np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(foreign_cnn())
    content = by_the_stock_converter(converter, images)
    names = operator_names(content)
    assert {"FULLY_CONNECTED", "SOFTMAX", "SUB", "TRANSPOSE"} <= set(names)
    (tmp_path / "package").mkdir()
    made = write_package(content, images, tmp_path / "package", "foreign")
    assert made.checked == 30
    assert len(np.unique(made.logits)) > 20
    kernels = [call.kernel for call in made.program.calls]
    assert "copy" not in kernels  # the transposition is in the weights


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        ((1, 900, 2), keras.layers.MaxPooling2D((1, 300)), "0 to 255 as window_width.*300"),
        ((900, 1, 2), keras.layers.AveragePooling2D((300, 1)), "0 to 255 as window_height.*300"),
        ((70_000, 1, 1), keras.layers.Conv2D(2, 1), "0 to 65,535 as input_height.*70,000"),
        ((1, 1, 70_000), keras.layers.Conv2D(2, 1), "0 to 65,535 as input_channels.*70,000"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape, layer, message, tmp_path):
    x = layer(inputs := keras.Input(shape))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    content = convert(model, "int8", np.random.default_rng(0).random((4, *shape), np.float32))
    with pytest.raises(UsageError, match=message) as raised:
        write_package(content, np.zeros((1, *shape)), tmp_path, "x")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def float_file():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
    model.add(keras.layers.Flatten())
    return convert(model, "float32", None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda good: b"", "not a .tflite file"),
        (lambda good: b"\0\0\0\0TFL3", "Cannot read"),
        (lambda good: good[:2000], "Cannot read"),
        (lambda good: pathlib.Path(__file__).read_bytes(), "not a .tflite file"),
        (lambda good: float_file(), r"files in int8.*Received: float32 and float32"),
    ],
    ids=["empty", "identifier only", "cut", "foreign", "float"],
)
def test_files_that_are_refused(make, message, tmp_path):
    content = make(zoo.load_tflite("resnet8_dnr10_fashion_mnist_small").read_bytes())
    with pytest.raises(UsageError, match=message) as raised:
        write_package(content, np.zeros((1, 28, 28, 1)), tmp_path, "x")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
