"""How a periodic convolution runs as small dense convolutions over shifted channel slices.

All filters of one filter phase keep, of a given input channel, the same taps. A kernel that keeps
only the window at (top, left) computes

    y[r, c] = sum over (u, v) in window of  w[u, v] * x[r + u, c + v]
            = sum over (u', v') from (0, 0) of  w[top + u', left + v'] * x'[r + u', c + v'],

with x'[r, c] = x[r + top, c + left]: a dense convolution of the window's size over the shifted
input. So the channels of a filter phase, each shifted by its window's offset, are convolved with
ONE dense kernel for each shape of window; only the kept weights exist.
"""

from typing import NamedTuple

import numpy as np

from tfsparse.patterns import RandomPattern, bounds


class Piece(NamedTuple):
    """The input channels [start, stop) and the first tap of the window that their kernels keep."""

    start: int
    stop: int
    top: int
    left: int


class Convolution(NamedTuple):
    """One dense convolution: its kernel's shape, the filters it feeds and what it reads."""

    kernel_shape: tuple  # height, width, channels, filters
    filters: tuple  # first filter, last filter + 1
    pieces: tuple


def lower(pattern, kernel_size, channels, filters):
    """Returns the dense convolutions that make up a periodic one, ordered by filter.

    Convolutions that feed the same filters are to be added, then all concatenated. Returns None if
    there are none: if the pattern is not periodic or a support is no rectangle.
    """
    if isinstance(pattern, RandomPattern):
        return None
    windows = [_window(support) for support in pattern.supports(kernel_size)]
    if None in windows:
        return None
    channel_bounds = bounds(channels, pattern.period).tolist()
    filter_bounds = bounds(filters, pattern.filter_phases).tolist()
    convolutions = []
    for f in range(pattern.filter_phases):
        first, last = filter_bounds[f : f + 2]
        by_shape = {}
        for c in range(pattern.period):
            start, stop = channel_bounds[c : c + 2]
            top, left, *shape = windows[pattern.phase(c, f)]
            if start < stop and first < last:
                by_shape.setdefault(tuple(shape), []).append(Piece(start, stop, top, left))
        for shape, pieces in by_shape.items():
            width = sum(piece.stop - piece.start for piece in pieces)
            convolutions.append(
                Convolution((*shape, width, last - first), (first, last), tuple(pieces))
            )
    return convolutions


def _window(support):
    """Returns (top, left, height, width) of a support, or None if it is no rectangle."""
    rows, columns = zip(*support, strict=True)
    top, left = min(rows), min(columns)
    height, width = max(rows) - top + 1, max(columns) - left + 1
    return (top, left, height, width) if len(support) == height * width else None


def kernel_positions(pattern, kernel_size, channels, filters):
    """Returns the position of each stored weight in the equivalent dense kernel.

    The stored weights are the kernels of `lower`, flattened one after the other, or, if there are
    none, the kept weights in the order of the dense kernel. The result is int32 [number of stored
    weights], each an index into the flattened dense kernel of shape [height, width, channels,
    filters].
    """
    convolutions = lower(pattern, kernel_size, channels, filters)
    if convolutions is None:
        mask = pattern.mask(kernel_size, channels, filters)
        return np.flatnonzero(mask).astype(np.int32)
    dense = np.arange(np.prod(kernel_size) * channels * filters, dtype=np.int32)
    dense = dense.reshape(*kernel_size, channels, filters)
    positions = []
    for convolution in convolutions:
        height, width = convolution.kernel_shape[:2]
        parts = [
            dense[top : top + height, left : left + width, start:stop, slice(*convolution.filters)]
            for start, stop, top, left in convolution.pieces
        ]
        positions.append(np.concatenate(parts, axis=2).ravel())
    return np.concatenate(positions)
