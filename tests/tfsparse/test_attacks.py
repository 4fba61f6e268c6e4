"""Attacks against the closed form that a linear model has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsparse import UsageError
from tfsparse.attacks import LOSSES, fgsm, gaussian_noise, nfgsm, pgd, uniform_noise
from tfsparse.evaluation import accuracy, logits
from tfsparse.starts import image_seeds, random_starts

EPS = 8 / 255
SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def linear():
    """A model of two classes whose logits are 0 and w * x, and its w."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    w = np.random.default_rng(0).normal(size=784).astype("float32")
    dense.set_weights([np.stack([np.zeros_like(w), w], axis=1)])
    return model, w.reshape(28, 28, 1)


@pytest.fixture(scope="module")
def data(fashion_mnist):
    images, labels = fashion_mnist
    return tf.constant(images[:40]), tf.constant(labels[:40] % 2)


def worst_case(images, labels, w):
    """Against class 1 the loss grows along -w, against class 0 along w."""
    sign = np.where(labels.numpy() == 1, -1.0, 1.0)[:, None, None, None] * np.sign(w)
    return np.clip(images.numpy() + EPS * sign, 0.0, 1.0)


def test_fgsm_on_a_linear_model_is_exact(linear, data):
    model, w = linear
    np.testing.assert_allclose(fgsm(model, EPS)(*data, SEED), worst_case(*data, w), atol=1e-6)


def test_nfgsm_steps_from_larger_noise_and_does_not_project(linear, data):
    """de Jorge et al., equation 6: x + noise + eps sign(gradient), within the range of images."""
    model, w = linear
    images, labels = (array.numpy() for array in data)
    starts = random_starts(image_seeds(0, 0, np.arange(40)), images.shape[1:])
    noisy = np.clip(images + 2 * EPS * starts, 0, 1)
    sign = np.where(labels == 1, -1.0, 1.0)[:, None, None, None] * np.sign(w)
    found = nfgsm(model, EPS)(images, labels, starts)
    np.testing.assert_allclose(found, np.clip(noisy + EPS * sign, 0, 1), atol=1e-6)
    assert np.abs(found - images).max() > 2.9 * EPS
    ints = nfgsm(model, EPS, input_range=(-1, 1))(2 * images - 1, labels, SEED)
    assert 2 * 2.9 * EPS < np.abs(ints - (2 * images - 1)).max() <= 2 * 3 * EPS + 1e-6


@pytest.mark.parametrize("random_start", [True, False])
def test_pgd_on_a_linear_model_converges_to_the_worst_case(linear, data, random_start):
    model, w = linear
    attack = pgd(model, EPS, steps=9, random_start=random_start)
    np.testing.assert_allclose(attack(*data, SEED), worst_case(*data, w), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
def test_bounds_and_seeds(linear, data, steps):
    attack = pgd(linear[0], EPS, steps=steps, step_size=EPS / 4)
    images, labels = data
    adversarial = attack(images, labels, SEED).numpy()
    assert np.abs(adversarial - images).max() <= EPS + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    np.testing.assert_array_equal(adversarial, attack(images, labels, SEED))
    assert (adversarial != attack(images, labels, SEED + 1).numpy()).any()


def test_attack_leaves_the_model_alone_and_uses_inference_mode(data):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    before = model.get_weights()
    attack = pgd(model, EPS, steps=2)
    together = attack(*data, SEED).numpy()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # Without a random start each image's attack is its own; in training mode it would depend on
    # the rest of the batch.
    attack = fgsm(model, EPS)
    together = attack(*data, SEED).numpy()
    alone = attack(data[0][:1], data[1][:1], SEED).numpy()
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)


def test_accuracy_clean_and_under_attack(linear, data):
    model, w = linear
    batches = tf.data.Dataset.from_tensor_slices(data).batch(16)  # a remainder of 8
    images, labels = data
    for attack, seen in [(None, images.numpy()), (fgsm(model, EPS), worst_case(images, labels, w))]:
        predicted = (np.sum(seen * w, axis=(1, 2, 3)) > 0).astype(int)
        expected = np.mean(predicted == labels.numpy())
        assert accuracy(model, batches, attack) == pytest.approx(expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"eps": 0},
        {"eps": 2.0},
        {"steps": 0},
        {"step_size": 0.0},
        {"eps": -0.1},
        {"loss": "hinge"},
    ],
)
def test_settings_out_of_range(linear, arguments):
    with pytest.raises(UsageError, match="Received"):
        pgd(linear[0], **{"eps": EPS, "steps": 3, **arguments})


