"""Batches: an epoch is a permutation, an augmented image a crop of its original."""

import numpy as np
import pytest
import tensorflow as tf

from tfsparse.errors import UsageError
from zoo import data


def collect(dataset):
    """Returns (images, labels) of all batches of a tf.data.Dataset."""
    found = list(dataset.as_numpy_iterator())
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def random_images(count, shape=(8, 6, 3)):
    """Returns random images and their indices, as labels."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return images, np.arange(count, dtype=np.int32)


@pytest.mark.parametrize("augment", [True, False])
def test_an_epoch_repeats_exactly_and_differs_from_others(augment):
    images, labels = random_images(40)

    def epoch(seed, epoch):
        return collect(data.training_batches(images, labels, 8, seed, epoch, augment))

    x, y = epoch(3, 5)
    again_x, again_y = epoch(3, 5)
    assert x.tobytes() == again_x.tobytes()
    assert y.tobytes() == again_y.tobytes()
    for other in ((3, 6), (4, 5), (5, 3)):
        other_x, other_y = epoch(*other)
        assert x.tobytes() != other_x.tobytes()
        assert y.tobytes() != other_y.tobytes()


def test_an_epoch_is_a_permutation_in_whole_batches():
    images, labels = random_images(40)
    for x, y in data.training_batches(images, labels, 8, seed=0, epoch=0):
        assert x.shape == (8, 8, 6, 3)
        assert x.dtype == tf.float32
        assert y.shape == (8,)
        assert y.dtype == tf.int32
    _, y = collect(data.training_batches(images, labels, 8, seed=0, epoch=0))
    assert sorted(y) == list(range(40))
    _, y = collect(data.training_batches(images, labels, 9, seed=0, epoch=0))
    assert len(y) == len(set(y)) == 36


def test_without_augmentation_images_are_permuted_only():
    images, labels = random_images(40)
    x, y = collect(data.training_batches(images, labels, 8, seed=0, epoch=0, augment=False))
    np.testing.assert_array_equal(x, images[y] / np.float32(255))


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_are_crops_of_the_padded_image_or_its_mirror(channels):
    images, labels = random_images(200, (8, 6, channels))
    x, y = collect(data.training_batches(images, labels, 50, seed=1, epoch=2))
    found = set()
    for crop, label in zip(np.rint(x * 255).astype(np.uint8), y, strict=True):
        padded = np.pad(images[label], ((4, 4), (4, 4), (0, 0)))
        matches = [
            (top, left, step)
            for top in range(9)
            for left in range(9)
            for step in (1, -1)
            if np.array_equal(crop, padded[top : top + 8, left : left + 6][:, ::step])
        ]
        assert len(matches) == 1
        found.update(matches)
    tops, lefts, steps = (set(column) for column in zip(*found, strict=True))
    assert tops == lefts == set(range(9))
    assert steps == {1, -1}


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(UsageError, match=r"batch of 41 .* 40 .*--batch_size"):
        data.training_batches(*random_images(40), 41, seed=0, epoch=0)


def test_batches_keep_order_and_remainder():
    images, labels = random_images(10)
    batches = list(data.batches(images, labels, 4))
    assert [len(y) for _, y in batches] == [4, 4, 2]
    x, y = collect(data.batches(images, labels, 4))
    np.testing.assert_array_equal(y, labels)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, images / np.float32(255))
