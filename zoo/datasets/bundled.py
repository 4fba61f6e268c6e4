"""The images that come with this package, without tensorflow-datasets. NumPy only.

tensorflow-datasets prepares the same images, and keeps them in the order of their hashes. Read from
here they come in that order, so that a run can go on where tensorflow-datasets is installed.
"""

import hashlib
import pathlib

import numpy as np

from tfsparse import optional

NAME, VERSION = "fashion_mnist_small", "1.0.0"
ARCHIVE = pathlib.Path(__file__).parent / NAME / f"{NAME}.npz"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class Bundled:
    """Fashion-MNIST cut down; it has the interface of `zoo.data.Dataset`."""

    def __init__(self):
        self.name = NAME
        self.class_names = list(CLASSES)
        self.num_classes = len(CLASSES)
        self._parts = _parts()
        self.image_shape = self._parts["train"][0].shape[1:]
        self.sizes = {name: len(labels) for name, (_, labels) in self._parts.items()}

    def read(self, split, count=None):
        """Reads a split; see `zoo.data.Dataset.read`."""
        images, labels = self._parts[split]
        return images[:count], labels[:count]

    def identity(self):
        """Returns what tells its training images from others: see `zoo.data.Dataset.identity`."""
        return f"{NAME}/{VERSION}"


def open_without_tensorflow(name, image_size=None):
    """Returns the `Bundled` data set where tensorflow-datasets is not installed.

    Raises:
        UsageError: if another one is asked for, or another size of images.
    """
    sizes = (None, 28)
    if name != NAME or image_size not in sizes:
        what = f"The data set {name!r}" if name != NAME else f"--image_size={image_size}"
        packages = {"tensorflow": "tensorflow", "tensorflow_datasets": "tensorflow-datasets"}
        optional.require(what, **packages)
    return Bundled()


def _parts():
    """Returns {split: (images, labels)}; the last tenth of the training images is held out."""
    parts = {}
    with np.load(ARCHIVE) as arrays:
        for split in ("train", "test"):
            labels = arrays[f"{split}_labels"].astype(np.int32)
            order = _order(split, len(labels))
            parts[split] = arrays[f"{split}_images"][order][..., np.newaxis], labels[order]
    images, labels = parts["train"]
    held_out = len(labels) * 9 // 10
    parts["validation"] = images[held_out:], labels[held_out:]
    parts["train"] = images[:held_out], labels[:held_out]
    return parts


def _order(split, count):
    """Returns the order in which tensorflow-datasets keeps examples of the keys 0, 1, ..."""
    return sorted(range(count), key=lambda key: hashlib.md5(f"{split}{key}".encode()).digest())
