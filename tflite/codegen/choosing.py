"""Which kernel in C computes a convolution: the one that takes the fewest instructions."""

import numpy as np

from tflite.codegen.gathered import pack_gathered
from tflite.codegen.packing import common_fields, pack_plain
from tflite.codegen.sparse import pack_pairs, pack_sparse
from tfsparse.errors import UsageError

_LARGEST_SHIFT = 22  # with it, the zero point and half a unit fit 32 bits
_SUM_LIMIT = 1 << 30  # twice a sum fits 32 bits
_LARGEST_FIELD = 255
_MOST_ROWS = 16  # TFSPARSE_MAX_KERNEL


def candidates(convolution):
    """Returns a `Packed` from each kernel that can compute this `Convolution`, fastest first.

    Raises:
        UsageError: if its kernel, stride, or padding is larger than the C structs can hold.
    """
    height, width = convolution.weights.shape[1:3]
    if max(height, width, *convolution.stride, *convolution.padding) > _LARGEST_FIELD:
        raise UsageError(
            "The kernels in C are for convolutions of at most 255 rows and columns. Received: "
            f"{height}x{width}, strides {convolution.stride}, padding {convolution.padding}"
        )
    found = []
    shifts = -np.asarray(convolution.shift)[np.asarray(convolution.multiplier) > 0]
    usual = shifts.min(initial=1) >= 1 and shifts.max(initial=1) <= _LARGEST_SHIFT
    if usual and _largest_sum(convolution) < _SUM_LIMIT:
        found += [pack_sparse(convolution), pack_pairs(convolution)]
        if not convolution.depthwise and height <= _MOST_ROWS:
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
