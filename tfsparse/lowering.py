"""How a periodic convolution runs as small dense convolutions over shifted channel slices.

All filters of one filter phase keep, of a given input channel, the same window of taps. A kernel
that keeps only the window at (top, left) computes

    y[r, c] = sum over (u, v) in window of  w[u, v] * x[r + u, c + v]
            = sum over (u', v') from (0, 0) of  w[top + u', left + v'] * x'[r + u', c + v'],

with x'[r, c] = x[r + top, c + left]: a dense convolution of the window's size over the shifted
input. So the channel slices of a filter phase, each shifted by its window's offset, are
concatenated and convolved with ONE dense kernel per window shape; only the kept weights exist.
"""

from typing import NamedTuple

import numpy as np

from tfsparse.patterns import Window, bounds


class Piece(NamedTuple):
    """The input channels [start, stop) and the window their kernels keep."""

    start: int
    stop: int
    window: Window


class Convolution(NamedTuple):
    """One dense convolution: its kernel's shape, the filters it feeds and what it reads."""

    kernel_shape: tuple  # height, width, channels, filters
    filters: tuple  # first filter, last filter + 1
    pieces: tuple


def lower(pattern, kernel_size, channels, filters):
    """Returns the dense convolutions that make up a periodic one, ordered by filter.

    Convolutions that feed the same filters are to be added, then all concatenated.
    """
    supports = pattern.supports(kernel_size)
    channel_bounds = bounds(channels, pattern.period)
    filter_bounds = bounds(filters, pattern.filter_phases)
    convolutions = []
    for f in range(pattern.filter_phases):
        first, last = (int(bound) for bound in filter_bounds[f : f + 2])
        by_shape = {}
        for c in range(pattern.period):
            start, stop = (int(bound) for bound in channel_bounds[c : c + 2])
            window = supports[pattern.phase(c, f)]
            if start < stop and first < last:
                shape = (window.height, window.width)
                by_shape.setdefault(shape, []).append(Piece(start, stop, window))
        for shape, pieces in by_shape.items():
            width = sum(piece.stop - piece.start for piece in pieces)
            convolutions.append(
                Convolution((*shape, width, last - first), (first, last), tuple(pieces))
            )
    return convolutions


def kernel_positions(convolutions, kernel_size, channels, filters):
    """Returns where each stored weight stands in the equivalent dense kernel.

    The stored weights are the kernels of `convolutions`, flattened one after the other. The result
    is int32 [number of stored weights], each an index into the flattened dense kernel of shape
    [height, width, channels, filters].
    """
    dense = np.arange(np.prod(kernel_size) * channels * filters, dtype=np.int32)
    dense = dense.reshape(*kernel_size, channels, filters)
    positions = []
    for convolution in convolutions:
        parts = [
            dense[
                window.top : window.top + window.height,
                window.left : window.left + window.width,
                start:stop,
                slice(*convolution.filters),
            ]
            for start, stop, window in convolution.pieces
        ]
        positions.append(np.concatenate(parts, axis=2).ravel())
    return np.concatenate(positions)
