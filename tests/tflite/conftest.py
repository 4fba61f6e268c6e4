"""A small trained network and its files, converted once for all tests of this folder."""

import keras
import numpy as np
import pytest

from tests.tflite.networks import residual_network
from tflite.convert import convert
from tflite.verify import BOUNDS


@pytest.fixture(scope="session")
def network(fashion_mnist_training):
    images, labels = fashion_mnist_training
    model = residual_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(images, labels, batch_size=64, epochs=1, verbose=0)
    return model


@pytest.fixture(scope="session")
def calibration(fashion_mnist_training):
    return fashion_mnist_training[0][:100]


@pytest.fixture(scope="session")
def held_out(fashion_mnist):
    return tuple(array[:300] for array in fashion_mnist)


@pytest.fixture(scope="session")
def content(network, calibration):
    """The network's file in each precision."""
    return {precision: convert(network, precision, calibration) for precision in BOUNDS}


@pytest.fixture(scope="session")
def random_images():
    """Float32 [10, 28, 28, 1] in [0, 1]."""
    return np.random.default_rng(0).random((10, 28, 28, 1), np.float32)
