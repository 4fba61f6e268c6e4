"""Weights without their zeros, in the fewest bytes: the packings of packed files. NumPy only.

| packing | left out | index |
|---|---|---|
| plain | nothing | none |
| bitmap | zeros | a bit for each number, 1 where it is stored |
| elias-fano | zeros | the places of the numbers that are stored, see `tfsparse.elias_fano` |
| channels | input channels that are all zero | a bit for each channel |
| filters | filters that are all zero | a bit for each filter |

Bits are packed eight to a byte, the first one highest; what is left of the last byte is 0. Zeros
that are left out come back as 0.0; multiplying with a mask makes negative weights -0.0, so that the
sign of a zero says nothing.

A weight is a vector of numbers that stand at the places `positions`, ascending, of a flattened
array of `shape`, whose last two axes are channels and filters: at all places, or, in a periodic
kernel, at those of the taps that exist.
"""

from typing import NamedTuple

import numpy as np

from tfsparse import elias_fano

PLAIN, BITMAP, ELIAS_FANO, CHANNELS, FILTERS = PACKINGS = (
    "plain",
    "bitmap",
    "elias-fano",
    "channels",
    "filters",
)


class Packed(NamedTuple):
    """The name of a packing, the numbers it stores and its index, uint8."""

    packing: str
    numbers: np.ndarray
    index: np.ndarray


def pack(numbers, positions, shape):
    """Returns `numbers`, [n] of any NumPy type, as the `Packed` of the fewest bytes."""
    nonzero = numbers != 0
    packed = [
        Packed(PLAIN, numbers, np.zeros(0, np.uint8)),
        Packed(BITMAP, numbers[nonzero], np.packbits(nonzero)),
    ]
    if nonzero.any():
        code = elias_fano.encode(np.flatnonzero(nonzero), len(numbers))
        packed.append(Packed(ELIAS_FANO, numbers[nonzero], code))
    if len(shape) > 1:
        for packing in (CHANNELS, FILTERS):
            unit, count = _units(packing, positions, shape)
            alive = np.bincount(unit, nonzero, count) > 0
            packed.append(Packed(packing, numbers[alive[unit]], np.packbits(alive)))
    return min(packed, key=lambda item: item.numbers.nbytes + item.index.nbytes)


def index_size(packing, stored, positions, shape):
    """Returns the bytes of the index where `stored` numbers are stored.

    Raises:
        ValueError: where the packing is unknown, or not possible with so many numbers.
    """
    fits = {
        PLAIN: stored == len(positions),
        ELIAS_FANO: 0 < stored <= len(positions),
        CHANNELS: len(shape) > 1,
        FILTERS: len(shape) > 1,
    }
    if packing not in PACKINGS or not fits.get(packing, True):
        raise ValueError(f"{stored} of {len(positions)} numbers as {packing}")
    if packing == PLAIN:
        return 0
    if packing == ELIAS_FANO:
        return elias_fano.size(stored, len(positions))
    return -(-(len(positions) if packing == BITMAP else _units(packing, positions, shape)[1]) // 8)


def unpack(packed, positions, shape):
    """Returns the numbers that were packed, [n], zeros included.

    The index has the size that `index_size` says.

    Raises:
        ValueError: where the index is not that of so many numbers.
    """
    packing, stored, index = packed
    numbers = np.zeros(len(positions), stored.dtype)
    if packing == PLAIN:
        places = slice(None)
    elif packing == ELIAS_FANO:
        places = elias_fano.decode(index, len(stored), len(positions))
    elif packing == BITMAP:
        places = np.flatnonzero(np.unpackbits(index, count=len(positions)))
    else:
        unit, count = _units(packing, positions, shape)
        places = np.flatnonzero(np.unpackbits(index, count=count)[unit])
    if packing != PLAIN and len(places) != len(stored):
        raise ValueError(f"an index of {len(places)} numbers where {len(stored)} are stored")
    numbers[places] = stored
    return numbers


def _units(packing, positions, shape):
    """Returns the channel or filter of each number, and how many of them there are."""
    channels, filters = shape[-2:]
    if packing == CHANNELS:
        return positions // filters % channels, channels
    return positions % filters, filters
