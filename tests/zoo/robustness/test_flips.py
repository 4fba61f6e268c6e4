"""Images whose class an attack flips, against a loop over single images in NumPy."""

import numpy as np
import pytest

from tests.zoo.robustness.known_models import CLASSES, images, linear
from tfsparse.starts import image_seeds, random_starts
from zoo.robustness import flips

EPS = 0.15


@pytest.fixture(scope="module")
def setting():
    """Logits and an attack (noise), 120 images, and labels of which a quarter are wrong."""
    _, weights = linear()
    x = images(120)

    def logits(x):
        return x.reshape(len(x), -1) @ weights

    def perturb(x, labels, seeds):
        return x + EPS * np.sign(random_starts(seeds, x.shape[1:]))

    labels = logits(x).argmax(axis=1)
    labels[::4] = (labels[::4] + 1) % CLASSES
    return logits, perturb, x, labels


def one_by_one(logits, perturb, x, labels):
    """Returns {index: (predicted class, confidences before and after)} of flipped images."""
    found = {}
    for index in np.flatnonzero(logits(x).argmax(axis=1) == labels):
        one = slice(index, index + 1)
        adversarial = perturb(x[one], labels[one], image_seeds(3, 0, np.array([index])))
        before, after = (np.exp(np.float64(logits(each)[0])) for each in (x[one], adversarial))
        if after.argmax() != labels[index]:
            found[index] = (
                after.argmax(),
                (before / before.sum()).max(),
                (after / after.sum()).max(),
            )
    return found


@pytest.mark.parametrize("count", [5, 500])
def test_flips_are_the_first_images_that_the_attack_flips(setting, count):
    logits, perturb, x, labels = setting
    expected = one_by_one(logits, perturb, x, labels)
    assert 8 < len(expected) < 80
    indices = list(expected)[:count]
    found = flips.find_flips(logits, perturb, x, labels, seed=3, count=count)
    np.testing.assert_array_equal(found.images, x[indices])
    np.testing.assert_array_equal(found.labels, labels[indices])
    assert (logits(found.images).argmax(axis=1) == found.labels).all()
    assert (logits(found.adversarial).argmax(axis=1) == found.predicted).all()
    assert (found.predicted != found.labels).all()
    assert np.abs(found.adversarial - found.images).max() <= EPS + 1e-6
    columns = found.predicted, found.confidence, found.adversarial_confidence
    for column, values in zip(columns, zip(*map(expected.get, indices), strict=True), strict=True):
        np.testing.assert_allclose(column, values, rtol=1e-4)


def test_nothing_flips_without_an_attack(setting):
    logits, _, x, labels = setting
    assert flips.find_flips(logits, lambda x, *_: x, x, labels, seed=3) is None


def test_success_rate_is_of_the_images_that_were_right():
    """A wrong image that an attack corrects does not count."""
    clean = np.array([True, True, True, True, False, False])
    attacked = np.array([True, False, False, False, True, False])
    assert flips.success_rate(clean, attacked) == 0.75
    assert flips.success_rate(np.zeros(3, bool), np.zeros(3, bool)) is None
