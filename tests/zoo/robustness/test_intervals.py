"""Confidence intervals against known values and their promise: 95 % of them hold the truth."""

import numpy as np
import pytest

from zoo.robustness.intervals import paired, wilson


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_gives_the_published_values(successes, count, low, high):
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("both", "first", "second"), [(0.5, 0.1, 0.05), (0.0, 0.3, 0.3)])
def test_paired_holds_the_difference_in_95_percent_of_all_samples(both, first, second):
    rng = np.random.default_rng(0)
    count, samples, covered = 200, 2000, 0
    for _ in range(samples):
        kind = rng.choice(4, count, p=[both, first, second, 1 - both - first - second])
        difference, low, high = paired(kind <= 1, (kind == 0) | (kind == 2))
        assert difference == pytest.approx(np.mean(kind == 1) - np.mean(kind == 2))
        covered += low <= first - second <= high
    # Three standard deviations of a fraction of 2,000 samples are 1.5 points.
    assert 0.935 <= covered / samples <= 0.975


def test_paired_is_antisymmetric_and_narrower_than_two_intervals():
    rng = np.random.default_rng(1)
    first = rng.random(500) < 0.6
    second = first & (rng.random(500) < 0.95)
    difference, low, high = paired(first, second)
    assert paired(second, first) == pytest.approx((-difference, -high, -low))
    assert low > 0
    apart = wilson(first.sum(), 500)[0] - wilson(second.sum(), 500)[1]
    assert apart < 0, "the two intervals overlap, and yet the difference is certain"
    assert paired(first, first)[1] < 0 < paired(first, first)[2]
