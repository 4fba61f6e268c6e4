"""Batches made where Keras computes, against those of tf.data, and the bundled images by file."""

import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import backend
from tfsparse.batches import PlannedBatches
from zoo import data
from zoo.augmentation import Slices
from zoo.datasets.bundled import Bundled


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (23, 9, 8, 3)).astype(np.uint8), np.arange(23, dtype=np.int32)


@pytest.mark.parametrize("augment", [True, False])
def test_batches_are_those_of_tf_data(images, augment, monkeypatch):
    arguments = (*images, 5, 3, 1, augment, 1)
    expected = list(data.training_batches(*arguments))
    monkeypatch.setattr(backend, "NAME", "jax")
    planned = data.training_batches(*arguments)
    assert isinstance(planned, PlannedBatches)
    assert len(planned) == len(expected) == 3
    for ours, theirs in zip(planned, expected, strict=True):
        # Compiled, a division may be a multiplication by the inverse.
        np.testing.assert_allclose(to_numpy(ours[0]), to_numpy(theirs[0]), rtol=2e-7)
        np.testing.assert_array_equal(to_numpy(ours[1]), to_numpy(theirs[1]))


def test_slices_are_the_batches_of_tf_data(images):
    ours, expected = Slices(*images, 5), list(data.batches(*images, 5))
    assert len(ours) == len(expected) == 5
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])


def test_bundled_images_are_those_of_tensorflow_datasets(data_dir):
    ours, expected = Bundled(), data.open_dataset("fashion_mnist_small", data_dir)
    for name in ("name", "image_shape", "num_classes", "class_names", "sizes"):
        assert getattr(ours, name) == getattr(expected, name)
    assert ours.identity() == expected.identity()
    for split in ("train", "validation", "test"):
        for mine, theirs in zip(ours.read(split), expected.read(split), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(ours.read("test", 7)[1], expected.read("test", 7)[1])
