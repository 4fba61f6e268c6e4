"""The one interface to data: any image-classification set of tensorflow-datasets, as arrays.

    dataset = open_dataset("fashion_mnist_small")
    images, labels = dataset.read("train")
    for epoch in range(epochs):
        for x, y in training_batches(images, labels, batch_size=128, seed=0, epoch=epoch):
            ...

`fashion_mnist_small` comes with the package and needs no network; `tiny_imagenet` is defined here
too; every other name is tensorflow-datasets' own.
"""

import contextlib
import difflib
import sys

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core.download import resource

from tfsparse.errors import UsageError

# Importing a builder registers it with tensorflow-datasets.
from zoo.datasets import fashion_mnist_small, tiny_imagenet  # noqa: F401

# What a split may take in memory, as uint8.
MAX_BYTES = 8e9
# Augmentation shifts an image by up to this many pixels each way.
PADDING = 4


class Dataset:
    """An image-classification data set that is prepared on this machine.

    The validation split is held out of the set's training split (its last tenth) and serves every
    choice made in training. The test split is the one that the set's authors publish with labels.

    Attributes:
        name: the name it was opened by.
        image_shape: (height, width, channels) of every image.
        num_classes: the number of classes.
        class_names: their names, in the order of the labels.
        sizes: a dict with the number of images of "train", "validation" and "test".
    """

    def __init__(self, name, builder, image_size=None):
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

    def read(self, split, count=None):
        """Reads a split.

        Args:
            split: "train", "validation" or "test".
            count: read only so many images, the first ones; None reads all.

        Returns:
            `(images, labels)`: uint8 [n, height, width, channels] and int32 [n], the same order
            every time.

        Raises:
            UsageError: where the images take more than 8 GB, or have no labels.
        """
        shape = (min(self.sizes[split], count or self.sizes[split]), *self.image_shape)
        size = np.prod(shape, dtype=float)
        if size > MAX_BYTES:
            raise UsageError(
                f"The {split} images of {self.name!r} take {size / 1e9:.1f} GB of memory at "
                f"{shape[1]}x{shape[2]}, and at most {MAX_BYTES / 1e9:.0f} GB are allowed. "
                "Give a smaller --image_size."
            )
        images = np.empty(shape, np.uint8)
        labels = np.empty(shape[0], np.int32)
        start = 0
        progress = tqdm.tqdm(total=shape[0], desc=f"{self.name} {split}", delay=1, disable=None)
        with progress, _damage_is_said(self._builder):
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


