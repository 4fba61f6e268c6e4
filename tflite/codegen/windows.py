"""Which elements of a stored tensor a convolution reads, found from the places of its input.

A convolution may read a tensor through paddings, slices, shifts, and concatenations. Its input is
then given as places: for each element the index of an element of the stored tensor, or `PADDING`.
If each tap reads, from output pixel to output pixel, places that advance by one stride, the
convolution is one over the stored tensor itself, whose kernel has the same weights elsewhere.
"""

from typing import NamedTuple

import numpy as np

PADDING = -1


class Window(NamedTuple):
    """A convolution over the stored tensor.

    Attributes:
        kernel_size: (rows, columns) of its kernel.
        taps: int array [n, 3]: row, column, and channel in this kernel of each tap of the original
            kernel [rows, columns, channels], flattened; -1 for one that reads only padding.
        strides: (rows, columns).
        padding: rows above and columns left of the stored tensor, for output pixel (0, 0).
    """

    kernel_size: tuple
    taps: np.ndarray
    strides: tuple
    padding: tuple


def find_window(places, stored, kernel_size, strides, padding, outputs):
    """Returns the `Window` of a convolution over the stored tensor, or None if there is none.

    Args:
        places: int array [h, w, c], the input of the convolution.
        stored: (height, width, channels) of the stored tensor.
        kernel_size: (rows, columns).
        strides: (rows, columns).
        padding: (rows above, columns left of the input).
        outputs: (rows, columns) of the output.
    """
    read = _windows(places, kernel_size, strides, padding, outputs)
    is_read = read != PADDING
    rows, columns = read // (stored[1] * stored[2]), read // stored[2] % stored[1]
    row_step, column_step = _step(rows, is_read, 0), _step(columns, is_read, 1)
    if row_step is None or column_step is None:
        return None
    row_starts = np.arange(outputs[0])[:, None, None] * row_step
    column_starts = np.arange(outputs[1])[None, :, None] * column_step
    offsets = [
        _constant(values, is_read)
        for values in (rows - row_starts, columns - column_starts, read % stored[2])
    ]
    if any(offset is None for offset in offsets):
        return None
    used = is_read.any((0, 1))
    inside = _inside(row_starts + offsets[0], stored[0])
    inside = inside & _inside(column_starts + offsets[1], stored[1])
    if not used.any() or (inside[..., used] != is_read[..., used]).any():
        return None
    firsts = [min(0, int(offset[used].min())) for offset in offsets[:2]]
    taps = np.stack([offsets[0] - firsts[0], offsets[1] - firsts[1], offsets[2]], 1)
    taps[~used] = -1
    if len(np.unique(taps[used], axis=0)) < used.sum():  # two weights for one element
        return None
    size = tuple(int(taps[used, axis].max()) + 1 for axis in (0, 1))
    return Window(size, taps, (row_step, column_step), (-firsts[0], -firsts[1]))


def without_border(places, constant):
    """Returns `places` without rows and columns of a constant around them, and (top, left)."""
    is_number = (places != constant).any(2)
    rows, columns = np.flatnonzero(is_number.any(1)), np.flatnonzero(is_number.any(0))
    if len(rows) == 0:
        return places, (0, 0)
    inner = places[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return inner, (int(rows[0]), int(columns[0]))


def _windows(places, kernel_size, strides, padding, outputs):
    """Returns the places that each tap reads at each output pixel, [rows, columns, taps]."""
    height, width = places.shape[:2]
    needed = [
        (count - 1) * stride + taps
        for count, stride, taps in zip(outputs, strides, kernel_size, strict=True)
    ]
    after = [
        max(0, need - size - before)
        for need, size, before in zip(needed, (height, width), padding, strict=True)
    ]
    pads = [(padding[0], after[0]), (padding[1], after[1]), (0, 0)]
    padded = np.pad(places, pads, constant_values=PADDING)
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel_size, (0, 1))
    views = views[:: strides[0], :: strides[1]][: outputs[0], : outputs[1]]
    # [rows, columns, channels, kernel rows, kernel columns]
    return views.transpose(0, 1, 3, 4, 2).reshape(*outputs, -1)


def _step(values, is_read, axis):
    """Returns the one difference of neighbors along an axis, 1 without neighbors, or None."""
    both = np.take(is_read, range(1, is_read.shape[axis]), axis)
    both = both & np.take(is_read, range(is_read.shape[axis] - 1), axis)
    steps = np.unique(np.diff(values, axis=axis)[both])
    if len(steps) == 0:
        return 1
    return int(steps[0]) if len(steps) == 1 and steps[0] > 0 else None


def _constant(values, is_read):
    """Returns the value that each tap has wherever it reads, [taps], or None if it has several."""
    limit = np.int64(1) << 40
    lowest = np.where(is_read, values, limit).min((0, 1))
    highest = np.where(is_read, values, -limit).max((0, 1))
    used = is_read.any((0, 1))
    if (lowest[used] != highest[used]).any():
        return None
    return np.where(used, lowest, 0)


def _inside(positions, size):
    return (positions >= 0) & (positions < size)
