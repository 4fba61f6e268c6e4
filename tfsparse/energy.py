"""A model of the energy of one inference: what its operations and memory accesses take in 45 nm.

It measures no device; it shows what dominates, and the order of magnitude.

Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: 8-bit
integer multiply 0.2 pJ, 32-bit integer add 0.1, 16-bit floating-point multiply 1.1 and add 0.4,
32-bit floating-point multiply 3.7 and add 0.9, 64-bit read of an 8 kB cache 10, 64-bit DRAM access
1300 to 2600. A 32-bit DRAM access is taken as 640 pJ, about half of the lower figure.
"""

from typing import NamedTuple

from tfsparse.errors import UsageError

SOURCE = "Horowitz, ISSCC 2014, 45 nm"

# A multiplication and an addition, by bits of the numbers: 32 and 16 floating point, 8 integer with
# 32-bit sums.
_MAC_PJ = {32: 3.7 + 0.9, 16: 1.1 + 0.4, 8: 0.2 + 0.1}
_CACHE_PJ_PER_BIT = 10 / 64
_DRAM_PJ_PER_WORD = 640


class Energy(NamedTuple):
    """The energy of one inference in pJ, by what consumes it."""

    arithmetic: float
    cache: float
    dram: float

    @property
    def total(self):
        return sum(self)


def estimate(macs, dram_words, bits=32):
    """Returns the `Energy` of one inference.

    Each multiply-accumulate reads its weight and its input from an 8 kB cache; its sum stays in a
    register. Leakage, control and decoding of sparse formats take nothing.

    Args:
        macs: number of multiply-accumulates.
        dram_words: number of 32-bit words that DRAM reads or writes.
        bits: of a weight and of an activation; 32 and 16 are floating point, 8 is integer.

    Raises:
        UsageError: if `bits` is another number.
    """
    if bits not in _MAC_PJ:
        raise UsageError(f"bits is 8, 16 or 32. Received: {bits!r}")
    return Energy(
        arithmetic=macs * _MAC_PJ[bits],
        cache=macs * 2 * bits * _CACHE_PJ_PER_BIT,
        dram=dram_words * _DRAM_PJ_PER_WORD,
    )
