"""Verification: what passes, what fails, and how ties and few images count."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.tflite.networks import residual_network
from tflite.convert import convert
from tflite.verify import (
    BOUNDS,
    Verification,
    _accuracy_loss,
    _agreement,
    _is_near_tie,
    _keeps_class,
    verify,
)
from tfsparse.errors import UsageError

PRECISIONS = list(BOUNDS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_of_another_model_fails(network, calibration, held_out, precision):
    other = convert(residual_network(seed=1), precision, calibration)
    result = verify(other, network, *held_out, precision=precision)
    assert not result.passed
    assert len(result.failures) == 3  # the difference, the agreement and the accuracy


def test_a_file_with_the_same_output_for_every_image_fails(held_out):
    """Large biases alone make logits large, and constant outputs close to them."""
    images, labels = held_out
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    kernel, _ = model.get_weights()
    model.set_weights([kernel, np.full(10, 20.0)])
    constant = keras.models.clone_model(model)
    constant.set_weights([0 * kernel, np.full(10, 20.0)])
    labels = np.asarray(model(images)).argmax(axis=1)
    result = verify(convert(constant, "float32"), model, images, labels, precision="int8")
    assert len(result.failures) == 3
    assert result.keras_accuracy == 1.0


def test_a_network_whose_outputs_are_all_the_same_is_one_great_tie():
    """As those of some untrained networks, which people convert to see what they take."""
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(3, kernel_initializer="zeros")(keras.layers.Flatten()(inputs))
    model, images = keras.Model(inputs, outputs), np.zeros((10, 4, 4, 1), np.float32)
    found = verify(convert(model, "float32"), model, images, precision="float32")
    assert (found.top1_agreement, found.top1_or_close, found.failures) == (1.0, 1.0, [])


@pytest.mark.parametrize(("gap", "is_close"), [(0.02, True), (2.0, False)])
def test_rounding_may_decide_near_ties(gap, is_close):
    """Two files of three classes: in one the first two have changed places."""

    def model(difference):
        inputs = keras.Input((4, 4, 1))
        outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
        found = keras.Model(inputs, outputs)
        found.layers[-1].set_weights([np.zeros((16, 3)), np.array([0.0, difference, -3.0])])
        return found

    images = np.zeros((10, 4, 4, 1), np.float32)
    content = convert(model(-gap / 2), "float32")
    found = verify(content, model(gap / 2), images, precision="int8")
    assert (found.top1_or_tied, found.top1_or_close) == (0.0, float(is_close))
    assert ("is a near-tie" in " ".join(found.failures)) != is_close


def test_a_near_tie_is_between_the_classes_that_are_near():
    """Keras' first two classes are nearly tied; a file may choose these, and no other."""
    keras_logits = np.array([[1.0, 0.99, -5.0]] * 5)
    file_logits = np.array(
        [[-5.0, -5.0, 1.0], [0.9, 1.0, -5.0], [1.0, 1.0, -5.0], [1.0, 1.0, 1.0], [0, 1, np.nan]]
    )
    found = _is_near_tie(keras_logits, file_logits, 0.1)
    assert list(found) == [False, True, True, False, False]
    assert not _is_near_tie(keras_logits, file_logits, 0.001)[1]


def test_the_accuracy_may_fall_by_what_few_images_cannot_tell():
    def loss(lost, examples):
        error = np.sqrt(lost) / examples
        shares = (1, 1, 1, 0.8, 0.8 - lost / examples)
        found = Verification("int8", "xnnpack", examples, 0, 0, *shares)
        losses = {"accuracy_loss": lost / examples, "accuracy_error": error}
        return dataclasses.replace(found, **losses).passed

    assert loss(10, 2000)  # half a point
    assert loss(16, 2000)  # 0.8 points, with a standard error of 0.2
    assert not loss(30, 2000)
    assert loss(100, 20_000)
    assert not loss(160, 20_000)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_layer_perturbed_fails(network, calibration, held_out, precision):
    other = keras.models.clone_model(network)
    other.set_weights(network.get_weights())
    kernel = other.layers[4].kernel  # the second convolution
    kernel.assign(keras.ops.roll(kernel, 1, axis=3))
    perturbed = convert(other, precision, calibration)
    assert not verify(perturbed, network, *held_out, precision=precision).passed


def test_float_weights_in_a_float32_file_may_not_be_rounded(network, content, held_out):
    result = verify(content["float16"], network, *held_out, precision="float32")
    assert not result.passed
    assert "largest difference" in result.failures[0]


class Undefined(keras.layers.Layer):
    def call(self, x):
        return keras.ops.sqrt(x - 1e6)


@pytest.mark.parametrize("both", [True, False])
def test_nan_fails(network, held_out, both):
    image = keras.Input((28, 28, 1))
    undefined = keras.Model(image, Undefined()(network(image)))
    model = undefined if both else network
    result = verify(convert(undefined, "float32"), model, *held_out, precision="float32")
    assert np.isnan(result.largest_difference)
    assert result.top1_agreement == 0
    assert "not finite" in result.failures[0]


def test_ties_are_told_apart_from_agreement():
    keras_logits = np.array([[0.0, 2.0, 1.9], [0.0, 2.0, 1.9], [5.0, 1.0, 1.0], [1.0, 5.0, np.nan]])
    file_logits = np.array([[2.0, 2.0, 1.0], [0.0, 2.0, 1.0], [5.0, 6.0, 5.0], [1.0, 5.0, 0.0]])
    assert _agreement(keras_logits, file_logits) == 1 / 4  # the second row only
    assert list(_keeps_class(keras_logits, file_logits)) == [True, True, False, False]
    # The same for every class is no answer.
    assert not _keeps_class(keras_logits, np.ones((4, 3))).any()


def test_a_tie_is_half_right():
    keras_logits = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    file_logits = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [1.0, 2.0, 0.0], [2.0, 2.0, 2.0]])
    labels = np.array([0, 1, 1, 0])
    # Keras is right of images 0 and 3; the file by 1/2, 1/2, 1 and 1/3.
    loss, error = _accuracy_loss(keras_logits, file_logits, labels)
    assert loss == pytest.approx((1 / 2 - 1 / 2 - 1 + 2 / 3) / 4)
    assert error == pytest.approx(np.sqrt(1 / 4 + 1 / 4 + 1 + 4 / 9) / 4)


def test_accuracy_needs_labels(network, content, held_out):
    result = verify(content["float32"], network, held_out[0][:5], precision="float32")
    assert result.keras_accuracy is None
    assert result.file_accuracy is None


def test_files_that_do_not_fit(network, held_out):
    with pytest.raises(UsageError, match="LiteRT cannot run"):
        verify(b"no flatbuffer at all", network, *held_out, precision="int8")
    eleven = convert(residual_network(classes=11), "float32")
    with pytest.raises(UsageError, match=r"\(300, 11\).*\(300, 10\)"):
        verify(eleven, network, *held_out, precision="float32")
