"""The rule that chooses the form of a layer, against what was measured."""

import pytest

from tflite.forms import best_form, forms
from tfsparse.layers import PeriodicConv2D

FORMS = {"one step": 0, "two steps": 1, "slices": 2}


@pytest.mark.parametrize(
    ("pattern", "size", "channels", "arithmetic", "expected"),
    [
        ("PSD1_P16", 32, 64, "float", "dense"),  # 4 filters a phase
        ("PS1_P9", 32, 16, "float", "dense"),
        ("PS1_P9", 32, 64, "float", "two steps"),
        ("PS1_P9_F1", 32, 64, "float", "two steps"),
        ("PS4_P4_F1", 16, 128, "float", "one step"),
        ("PS4_P4", 8, 256, "int8", "slices"),  # runs of 64 numbers
        # With AVX-512 VNNI small convolutions were 0.83, 0.74, 1.23 and 2.2 times as fast as dense.
        ("PS4_P4", 32, 64, "int8", "dense"),
        ("PSD2_P8", 16, 128, "int8", "dense"),
        ("PS2_P6", 16, 128, "int8", "two steps"),
        ("PS2_P6_F1", 32, 64, "int8", "two steps"),
    ],
)
def test_rule(pattern, size, channels, arithmetic, expected):
    """What was measured to be fastest on the layers of ResNet18."""
    layer, shape = PeriodicConv2D(channels, 3, pattern, padding="same"), (1, size, size, channels)
    best = best_form(layer, shape, arithmetic)
    assert best == (None if expected == "dense" else forms(layer, shape)[FORMS[expected]])


def test_kernels_larger_than_any_measured_shift_are_not_shifted():
    layer = PeriodicConv2D(64, 9, "PS1_P4", padding="same")
    best = best_form(layer, (1, 16, 16, 64))
    assert best is None or best.sliced or all(len(phase.steps) == 2 for phase in best.phases)
