"""The differentiable twin of a file, against LiteRT's reference kernels and the Keras model."""

import keras
import numpy as np
import pytest

import zoo
from tflite.convert import convert
from tflite.runtimes import FileModel
from tflite.twin import twin
from tfsparse import UsageError, attacks, backend
from tfsparse.starts import image_seeds, random_starts
from zoo.figures import golden_images

EPS = 8 / 255


def everything():
    """A network with each kind of layer, whose softmax is that of the file."""
    keras.utils.set_random_seed(0)
    image = keras.Input((13, 11, 1))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="tanh")(x)
    x = keras.layers.ZeroPadding2D(1)(x)
    left = keras.layers.MaxPooling2D(3, 2, "same")(x)
    right = keras.layers.AveragePooling2D(3, 2, "same")(x)
    x = keras.layers.Concatenate()([left, right])
    x = keras.layers.Add()([x, keras.layers.Conv2D(16, 1, activation="sigmoid")(x)])
    x = keras.layers.Dense(12, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(5, activation="softmax")(x))


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        ("resnet8_dnr10_fashion_mnist_small", True),
        ("shufflenet_w80_cifar10", False),
        ("vgg16_w16_dnr5_cifar10", True),
    ],
)
def test_a_twin_gives_the_outputs_of_the_reference_kernels(name, compiled, study_models):
    """Also compiled by XLA, which contracts and reorders what it can."""
    content = zoo.load_tflite(name).read_bytes()
    file, model = FileModel(content, "reference"), twin(content)
    images = golden_images(file.image_shape, 24)
    found = model.predict(images, verbose=0) if compiled else model(images)
    np.testing.assert_allclose(found, file(images), rtol=1e-6, atol=1e-6)


def test_every_kind_of_layer():
    model = everything()
    images = np.random.default_rng(0).random((40, 13, 11, 1), np.float32)
    content = convert(model, "int8", images)
    file = FileModel(content, "reference")
    for found in (twin(content)(images), twin(content).predict(images, verbose=0)):
        np.testing.assert_allclose(found, file(images), rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_network(network, content, fashion_mnist):
    """Rounding counts as the identity, so the file's gradient is close to the Keras model's."""
    images, labels = (array[:40] for array in fashion_mnist)
    images, labels = keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)

    def gradient(model):
        def losses(x):
            return attacks.LOSSES["cross_entropy"](labels, model(x, training=False))

        return np.asarray(backend.gradient(losses, images)).reshape(len(images), -1)

    first, second = gradient(network), gradient(twin(content["int8"]))
    products = (first * second).sum(axis=1)
    cosines = products / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert np.median(cosines) > 0.9


def test_pgd_on_the_twin_is_as_strong_as_on_the_keras_model(network, content, fashion_mnist):
    images, labels = (array[:100] for array in fashion_mnist)
    file = FileModel(content["int8"])
    starts = random_starts(image_seeds(0, 0, np.arange(len(images))), images.shape[1:])

    def accuracy(model):
        adversarial = attacks.pgd(model, EPS, 10)(images, labels, starts)
        return (file(np.asarray(adversarial)).argmax(axis=1) == labels).mean()

    assert abs(accuracy(twin(content["int8"])) - accuracy(network)) <= 0.03
    assert accuracy(network) < 0.5
    assert (file(images).argmax(axis=1) == labels).mean() > 0.6


def test_black_pixels_have_gradients_if_images_are_in_0_to_255(fashion_mnist_training):
    """The file scales them by a table, in which the first two numbers have the same result."""
    images = fashion_mnist_training[0][:100] * 255
    image = keras.Input((28, 28, 1))
    network = zoo.load("resnet8_dnr10_fashion_mnist_small")
    model = keras.Model(image, network(keras.layers.Rescaling(1 / 255)(image)))
    file = twin(convert(model, "int8", images, input_range=(0, 255)))
    black = keras.ops.zeros((1, 28, 28, 1))
    assert np.count_nonzero(backend.gradient(file, black)) > 0.5 * 28 * 28


def test_a_float_file_is_refused(content):
    with pytest.raises(UsageError, match="files in int8"):
        twin(content["float32"])