@pytest.mark.parametrize("batch_size", [16, 40])  # the first leaves a remainder of 8
def test_restarts_count_what_is_misclassified_once(linear, data, batch_size):
    """An attack that inverts the images whose start begins above 0."""
    model, _ = linear
    images, labels = (array.numpy() for array in data)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    right, right_inverted = (
        np.argmax(model(seen), axis=-1) == labels for seen in (images, 1 - images)
    )

    def attack(images, labels, starts):
        assert starts.shape == images.shape
        return tf.where(starts[:, :1, :1] > 0, 1 - images, images)

    held = np.ones(len(labels), bool)
    for restart in range(3):
        first = [np.random.default_rng([7, restart, i]).random(dtype="f4") for i in range(40)]
        held &= np.where(np.array(first) > 0.5, right_inverted, right)
        result = accuracy(model, batches, attack, seed=7, restarts=restart + 1)
        assert result == pytest.approx(np.mean(held))


@pytest.mark.parametrize("make", [uniform_noise, gaussian_noise, pgd])
def test_starts_are_noise_as_a_fraction_of_eps(linear, data, make):
    """Of one image, they are the same alone and in the batch."""
    images, labels = 0.25 + 0.5 * data[0], data[1]
    attack = pgd(linear[0], EPS, 1, step_size=1e-9) if make is pgd else make(EPS)
    starts = random_starts(image_seeds(3, 1, np.arange(40)), images.shape[1:])
    assert -1 <= starts.min() < -0.999
    assert 0.999 < starts.max() < 1
    difference = attack(images, labels, starts).numpy() - images
    if make is gaussian_noise:
        spread = np.std(difference[np.abs(difference) < EPS * 0.999])
        assert spread == pytest.approx(0.88 * EPS / 2, rel=0.01)  # of a normal one cut at 2
        np.testing.assert_array_equal(np.sign(difference), np.sign(starts))
    else:
        np.testing.assert_allclose(difference, EPS * starts, atol=1e-6)
    alone = random_starts(image_seeds(3, 1, [9]), images.shape[1:])
    np.testing.assert_array_equal(
        attack(images[9:10], labels[9:10], alone)[0] - images[9], difference[9]
    )


def test_difference_of_logits_ratio_is_its_formula():
    """Croce and Hein, 2020, equation 6, image by image; the scale of the logits does not count."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 50)
    expected = []
    for z, y in zip(logits.astype(np.float64), labels, strict=True):
        highest = np.sort(z)[::-1]
        expected.append(-(z[y] - np.delete(z, y).max()) / (highest[0] - highest[2]))
    for scale in (1.0, 1e4):
        found = LOSSES["dlr"](tf.constant(labels), tf.constant(scale * logits))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_dlr_finds_what_saturated_logits_hide_from_cross_entropy(linear, data):
    """Logits 10,000 apart: the cross-entropy of a correct class has no gradient in float32."""
    _, w = linear
    inputs = keras.Input((28, 28, 1))
    dense = keras.layers.Dense(3, use_bias=False)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    columns = np.stack([np.zeros(784), 100 * w.ravel(), np.full(784, -100.0)], axis=1)
    dense.set_weights([columns.astype("float32")])
    images = data[0]
    labels = tf.argmax(model(images), axis=-1)

    def success_rate(loss):
        adversarial = pgd(model, 0.3, steps=20, loss=loss)(images, labels, SEED)
        return np.mean(tf.argmax(model(adversarial), axis=-1) != labels)

    assert success_rate("dlr") > success_rate("cross_entropy")


@pytest.mark.parametrize("noise", [uniform_noise, gaussian_noise])
def test_noise_keeps_its_bounds_and_repeats(data, noise):
    images = 0.25 + 0.5 * data[0]  # away from 0 and 1, where noise is cut off
    attacked = noise(EPS)(images, data[1], SEED).numpy()
    difference = attacked - images.numpy()
    spread = EPS / np.sqrt(3) if noise is uniform_noise else EPS / 2
    # Cut off at two standard deviations, a normal distribution keeps 0.96 of its spread.
    assert np.std(difference) == pytest.approx(spread, rel=0.06)
    assert np.abs(difference).max() == pytest.approx(EPS, rel=1e-3)
    assert abs(np.mean(difference)) < EPS / 50
    np.testing.assert_array_equal(attacked, noise(EPS)(images, data[1], SEED))
    edge = noise(EPS)(data[0], data[1], SEED).numpy()
    assert edge.min() >= 0
    assert edge.max() <= 1


def test_compiled_once_for_batches_of_all_sizes():
    traces = []

    class Traced(keras.layers.Dense):
        def call(self, x):
            traces.append(x.shape)
            return super().call(x)

    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, Traced(3)(keras.layers.Flatten()(inputs)))
    images, labels = np.random.default_rng(0).random((9, 4, 4, 1), np.float32), np.arange(9) % 3
    attack = pgd(model, 0.1, 3)
    attack(images, labels, images)
    logits(model, images)
    before = len(traces)
    for count in (5, 1, 3):
        found = attack(images[:count], labels[:count], images[:count])
        assert found.shape == (count, 4, 4, 1)
        assert logits(model, found).shape == (count, 3)
    assert len(traces) == before
