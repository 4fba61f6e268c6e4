"""The channels that the small convolutions of a periodic layer read, as tensors."""

import functools

from keras import ops

from tfsparse import lowering, patterns, shifts


class Blocks:
    """The inputs of a layer, and their channels split by phase when that is needed."""

    def __init__(self, inputs, pattern):
        self.inputs = inputs
        self._bounds = patterns.bounds(inputs.shape[-1], pattern.period).tolist()

    @functools.cached_property
    def _split(self):
        # One split has one gradient, a concatenation; slices would have one each, of full size.
        inner = [bound for bound in self._bounds[1:-1] if bound < self._bounds[-1]]
        parts = ops.split(self.inputs, inner, axis=-1)
        return dict(zip([0, *inner], parts, strict=True))

    def take(self, pieces):
        """Returns the channels of `pieces`."""
        if pieces[0].start == 0 and pieces[-1].stop == self._bounds[-1] == _width(pieces):
            return self.inputs
        return concatenate([self._split[piece.start] for piece in pieces])


def without_gaps(pieces, channels):
    """Returns the `Offset` of all channels; those that no piece has go with a neighbor."""
    starts = [0, *(piece.start for piece in pieces[1:])]
    stops = [*starts[1:], channels]
    return [
        shifts.Offset(start, stop, piece.top, piece.left)
        for start, stop, piece in zip(starts, stops, pieces, strict=True)
    ]


def fill_gaps(kernel, pieces, channels):
    """Returns `kernel` with zeros for the channels that no piece has.

    Multiplying a few channels by 0 takes less time than leaving them out of the inputs.
    """
    if _width(pieces) == channels:
        return kernel
    parts, done, read = [], 0, 0
    for start, stop, _, _ in (*pieces, lowering.Piece(channels, channels, 0, 0)):
        parts.append(ops.zeros((*kernel.shape[:2], start - done, kernel.shape[3]), kernel.dtype))
        parts.append(kernel[:, :, read : read + stop - start])
        done, read = stop, read + stop - start
    return ops.concatenate([part for part in parts if part.shape[2]], axis=2)


def concatenate(tensors):
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)


def _width(pieces):
    return sum(piece.stop - piece.start for piece in pieces)
