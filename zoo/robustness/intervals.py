"""Confidence intervals of accuracies measured on a sample of test images."""

import math

Z = 1.959964  # of the normal distribution, for 95 %


def wilson(successes, count):
    """Returns the 95 % interval `(low, high)` of a fraction, `successes` of `count` > 0.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    fraction = successes / count
    center = fraction + Z**2 / (2 * count)
    width = Z * math.sqrt(fraction * (1 - fraction) / count + (Z / (2 * count)) ** 2)
    scale = 1 + Z**2 / count
    return max(0.0, (center - width) / scale), min(1.0, (center + width) / scale)


def paired(first, second):
    """Compares two models, or two attacks, on the same examples.

    Args:
        first, second: bool arrays [n], n > 0: which examples were classified correctly.

    Returns:
        `(difference, low, high)`: the accuracy of `first` minus that of `second`, and its 95 %
        interval. Only the examples on which they differ count, so the interval is narrower than
        two separate intervals would suggest.

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", Journal of Educational and Behavioral Statistics 2012.
    """
    count = len(first)
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    # One example of each kind is added, as if two more had been seen.
    p, q = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    width = Z * math.sqrt((p + q - (p - q) ** 2) / (count + 2))
    return (only_first - only_second) / count, max(-1.0, p - q - width), min(1.0, p - q + width)