def open_dataset(name, data_dir=None, image_size=None):
    """Opens a data set by its tensorflow-datasets name; downloads and prepares it if need be.

    Args:
        name: such as "fashion_mnist_small", "cifar10", "tiny_imagenet" or "imagenette/160px".
        data_dir: where tensorflow-datasets keeps prepared data; None is its own default.
        image_size: resizes every image to this height and width (bilinear, antialiased). Needed
            where a set's images vary in size.

    Returns:
        A `Dataset`.

    Raises:
        UsageError: where there is no such data set, it is not one of labelled images, or it
            cannot be prepared (which, without a network, shows within seconds).
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"--image_size is a number of pixels, 1 or more. Received: {image_size}")
    builder = _builder(name, data_dir)
    # Before preparing it, which may take hours.
    image, _ = _image_and_label(name, builder.info)
    if None in image.shape and image_size is None:
        raise UsageError(
            f"The images of {name!r} vary in size. Give --image_size, the height and width to "
            "resize them to."
        )
    if not builder.is_prepared():
        _prepare(name, builder)
        # A new builder reads from disk what is there now.
        builder = _builder(name, data_dir)
    return Dataset(name, builder, image_size)


def training_batches(images, labels, batch_size, seed, epoch, augment=True, first=0):
    """One epoch of training: every image at most once, in whole batches, shuffled and augmented.

    Order and augmentation depend on `seed` and `epoch` alone, so that an epoch repeats exactly.
    The augmentation is the standard one for small images: zeros around the image, 4 pixels wide;
    a random crop of the original size; its mirror image half of the time.

    Args:
        images: uint8 [n, height, width, channels]. A tensor is used as it is, an array is copied.
        labels: int32 [n].
        batch_size: images in a batch; the n % batch_size last of the permutation are left out.
        seed: int, 0 or more.
        epoch: int, 0 or more.
        augment: False leaves the images as they are.
        first: number of batches at the beginning that are left out, for an epoch that goes on.

    Returns:
        A `tf.data.Dataset` of n // batch_size - first batches: float32 [batch_size, height, width,
        channels] in [0, 1] and int32 [batch_size].

    Raises:
        UsageError: where `batch_size` is larger than n.
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
    images, labels = on_cpu(images, labels)  # by reference for tf.data, not in its graph

    def batch(chosen, offsets, mirrored):
        x = tf.gather(images, chosen)
        if augment:
            x = _crop(x, offsets, mirrored)
        return as_float(x), tf.gather(labels, chosen)

    whole = count - count % batch_size
    parts = (a[:whole].reshape(-1, batch_size, *a.shape[1:]) for a in (order, offsets, mirrored))
    plan = tf.data.Dataset.from_tensor_slices(tuple(part[first:] for part in parts))
    return plan.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def batches(images, labels, batch_size):
    """All images in order, the last batch as small as it comes.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        batch_size: images in every batch but the last.

    Returns:
        A `tf.data.Dataset` of float32 [b, height, width, channels] in [0, 1] and int32 [b].
    """
    count = len(images)
    images, labels = on_cpu(images, labels)  # by reference for tf.data, not in its graph

    def batch(start):
        return as_float(images[start : start + batch_size]), labels[start : start + batch_size]

    starts = tf.data.Dataset.range(0, count, batch_size)
    return starts.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def on_cpu(*arrays):
    """Returns arrays as a tuple of tensors in the computer's memory, not on a GPU.

    The functions above copy arrays each time and do not copy tensors. What they copy is not free
    before Python looks for cycles, which can be many epochs later: what is used more than once
    should be put here first.
    """
    with tf.device("CPU"):
        return tuple(tf.convert_to_tensor(array) for array in arrays)


def as_float(images):
    """Returns 8-bit images, a NumPy array or a tensor, as float32 in [0, 1]."""
    if isinstance(images, np.ndarray):
        return images.astype(np.float32) / 255
    return tf.cast(images, tf.float32) / 255


def _crop(images, offsets, mirrored):
    """Crops zero-padded images [b, h, w, c] at `offsets` int [b, 2]; mirrors where `mirrored`."""
    height, width = images.shape[1:3]
    around = [PADDING, PADDING]
    images = tf.pad(images, [[0, 0], around, around, [0, 0]])
    rows = offsets[:, :1] + tf.range(height, dtype=offsets.dtype)
    columns = tf.range(width, dtype=offsets.dtype)
    columns = offsets[:, 1:] + tf.where(mirrored[:, tf.newaxis], columns[::-1], columns)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _builder(name, data_dir):
    """Returns the tensorflow-datasets builder called `name`."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name.split("/")[0], tfds.list_builders(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else "See tfds.list_builders()."
        raise UsageError(f"There is no data set {name!r} in tensorflow-datasets. {hint}") from error
    except Exception as error:
        # A configuration or version that there is not, a name that cannot be parsed, or damaged
        # files, in each builder's own way.
        raise UsageError(
            f"Cannot open the data set {name!r}; give --dataset as NAME or NAME/CONFIG. "
            f"{type(error).__name__}: {_one_line(error)[:200]}"
        ) from error


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
        f"The data set {name!r} is not one of 8-bit images with one class label each (its "
        f"supervised keys: {keys}). Choose another --dataset."
    )


def _slices(name, builder):
    """Returns the tensorflow-datasets slice for each of this module's splits."""
    splits = builder.info.splits
    if "train" not in splits:
        raise UsageError(
            f"The data set {name!r} has no training split, but {', '.join(splits)}. "
            "Choose another --dataset."
        )
    for held_out in ("test", "validation"):
        if held_out in splits and _is_labelled(builder, held_out):
            return {"train": "train[:90%]", "validation": "train[90%:]", "test": held_out}
    return {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}


