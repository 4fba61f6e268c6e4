"""Fixed-point arithmetic of int8 files, as in LiteRT's reference kernels. NumPy only.

A real factor is an integer multiplier in [2^30, 2^31) and a shift: factor = multiplier * 2^(shift -
31). Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, arXiv 1712.05877, section 2.2.
"""

import math

import numpy as np


def quantize_multiplier(factors):
    """Returns `(multipliers, shifts)`, int32 arrays, of an array of factors of at least 0."""
    factors = np.asarray(factors, np.float64)
    mantissas, shifts = np.frexp(factors)  # in [0.5, 1)
    # LiteRT rounds halves away from zero; np.round would round them to even.
    multipliers = np.floor(mantissas * 2.0**31 + 0.5).astype(np.int64)
    is_one = multipliers == 1 << 31
    multipliers = np.where(is_one, 1 << 30, multipliers)
    shifts = shifts + is_one
    too_small = shifts < -31
    return (
        np.where(too_small, 0, multipliers).astype(np.int32),
        np.where(too_small, 0, shifts).astype(np.int32),
    )


def requantize(values, multipliers, shifts):
    """Returns int32 `values` times quantized factors, rounded twice as LiteRT does, int64 array."""
    values, multipliers = np.asarray(values, np.int64), np.asarray(multipliers, np.int64)
    left, right = np.maximum(shifts, 0), np.maximum(-np.asarray(shifts), 0)
    products = (values << left) * multipliers
    nudges = np.where(products >= 0, 1 << 30, 1 - (1 << 30))
    sums = products + nudges
    high = np.where(sums >= 0, sums >> 31, -((-sums) >> 31))  # division truncates
    masks = (np.int64(1) << right) - 1
    thresholds = (masks >> 1) + (high < 0)
    return (high >> right) + ((high & masks) > thresholds)


def mean_multiplier(factor, count):
    """Returns `(multiplier, shift)` of factor / count, as LiteRT's MEAN computes them."""
    (multiplier,), (shift,) = quantize_multiplier([factor])
    places = min(int(math.log2(count)), 32, 31 + int(shift))
    return (int(multiplier) << places) // count, int(shift) - places
