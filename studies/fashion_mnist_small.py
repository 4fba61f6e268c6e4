"""Makes fashion_mnist_small.npz out of the full Fashion-MNIST.

    python -m studies fashion_mnist_small --source=/usr/share/datasets/fashion-mnist

The source is a folder with the four idx .gz files, as published by Zalando and as installed by
Debian's package dataset-fashion-mnist.
"""

import gzip
import pathlib

import numpy as np
from absl import flags

from tfsparse.errors import UsageError
from tfsparse.files import replacing

# Of each split: prefix of the file names, images of each class to take.
SPLITS = {"train": ("train", 500), "test": ("t10k", 100)}

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("source", "/usr/share/datasets/fashion-mnist", "Folder of the idx files.")
    flags.DEFINE_string("output", "fashion_mnist_small.npz", "File to write.")


def main():
    arrays = {}
    for split, (prefix, count) in SPLITS.items():
        source = pathlib.Path(FLAGS.source)
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = first_of_each_class(labels, count)
        arrays[f"{split}_images"] = images[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    with replacing(FLAGS.output) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{FLAGS.output}:", {key: value.shape for key, value in arrays.items()})


def read_idx(path):
    """Returns the uint8 array in a gzipped idx file.

    Raises:
        UsageError: if there is no such file at `path`.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise UsageError(
            f"Cannot read {path}: {error}. Give --source the folder with Fashion-MNIST's idx .gz "
            "files, such as Debian's package dataset-fashion-mnist installs."
        ) from error
    # Two zero bytes, the type (8 is uint8), the number of dimensions, each dimension as int32.
    if content[:3] != b"\0\0\x08":
        raise UsageError(f"{path} is not an idx file of uint8; give --source the original files.")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def first_of_each_class(labels, count):
    """Returns the indices, ascending, of the first `count` examples of every class."""
    return np.sort(
        np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])
    )