def _is_labelled(builder, split):
    """Whether a split has labels; competitions keep those of their test images to themselves."""
    with _damage_is_said(builder):
        first = builder.as_dataset(split=f"{split}[:1]", as_supervised=True)
        return all(int(label) >= 0 for _, label in first)


@contextlib.contextmanager
def _damage_is_said(builder):
    """Turns what TensorFlow says of damaged files into a `UsageError`."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UsageError(
            f"The data set {builder.name!r} in {builder.data_dir} is damaged: "
            f"{_one_line(error.message)[:200]} Remove that folder, and it is prepared again."
        ) from error


def _prepare(name, builder):
    """Downloads and prepares the data set of `builder`."""
    _check_downloads(name, builder)
    _check_writable(builder.data_dir_root)
    tfds.display_progress_bar(sys.stderr.isatty())
    # Google's bucket of prepared sets is closed; asking it takes minutes without a network.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        # It announces itself on stdout, which is for a command's results.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(download_config=config)
    # Each builder is code of its own and fails in its own way.
    except Exception as error:
        # Another process, such as another worker, may have prepared it first.
        if not builder.is_prepared():
            raise UsageError(
                f"Cannot prepare the data set {name!r} in {builder.data_dir_root}: "
                f"{type(error).__name__}: {_one_line(error)} {_by_hand(name, builder)}"
            ) from error


def _check_writable(folder):
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except (OSError, tf.errors.OpError) as error:
        raise UsageError(
            f"Cannot write to --data_dir={folder}: {_one_line(error)}. Choose a folder that can "
            "be written to."
        ) from error


def _check_downloads(name, builder):
    """Raises a UsageError where a file has to be downloaded and cannot be.

    tensorflow-datasets itself retries for minutes before it says so.
    """
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        # It finds out by itself, at once, and says where to get the files.
        return
    missing = _missing_files(builder)
    # A builder lists the files of all its configurations: where some are here, they are taken to
    # be those of this one.
    if builder.builder_config and len(missing) < len(builder.url_infos or {}):
        return
    url = next((url for url in missing if url.startswith("http")), None)
    if not url:
        return
    try:
        # Proxies answer with one of these in place of a server that they cannot reach.
        reachable = requests.head(url, timeout=5, allow_redirects=True).status_code < 500
    except requests.RequestException:
        reachable = False
    if not reachable:
        raise UsageError(
            f"The data set {name!r} is not prepared in {builder.data_dir_root}, and {url} cannot "
            f"be reached to download it. {_by_hand(name, builder)}"
        )


def _missing_files(builder):
    """Returns the URLs, with sizes and checksums, of the files that are yet to be downloaded."""
    downloads = builder.data_dir_root / "downloads"

    def is_here(url, file):
        cached = downloads / builder.name / resource.get_dl_fname(url, file.checksum)
        return cached.exists() or (
            file.filename and (downloads / "manual" / file.filename).exists()
        )

    infos = builder.url_infos or {}
    return {url: file for url, file in infos.items() if not is_here(url, file)}


def _by_hand(name, builder):
    """Returns how to prepare a data set where it cannot be downloaded."""
    folder = builder.data_dir_root
    module = type(builder).__module__
    ours = ", " + module if module.startswith("zoo.") else ""
    text = (
        'On a machine with internet, run: python -c "import tensorflow_datasets as tfds'
        f"{ours}; tfds.builder({name!r}, data_dir='data').download_and_prepare()\" "
        f"and copy the folder data/{builder.name} into {folder}."
    )
    files = [
        f"{file.filename} (from {url})"
        for url, file in _missing_files(builder).items()
        if file.filename
    ]
    # Some sets consist of hundreds of files.
    if 0 < len(files) <= 8:
        text += f" Or put its files into {folder / 'downloads' / 'manual'}: {', '.join(files)}."
    return text


def _one_line(error):
    return " ".join(str(error).split())
