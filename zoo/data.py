"""Data: image-classification sets as arrays, and batches of them.

    dataset = open_dataset("fashion_mnist_small")
    images, labels = dataset.read("train")
    for epoch in range(epochs):
        for x, y in training_batches(images, labels, batch_size=128, seed=0, epoch=epoch):
            ...

`fashion_mnist_small` comes with the package and needs no network; `tiny_imagenet` is also defined
in this package. Every other name is tensorflow-datasets' own, or that of a folder of images or of
an .npz file; see zoo/own_data.py.
"""

import hashlib
import os
from typing import Any

import numpy as np
import tqdm
from keras import ops

from tfsparse import backend, optional
from tfsparse.batches import PlannedBatches
from tfsparse.errors import UsageError
from zoo import augmentation
from zoo.augmentation import PADDING, as_float
from zoo.datasets import bundled
from zoo.own_data import OwnDataset, check_memory, is_own

if optional.are_installed("tensorflow", "tensorflow_datasets"):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from zoo.datasets.preparation import damage_reported, find_builder, prepare


class Dataset:
    """An image-classification data set that is prepared on this machine.

    The validation split is the last tenth of the set's training split; all choices made in training
    are based on it. The test split is the one that the set's authors publish with labels.

    Attributes:
        name: the name that it was opened by.
        image_shape: (height, width, channels) of every image.
        num_classes: the number of classes.
        class_names: their names, in the order of the labels.
        sizes: a dict with the number of images of "train", "validation", and "test".
    """

    def __init__(self, name: str, builder: Any, image_size: int | None = None) -> None:
        image, label = _image_and_label(name, builder.info)
        height, width, channels = image.shape
        if image_size:
            height = width = image_size
        self.name = name
        self.image_shape = (height, width, channels)
        self.num_classes = label.num_classes
        self.class_names = list(label.names)
        self._builder = builder
        self._resize = self.image_shape != tuple(image.shape)
        self._slices = _slices(name, builder)
        self.sizes = {
            split: builder.info.splits[part].num_examples for split, part in self._slices.items()
        }
        if not all(self.sizes.values()):
            raise UsageError(
                f"The data set {name!r} has too few images: {self.sizes}. Choose another --dataset."
            )

    def read(self, split: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads a split.

        Args:
            split: "train", "validation", or "test".
            count: number of images to read, the first ones; None reads all.

        Returns:
            `(images, labels)`: uint8 [n, height, width, channels] and int32 [n], always in the same
            order.

        Raises:
            UsageError: if the images take more than 8 GB or have no labels.
        """
        shape = (min(self.sizes[split], count or self.sizes[split]), *self.image_shape)
        check_memory(self.name, split, shape)
        images = np.empty(shape, np.uint8)
        labels = np.empty(shape[0], np.int32)
        start = 0
        progress = tqdm.tqdm(total=shape[0], desc=f"{self.name} {split}", delay=1, disable=None)
        with progress, damage_reported(self._builder):
            for x, y in self._batches(split, shape[0]):
                images[start : start + len(x)] = x
                labels[start : start + len(x)] = y
                start += len(x)
                progress.update(len(x))
        if (labels < 0).any():
            raise UsageError(
                f"The {split} images of {self.name!r} are published without labels. "
                "Choose another --dataset."
            )
        return images, labels

    def identity(self) -> str:
        """Returns what tells its training images from others, a str: name and version."""
        return self._builder.info.full_name

    def _batches(self, split, count):
        dataset = self._builder.as_dataset(
            split=self._slices[split],
            as_supervised=True,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        if self._resize:
            dataset = dataset.map(self._resized, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.take(count).batch(256).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()

    def _resized(self, image, label):
        image = tf.image.resize(image, self.image_shape[:2], antialias=True)
        return tf.saturate_cast(tf.round(image), tf.uint8), label


def open_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    validation_fraction: float | None = None,
) -> Dataset | OwnDataset:
    """Opens a data set; one of tensorflow-datasets is downloaded and prepared if necessary.

    Args:
        name: of tensorflow-datasets, such as "fashion_mnist_small", "cifar10", "tiny_imagenet", or
            "imagenette/160px"; or the path of a folder of images or of an .npz file.
        data_dir: where tensorflow-datasets keeps prepared data; None is its own default.
        image_size: resizes every image to this height and width (bilinear, antialiased). Required
            if a set's images vary in size.
        validation_fraction: of a folder or file, the share of validation images; see
            `zoo.own_data.OwnDataset`.

    Returns:
        A `Dataset`, or a `zoo.own_data.OwnDataset`.

    Raises:
        UsageError: if there is no such data set, it does not consist of labeled images, or it
            cannot be prepared (without a network, within seconds).
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"--image_size must be at least 1. Received: {image_size}")
    if is_own(name):
        return OwnDataset(name, image_size, validation_fraction)
    if validation_fraction is not None:
        raise UsageError(
            f"--validation_fraction has no effect with the data set {name!r} of "
            f"tensorflow-datasets. Received: {validation_fraction}"
        )
    if not optional.are_installed("tensorflow", "tensorflow_datasets"):
        return bundled.open_without_tensorflow(name, image_size)
    builder = find_builder(name, data_dir)
    # Before preparing it, which may take hours.
    image, _ = _image_and_label(name, builder.info)
    if None in image.shape and image_size is None:
        raise UsageError(
            f"The images of {name!r} vary in size. Give --image_size, the height and width to "
            "resize them to."
        )
    if not builder.is_prepared():
        prepare(name, builder)
        # A new builder reads what is on the disk now.
        builder = find_builder(name, data_dir)
    return Dataset(name, builder, image_size)


