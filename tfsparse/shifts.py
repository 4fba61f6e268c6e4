"""Blocks of channels, each read from its own offset: what stands before each small convolution.

There are two ways to do it. Which one is several times faster depends on what compiles it:

- a depthwise convolution whose kernels are 0 but for a single 1. TensorFlow's reads its input once,
  writes its output once and pads by itself; XLA's is slow on the CPU;
- slices of the padded input, concatenated: three passes, which XLA fuses.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops


class Offset(NamedTuple):
    """The channels [start, stop) and the offset, at least 0, from which they are read."""

    start: int
    stop: int
    top: int
    left: int


def shift(inputs, offsets, before, sizes, strides=(1, 1)):
    """Returns `inputs` with each block of channels read from its own offset, 0 outside.

        outputs[n, r, c, i] = inputs[n, r * strides[0] + top - before[0],
                                        c * strides[1] + left - before[1], i]

    for all channels i of an `Offset`. Its gradient is the same shift backwards; the gradient
    derived from slices would add up an array as large as the inputs for each of them.

    Args:
        inputs: [n, height, width, channels].
        offsets: list of `Offset` that together have all channels, in order.
        before: rows and columns of zeros above and left of the inputs.
        sizes: rows and columns of the outputs before `strides` leave some of them out.
        strides: of rows and columns.

    Returns:
        [n, ceil(sizes[0] / strides[0]), ceil(sizes[1] / strides[1]), channels].
    """
    if strides != (1, 1):
        if by_depthwise_convolution() and strides[0] == strides[1]:
            return _depthwise(inputs, offsets, before, sizes, strides[0])
        return shift(inputs, offsets, before, sizes)[:, :: strides[0], :: strides[1]]
    bottom, right = (max(offset[axis] for offset in offsets) for axis in (2, 3))
    # outputs[r] = inputs[r + top - before], so
    # inputs[i] = outputs[i + (bottom - top) - (bottom - before)].
    backwards = [Offset(o.start, o.stop, bottom - o.top, right - o.left) for o in offsets]
    before_backwards = (bottom - before[0], right - before[1])

    def forwards(inputs):
        read = _depthwise if by_depthwise_convolution() else _slices

        def gradient(*args, upstream=None):
            (upstream,) = args if upstream is None else (upstream,)
            return read(upstream, backwards, before_backwards, inputs.shape[1:3])

        return read(inputs, offsets, before, sizes), gradient

    return ops.custom_gradient(forwards)(inputs)


def by_depthwise_convolution():
    """Returns whether `shift`, called now, is a depthwise convolution."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.__internal__.get_enclosing_xla_context() is None


def _depthwise(inputs, offsets, before, sizes, stride=1):
    import tensorflow as tf

    offsets, paddings = _frame(inputs, offsets, before, sizes)
    kernel = np.zeros((*_reach(offsets), inputs.shape[-1], 1), np.float32)
    for start, stop, top, left in offsets:
        kernel[top, left, start:stop] = 1
    outputs = tf.nn.depthwise_conv2d(
        inputs,
        tf.constant(kernel, inputs.dtype),
        (1, stride, stride, 1),
        [(0, 0), *paddings, (0, 0)] if any(map(any, paddings)) else "VALID",
    )
    rows, columns = (-(-size // stride) for size in sizes)
    return outputs[:, :rows, :columns] if outputs.shape[1:3] != (rows, columns) else outputs


def _slices(inputs, offsets, before, sizes):
    offsets, paddings = _frame(inputs, offsets, before, sizes)
    if any(map(any, paddings)):
        inputs = ops.pad(inputs, [(0, 0), *paddings, (0, 0)])
    rows, columns = sizes
    parts = [
        inputs[:, top : top + rows, left : left + columns, start:stop]
        for start, stop, top, left in offsets
    ]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _reach(offsets):
    """Returns the rows and columns of the smallest kernel that contains all offsets."""
    return [1 + max(offset[axis] for offset in offsets) for axis in (2, 3)]


def _frame(inputs, offsets, before, sizes):
    """Returns offsets and paddings, none negative, with which all of `sizes` can be read."""
    moved = [max(-zeros, 0) for zeros in before]
    offsets = [Offset(o.start, o.stop, o.top + moved[0], o.left + moved[1]) for o in offsets]
    paddings = [
        (max(zeros, 0), max(size + reach - 1 - present - max(zeros, 0), 0))
        for size, reach, present, zeros in zip(
            sizes, _reach(offsets), inputs.shape[1:3], before, strict=True
        )
    ]
    return offsets, paddings
