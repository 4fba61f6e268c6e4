"""The largest of many scores, without sorting them. NumPy only."""

import numpy as np

_DIGIT = 16  # bits of a score that `top` looks at in a pass


def top(score, count):
    """Returns bool [n], the `count` units of largest `score`; of equals, the first.

    NaN is less than any number. The score that is just large enough is found 16 bits at a time, in
    two or four passes: sorting takes a hundred times as long, and np.partition if many are equal.
    """
    keys = _keys(score)
    if count >= keys.size:
        return np.ones(keys.size, bool)
    left, bound, candidates = max(count, 0), 0, keys
    for shift in range(8 * keys.itemsize - _DIGIT, -1, -_DIGIT):
        digits = (candidates >> shift).astype(np.uint16)
        at_least = np.cumsum(np.bincount(digits, minlength=2**_DIGIT)[::-1])[::-1]
        digit = int(np.flatnonzero(at_least >= left)[-1])
        left -= int(at_least[digit + 1]) if digit + 1 < 2**_DIGIT else 0
        bound = bound << _DIGIT | digit
        candidates = candidates[digits == digit]
    active = keys > bound
    active[np.flatnonzero(keys == bound)[:left]] = True
    return active


def _keys(score):
    """Returns unsigned integers that are in the same order as the floats `score`."""
    if score.dtype not in (np.float32, np.float64):
        score = score.astype(np.float64)
    size = score.itemsize
    bits = (score + 0.0).view(f"i{size}")  # -0.0 becomes 0.0, to which it is equal
    last = 8 * size - 1
    # The more negative a number, the larger its other bits.
    bits ^= (bits >> last) & np.iinfo(bits.dtype).max
    keys = bits.view(f"u{size}")
    keys ^= keys.dtype.type(1 << last)
    keys[np.isnan(score)] = 0
    return keys
