"""The exponentials of LiteRT's softmax in int8, as a table of fixed-point numbers. NumPy only.

An input of int8 lies 0 to 255 steps below the largest one, so there are 256 exponentials. Numbers
have 31 bits after the point, unless said otherwise; LiteRT computes with gemmlowp's fixed-point
arithmetic, whose polynomial and constants these are.
"""

import math

import numpy as np

_INTEGER_BITS = 5  # of a scaled difference
_ONE = (1 << 31) - 1  # the largest number stands for 1
# exp(-2^k) for k = -2 to 4
_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_EXP_OF_MINUS_AN_EIGHTH, _A_THIRD = 1895147668, 715827883


def exponentials(scale, beta):
    """Returns exp(-beta * scale * d) for d = 255 to 0, an int32 array [256].

    Args:
        scale: of the input.
        beta: of the operator; usually 1.
    """
    real = min(beta * scale * (1 << 31 - _INTEGER_BITS), float(_ONE))
    mantissa, shift = math.frexp(real)
    multiplier = math.floor(mantissa * 2.0**31 + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    radius = math.floor(((1 << _INTEGER_BITS) - 1) * 2.0 ** (31 - _INTEGER_BITS - shift))
    table = []
    for difference in range(-255, 1):
        if difference < -radius:
            table.append(0)
            continue
        table.append(_exp(_multiply(difference << shift, multiplier)))
    return np.array(table, np.int32)


def _exp(number):
    """Returns the exponential of a number of at most 0 with _INTEGER_BITS before the point."""
    if number == 0:
        return _ONE
    quarter = 1 << (31 - _INTEGER_BITS - 2)
    rest = (number & (quarter - 1)) - quarter  # in [-1/4, 0)
    result = _exp_of_rest(max(rest << _INTEGER_BITS, -(1 << 31)))
    for exponent, power in enumerate(_POWERS, -2):
        if (rest - number) >> (31 - _INTEGER_BITS + exponent) & 1:
            result = _multiply(result, power)
    return result


def _exp_of_rest(number):
    """Returns the exponential of a number in [-1/4, 0), by a polynomial around -1/8."""
    x = number + (1 << 28)
    x2 = _multiply(x, x)
    x3, x4 = _multiply(x2, x), _multiply(x2, x2)
    higher = _divide(_multiply(_divide(x4, 2) + x3, _A_THIRD) + x2, 1)
    return _EXP_OF_MINUS_AN_EIGHTH + _multiply(_EXP_OF_MINUS_AN_EIGHTH, x + higher)


def _multiply(a, b):
    return (a * b + (1 << 30)) >> 31


def _divide(number, places):
    """Returns number / 2^places, halves away from zero."""
    rest, half = number & ((1 << places) - 1), (1 << places >> 1) - 1 + (number < 0)
    return (number >> places) + (rest > half)
