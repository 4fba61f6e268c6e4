"""Patterns against the supports and the phase rule as the paper's authors published them."""

import numpy as np
import pytest

from tfsparse import UsageError
from tfsparse.lowering import kernel_positions, lower
from tfsparse.patterns import bounds, parse

# Row-major positions of a 3x3 kernel: the four 2x2 windows, the horizontal pairs, the single taps.
SUPPORTS = {
    4: [{0, 1, 3, 4}, {1, 2, 4, 5}, {3, 4, 6, 7}, {4, 5, 7, 8}],
    2: [{0, 1}, {1, 2}, {3, 4}, {4, 5}, {6, 7}, {7, 8}],
    1: [{tap} for tap in range(9)],
}
NAMES = ["PS4_P4", "PS2_P6", "PS1_P9", "PSD4_P8", "PSD2_P8", "PSD2_P16", "PSD1_P16"]


def published_mask(name, channels, filters):
    """The rule of METHODS in loops: channel j and filter i are in phase (i + j) mod P."""
    pattern = parse(name)
    variants = SUPPORTS[pattern.support_size]
    mask = np.zeros((9, channels, filters), bool)
    for i in range(filters):
        for j in range(channels):
            q = (i + j) % pattern.period
            if pattern.dense_phase:
                taps = variants[(q - 1) % len(variants)] if q else range(9)
            else:
                taps = variants[q % len(variants)]
            mask[list(taps), j, i] = True
    return mask.reshape(3, 3, channels, filters)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "filters"), [(16, 16), (18, 40), (7, 50), (50, 5), (1, 1)])
def test_mask_is_the_published_one_with_channels_and_filters_reordered(name, channels, filters):
    period = parse(name).period
    # Our blocks hold the channels of equal remainder, in order.
    by_remainder = [np.argsort(np.arange(n) % period, kind="stable") for n in (channels, filters)]
    expected = published_mask(name, channels, filters)[:, :, by_remainder[0]][..., by_remainder[1]]
    np.testing.assert_array_equal(parse(name).mask((3, 3), channels, filters), expected)


@pytest.mark.parametrize("name", [*NAMES, "PS4_P4_F1", "PS2_P6_F2", "PSD1_P16_F1"])
@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 5), (7, 7)])
def test_lowering_covers_each_kept_tap_exactly_once(name, kernel_size):
    pattern, channels, filters = parse(name), 21, 19
    convolutions = lower(pattern, kernel_size, channels, filters)
    positions = kernel_positions(pattern, kernel_size, channels, filters)
    mask = pattern.mask(kernel_size, channels, filters)
    np.testing.assert_array_equal(np.sort(positions), np.flatnonzero(mask))
    assert sum(np.prod(c.kernel_shape) for c in convolutions) == mask.sum()


@pytest.mark.parametrize(
    ("name", "mean_taps"),
    [("PS4_P4", 4), ("PSD4_P8", 4.625), ("PSD2_P8", 2.875), ("PSD2_P16", 2.4375), ("PSD1_P8", 2)],
)
def test_mean_number_of_taps(name, mean_taps):
    assert parse(name).mask((3, 3), 32, 32).sum() == mean_taps * 32 * 32


def test_filters_share_their_supports_with_one_filter_phase():
    mask = parse("PS2_P6_F1").mask((3, 3), 24, 24)
    assert (mask == mask[..., :1]).all()
    assert not (mask == mask[:, :, :1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_name_round_trip(name):
    assert str(parse(name)) == name


UNKNOWN = ["", "PS4", "PS4_P0", "PSD4_P1", "PS4_P4_F5", "PS4_P4_F0", "ps4_p4"]


@pytest.mark.parametrize("name", [*UNKNOWN, " PS4_P4", "PS4_P4\n", "PS4_P99999", None, 4])
def test_unknown_names_are_refused_with_what_was_received(name):
    with pytest.raises(UsageError, match="PSn_Pp") as error:
        parse(name)
    assert repr(name) in str(error.value)


def test_pattern_that_does_not_fit_the_kernel():
    with pytest.raises(UsageError, match="4 taps, which do not fit a kernel of 1x3"):
        parse("PS4_P4").supports((1, 3))


@pytest.mark.parametrize(("count", "blocks"), [(10, 4), (4, 10), (0, 3), (12, 4)])
def test_bounds_are_those_of_array_split(count, blocks):
    parts = np.array_split(np.arange(count), blocks)
    np.testing.assert_array_equal(np.diff(bounds(count, blocks)), [len(part) for part in parts])
