"""Which kernel in C computes a convolution: the one that takes the fewest instructions."""

import numpy as np

from tflite.codegen import structs
from tflite.codegen.gathered import pack_gathered
from tflite.codegen.packing import common_fields, pack_plain
from tflite.codegen.sparse import pack_pairs, pack_sparse

_LARGEST_SHIFT = 22  # with it, the zero point and half a unit fit 32 bits
_SUM_LIMIT = 1 << 30  # twice a sum fits 32 bits
_MOST_ROWS = 16  # TFSPARSE_MAX_KERNEL


def candidates(convolution):
    """Returns a `Packed` from each kernel that can compute this `Convolution`, fastest first.

    Raises:
        UsageError: if a size, a stride, or its padding is larger than the C struct can hold.
    """
    structs.check("convolution", common_fields(convolution)[0])
    found = []
    shifts = -np.asarray(convolution.shift)[np.asarray(convolution.multiplier) > 0]
    usual = shifts.min(initial=1) >= 1 and shifts.max(initial=1) <= _LARGEST_SHIFT
    if usual and _largest_sum(convolution) < _SUM_LIMIT:
        found += [pack_sparse(convolution), pack_pairs(convolution)]
        if not convolution.depthwise and convolution.weights.shape[1] <= _MOST_ROWS:
            found.append(pack_gathered(convolution))
    found = list(filter(None, found)) or [pack_plain(convolution)]
    return sorted(found, key=lambda packed: packed.instructions)


def _largest_sum(convolution):
    """Returns a bound of the sums of all filters, before requantization."""
    filters = common_fields(convolution)[1]["filters"].astype(np.int64)
    axes = (0, 1, 2) if convolution.depthwise else (1, 2, 3)
    weights = np.abs(convolution.weights.astype(np.int64)).sum(axes)
    return int((128 * weights + np.abs(filters[:, 0])).max())


def pack(convolution, kernel=None):
    """Returns the `Packed` with the fewest instructions, or that of a kernel by name."""
    found = candidates(convolution)
    if kernel is None:
        return found[0]
    return next(packed for packed in found if packed.kernel == kernel)
