"""Attacks against the closed form that a linear model has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsparse import UsageError
from tfsparse.attacks import LOSSES, fgsm, gaussian_noise, pgd, uniform_noise
from tfsparse.evaluation import accuracy

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


def test_restarts_count_what_fools_once(linear, data):
    """An attack that inverts other images at each restart."""
    model, _ = linear
    images, labels = (array.numpy() for array in data)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    right, right_inverted = (
        np.argmax(model(seen), axis=-1) == labels for seen in (images, 1 - images)
    )

    def attack(images, labels, seed):
        inverted = tf.range(len(labels)) % 4 == seed[0]
        return tf.where(inverted[:, None, None, None], 1 - images, images)

    for restarts in (1, 2, 4):
        attacked = np.arange(len(labels)) % 4 < restarts
        held = np.where(attacked, right_inverted & (right | (restarts == 1)), right)
        result = accuracy(model, batches, attack, restarts=restarts)
        assert result == pytest.approx(np.mean(held))


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
