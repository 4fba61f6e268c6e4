"""A small trained network and its files, converted once for all tests of this folder."""

import keras
import numpy as np
import pytest

from tests.tflite.networks import residual_network
from tflite.convert import convert
from tflite.verify import BOUNDS

CALIBRATION = 100  # images


def train_and_convert(folder, images, labels):
    model = residual_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
    model.fit(images, labels, batch_size=64, epochs=1, verbose=0)
    model.save(folder / "network.keras")
    for precision in BOUNDS:
        content = convert(model, precision, images[:CALIBRATION])
        (folder / f"{precision}.tflite").write_bytes(content)


@pytest.fixture(scope="session")
def network_files(shared, fashion_mnist_training):
    """A folder with the network and its file in each precision."""
    return shared("network", lambda folder: train_and_convert(folder, *fashion_mnist_training))


@pytest.fixture(scope="session")
def network(network_files):
    return keras.saving.load_model(network_files / "network.keras")


@pytest.fixture(scope="session")
def calibration(fashion_mnist_training):
    return fashion_mnist_training[0][:CALIBRATION]


@pytest.fixture(scope="session")
def held_out(fashion_mnist):
    return tuple(array[:300] for array in fashion_mnist)


@pytest.fixture(scope="session")
def content(network_files):
    """The network's file in each precision."""
    return {precision: (network_files / f"{precision}.tflite").read_bytes() for precision in BOUNDS}


@pytest.fixture(scope="session")
def random_images():
    """Float32 [10, 28, 28, 1] in [0, 1]."""
    return np.random.default_rng(0).random((10, 28, 28, 1), np.float32)
