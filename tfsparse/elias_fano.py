"""Which of N places are taken, in about as few bits as there can be. NumPy only.

Elias-Fano coding of the positions x_0 < x_1 < ... < x_{n-1} in [0, N): with l = floor(log2(N / n)),
the l low bits of each position are stored as they are, and its high part h_i = x_i >> l in unary:
bit h_i + i of a second run of bits is 1. That run has n ones and at most N >> l zeros, so that the
code takes between 2 and 3 bits for each position besides its low bits, whatever the positions are.

Source: Elias, "Efficient Storage and Retrieval by Content and Address of Static Files", JACM 1974.
"""

import numpy as np


def size(count, places):
    """Returns the bytes of the code of `count` positions among `places`, at least 1 of each."""
    low = _low_bits(count, places)
    return -(-(count * low + _unary_bits(count, places)) // 8)


def encode(positions, places):
    """Returns the code of `positions`, int [n] ascending in [0, places), as uint8 [bytes]."""
    count = len(positions)
    low = _low_bits(count, places)
    remainders = (positions[:, None] >> np.arange(low)) & 1
    unary = np.zeros(_unary_bits(count, places), np.uint8)
    unary[(positions >> low) + np.arange(count)] = 1
    return np.packbits(np.concatenate([remainders.ravel().astype(np.uint8), unary]))


def decode(code, count, places):
    """Returns the positions, int64 [count], of a code of `size(count, places)` bytes.

    Raises:
        ValueError: where it is the code of no such positions.
    """
    low = _low_bits(count, places)
    bits = np.unpackbits(code)
    ones = np.flatnonzero(bits[count * low : count * low + _unary_bits(count, places)])
    if len(ones) != count:
        raise ValueError(f"{len(ones)} positions where there are {count}")
    remainders = bits[: count * low].reshape(count, low).astype(np.int64)
    positions = (ones - np.arange(count) << low) + remainders @ (1 << np.arange(low))
    if np.any(np.diff(positions) <= 0) or positions[-1] >= places:
        raise ValueError(f"positions that do not ascend below {places}")
    return positions


def _low_bits(count, places):
    return (places // count).bit_length() - 1


def _unary_bits(count, places):
    return count + ((places - 1) >> _low_bits(count, places))