def training_batches(
    images: Any,
    labels: Any,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: bool = True,
    first: int = 0,
) -> Any:
    """One epoch of training: every image at most once, in whole batches, shuffled and augmented.

    Order and augmentation depend only on `seed` and `epoch`, so an epoch repeats exactly. The
    augmentation is the standard one for small images: padding with zeros, 4 pixels wide; a random
    crop of the original size; mirroring half of the time.

    Args:
        images: uint8 [n, height, width, channels]. A tensor is used as it is, an array is copied.
        labels: int32 [n].
        batch_size: images in a batch; the last n % batch_size of the permutation are left out.
        seed: int, 0 or more.
        epoch: int, 0 or more.
        augment: False leaves the images as they are.
        first: number of batches to skip at the beginning, to continue an epoch.

    Returns:
        n // batch_size - first batches: float32 [batch_size, height, width, channels] in [0, 1] and
        int32 [batch_size]. A `tf.data.Dataset` or, under another backend than TensorFlow, a
        `tfsparse.batches.PlannedBatches`, which makes them on the accelerator.

    Raises:
        UsageError: if `batch_size` is larger than n.
    """
    count = len(images)
    if batch_size > count:
        raise UsageError(
            f"A batch of {batch_size} cannot be filled with {count} training images. "
            "Give a smaller --batch_size."
        )
    rng = np.random.default_rng([seed, epoch])
    # For each position in the epoch: an image, where its crop starts, and whether it is mirrored.
    order = rng.permutation(count)
    offsets = rng.integers(0, 2 * PADDING + 1, size=(count, 2))
    mirrored = rng.integers(0, 2, size=count).astype(bool)
    images, labels = resident(images, labels)  # by reference for tf.data, not in its graph

    def batch(chosen, offsets, mirrored):
        x = tf.gather(images, chosen)
        if augment:
            x = _crop(x, offsets, mirrored)
        return as_float(x), tf.gather(labels, chosen)

    whole = count - count % batch_size
    parts = (a[:whole].reshape(-1, batch_size, *a.shape[1:]) for a in (order, offsets, mirrored))
    plan = tuple(part[first:] for part in parts)
    if backend.NAME != "tensorflow":
        make = augmentation.augmented if augment else augmentation.plain
        return PlannedBatches(make, (images, labels), plan)
    return (
        tf.data.Dataset.from_tensor_slices(plan)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def batches(images: Any, labels: Any, batch_size: int) -> Any:
    """All images in order; the last batch may be smaller.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        batch_size: images in every batch but the last.

    Returns:
        float32 [b, height, width, channels] in [0, 1] and int32 [b], as a `tf.data.Dataset`; under
        another backend than TensorFlow, NumPy arrays or tensors, as another iterable of known
        length.
    """
    count = len(images)
    if backend.NAME != "tensorflow":
        return augmentation.Slices(images, labels, batch_size)
    images, labels = resident(images, labels)  # by reference for tf.data, not in its graph

    def batch(start):
        return as_float(images[start : start + batch_size]), labels[start : start + batch_size]

    starts = tf.data.Dataset.range(0, count, batch_size)
    return starts.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def resident(*arrays: Any) -> tuple[Any, ...]:
    """Returns arrays as a tuple of tensors that stay where batches are made.

    That is the accelerator's memory or, in TensorFlow, the computer's. The functions above copy
    arrays each time, but not tensors. A copy is only freed when Python looks for cycles, which can
    be many epochs later, so pass arrays that are used more than once through this function first.
    """
    if backend.NAME != "tensorflow":
        return tuple(map(ops.convert_to_tensor, arrays))
    with tf.device("CPU"):
        return tuple(tf.convert_to_tensor(array) for array in arrays)


def hash_of_images(images: np.ndarray, labels: np.ndarray) -> str:
    """Returns the sha256, 64 hexadecimal digits, of uint8 images and integer labels."""
    return hashlib.sha256(images.tobytes() + labels.astype("<i4").tobytes()).hexdigest()


def _crop(images, offsets, mirrored):
    """Crops padded images [b, h, w, c] at `offsets`, int [b, 2]; mirrors the `mirrored` ones."""
    height, width = images.shape[1:3]
    around = [PADDING, PADDING]
    images = tf.pad(images, [[0, 0], around, around, [0, 0]])
    rows = offsets[:, :1] + tf.range(height, dtype=offsets.dtype)
    columns = tf.range(width, dtype=offsets.dtype)
    columns = offsets[:, 1:] + tf.where(mirrored[:, tf.newaxis], columns[::-1], columns)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _image_and_label(name, info):
    """Returns the image feature and the label feature of a data set."""
    keys = info.supervised_keys
    if isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        image, label = (info.features[key] for key in keys)
        if (
            isinstance(image, tfds.features.Image)
            and isinstance(label, tfds.features.ClassLabel)
            and image.np_dtype == np.uint8
            and image.shape[2] is not None
        ):
            return image, label
    raise UsageError(
        f"The data set {name!r} does not consist of 8-bit images with one class label each (its "
        f"supervised keys: {keys}). Choose another --dataset."
    )


def _slices(name, builder):
    """Returns the tensorflow-datasets slice for each of this module's splits."""
    splits = builder.info.splits
    if "train" not in splits:
        raise UsageError(
            f"The data set {name!r} has no training split, only {', '.join(splits)}. "
            "Choose another --dataset."
        )
    for held_out in ("test", "validation"):
        if held_out in splits and _is_labelled(builder, held_out):
            return {"train": "train[:90%]", "validation": "train[90%:]", "test": held_out}
    return {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}


def _is_labelled(builder, split):
    """Whether a split has labels; competitions keep those of their test images secret."""
    with damage_reported(builder):
        first = builder.as_dataset(split=f"{split}[:1]", as_supervised=True)
        return all(int(label) >= 0 for _, label in first)
