"""Data of one's own: a folder of images or an .npz file, as `zoo.data.open_dataset` opens it.

Needs neither TensorFlow nor tensorflow-datasets.
"""

import hashlib
import os
import pathlib

import numpy as np

from tfsparse.errors import UsageError
from zoo.archives import Archive
from zoo.folders import Folder

MAX_BYTES = 8e9  # the memory that a split may take, as uint8
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.1  # of a folder without test images


def public_name(name):
    """Returns the name of a data set for others: of a path, the last part.

    TFDS's names may have one "/" as well, but do not begin like a path.
    """
    path = os.path.abspath(os.path.expanduser(name))
    is_path = os.path.exists(path) or name.startswith((".", "/", "~")) or name.count("/") > 1
    return os.path.basename(path) if is_path else name


class OwnDataset:
    """A folder of images or an .npz file; it has the interface of `zoo.data.Dataset`.

    An image's hash, which follows from its path in the folder or its index in the array and from
    nothing else, is a number in [0, 1). It decides which split an image belongs to: so an image
    stays where it is when others come or go. Without test images of the authors', those whose hash
    is below 0.1 are the test split; the next `validation_fraction` is the validation split. Within
    a split, images are in the descending order of their hashes, which mixes the classes. So the
    test images, and the first training images, are the same for any `validation_fraction`.

    A folder that has only test images has none in the other splits; reading these raises a
    `UsageError`.

    Args:
        name: of the folder or file, as the user gave it.
        image_size: height and width to which all images are resized, or None.
        validation_fraction: in (0, 0.5]; None for a tenth.

    Raises:
        UsageError: if it cannot be used; see `zoo.folders` and `zoo.archives`.
    """

    def __init__(
        self, name: str, image_size: int | None = None, validation_fraction: float | None = None
    ) -> None:
        fraction = VALIDATION_FRACTION if validation_fraction is None else validation_fraction
        if not 0 < fraction <= 0.5:
            raise UsageError(f"--validation_fraction must be in (0, 0.5]. Received: {fraction}")
        self._source = (Archive if is_archive(name) else Folder)(os.path.expanduser(name))
        self.name = name
        height, width, channels = self._source.image_shape
        if image_size:
            height = width = image_size
        elif height is None:
            raise UsageError(
                f"{self._source.vary} Give --image_size, the height and width to resize them to."
            )
        self.image_shape = (height, width, channels)
        self.class_names = self._source.class_names
        self.num_classes = len(self.class_names)
        self._indices = _split(self._source.keys, self._source.is_test, fraction)
        self.sizes = {split: len(indices) for split, indices in self._indices.items()}
        has_only_test = self._source.is_test is not None and self._source.is_test.all()
        if not has_only_test and not all(self.sizes.values()):
            raise UsageError(f"{name} has too few images to split: {self.sizes}. Add some.")

    def read(self, split: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads a split; see `zoo.data.Dataset.read`."""
        if not self.sizes[split]:
            raise UsageError(
                f"{self.name} has only test images, to evaluate a model on. Put a folder train "
                "beside its folder test."
            )
        indices = self._indices[split][:count]
        check_memory(self.name, split, (len(indices), *self.image_shape))
        images = self._source.read(indices, self.image_shape, f"{self.name} {split}")
        return images, self._source.labels[indices]

    def identity(self) -> str:
        """Returns the sha256 of the training and validation images, as they are stored, a str."""
        indices = np.sort(np.concatenate([self._indices[part] for part in ("train", "validation")]))
        digest = hashlib.sha256()
        for index, stored in zip(indices, self._source.hashes(indices), strict=True):
            digest.update(stored + os.fsencode(self._source.keys[index]) + b"\0")
        return digest.hexdigest()


def is_own(name):
    """Whether a data set's name is that of a folder or file, and not one of tensorflow-datasets."""
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        # tensorflow-datasets may have prepared the set of that name here.
        depths = ("*/dataset_info.json", "*/*/dataset_info.json")
        return not any(found for depth in depths for found in pathlib.Path(path).glob(depth))
    return os.path.isfile(path) or is_archive(name) or name.startswith((".", "/", "~"))


def is_archive(name):
    """Whether a data set's name is that of a file; raises a `UsageError` unless it ends in .npz."""
    path = os.path.expanduser(name)
    if os.path.isfile(path) and not name.endswith(".npz"):
        raise UsageError(
            f"--dataset must be a folder, or a file that ends in .npz. Received: {name}"
        )
    return name.endswith(".npz") and not os.path.isdir(path)


def check_memory(name, split, shape):
    """Raises a `UsageError` if uint8 images of `shape` [n, h, w, c] take too much memory."""
    size = np.prod(shape, dtype=float)
    if size > MAX_BYTES:
        raise UsageError(
            f"The {split} images of {name!r} take {size / 1e9:.1f} GB of memory at "
            f"{shape[1]}x{shape[2]}, but at most {MAX_BYTES / 1e9:.0f} GB are allowed. "
            "Give a smaller --image_size."
        )


def _split(keys, is_test, validation_fraction):
    """Returns {"train", "validation", "test": int array}, the images of each split."""
    hashes = np.array([_hash(key) for key in keys])
    below = 0.0
    if is_test is None:
        is_test, below = hashes < TEST_FRACTION, TEST_FRACTION
    held_out = ~is_test & (hashes < below + validation_fraction)
    splits = {"train": ~is_test & ~held_out, "validation": held_out, "test": is_test}
    order = np.argsort(-hashes, kind="stable")
    return {split: order[chosen[order]] for split, chosen in splits.items()}


def _hash(key):
    """Returns a number in [0, 1) that follows from a str alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:6], "big") / 2**48
