"""Augmentation and scaling of images as tensors, wherever Keras computes."""

import numpy as np
from keras import ops

# Augmentation shifts an image by up to this many pixels each way.
PADDING = 4


def as_float(images):
    """Returns 8-bit images, a NumPy array or a tensor, as float32 in [0, 1]."""
    if isinstance(images, np.ndarray):
        return images.astype(np.float32) / 255
    return ops.cast(images, "float32") / 255


def plain(arrays, row):
    """Returns the batch of the images that the first entry of `row` chooses; see `augmented`."""
    images, labels = arrays
    return as_float(ops.take(images, row[0], axis=0)), ops.take(labels, row[0], axis=0)


def augmented(arrays, row):
    """Returns a batch of crops of padded images.

    Args:
        arrays: images, uint8 [n, h, w, c], and their labels.
        row: int [b], the images that are chosen; int [b, 2], in [0, 2 * PADDING], where the crops
            start; and bool [b], which are mirrored.

    Returns:
        float32 [b, h, w, c] in [0, 1], and the labels [b].
    """
    (images, labels), (chosen, offsets, mirrored) = arrays, row
    height, width = images.shape[1:3]
    offsets = ops.cast(offsets, "int32")
    x = ops.take(images, chosen, axis=0)
    x = ops.pad(x, [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)])
    rows = offsets[:, :1] + ops.arange(height)
    columns = ops.where(mirrored[:, None], ops.arange(width)[::-1], ops.arange(width))
    columns = offsets[:, 1:] + columns
    x = ops.take_along_axis(x, rows[:, :, None, None], axis=1)
    x = ops.take_along_axis(x, columns[:, None, :, None], axis=2)
    return as_float(x), ops.take(labels, chosen, axis=0)


class Slices:
    """All images in order, as batches of (float32 in [0, 1], labels)."""

    def __init__(self, images, labels, batch_size):
        self._images, self._labels, self._size = images, labels, batch_size

    def __len__(self):
        return -(-len(self._images) // self._size)

    def __iter__(self):
        for start in range(0, len(self._images), self._size):
            chosen = slice(start, start + self._size)
            yield as_float(self._images[chosen]), self._labels[chosen]
