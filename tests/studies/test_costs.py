"""The study of costs against closed formulas, the published figures."""

import dataclasses
import math

import keras
import pytest

import zoo
from studies import costs
from tfsparse.cost import model_cost

CASES = [
    (arch, variant, index)
    for arch, variants in costs.PUBLISHED.items()
    for variant in variants
    for index in range(len(costs.SIZES))
]


@pytest.fixture(scope="module")
def measured():
    return costs.measure()


def convolutions(arch, size):
    """Returns (channels, filters, taps, output positions) of each convolution, the first first."""
    if arch == "vgg16":
        widths = [(64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3]
        filters = [(f, (size >> stage) ** 2) for stage, row in enumerate(widths) for f in row]
        channels = [3, *(f for f, _ in filters)]
        return [(c, f, 9, n) for c, (f, n) in zip(channels, filters, strict=False)]
    layers = [(3, 64, 9, size**2)]
    for stage, width in enumerate([64, 128, 256, 512]):
        before, positions = max(width // 2, 64), (size >> stage) ** 2
        layers += [(before, width, 9, positions)] + [(width, width, 9, positions)] * 3
        if stage > 0:
            layers.append((before, width, 1, positions))
    return layers


def kept(variant, taps, first):
    """Returns the mean number of taps that a kernel keeps: only 3x3 ones, not the first layer's."""
    if variant == "dense" or taps == 1 or first:
        return taps
    size, _, period = variant.lstrip("pPSDC").partition("_P")
    if variant.startswith("PSD"):
        return (9 + (int(period) - 1) * int(size)) / int(period)
    return int(size)


def test_weights_and_macs(measured):
    for arch, variant, index in CASES:
        side, classes = costs.SIZES[index]
        cost = measured[arch, variant, side]
        layers = convolutions(arch, side)
        weights = [
            channels * filters * kept(variant, taps, first=layer == 0)
            for layer, (channels, filters, taps, _) in enumerate(layers)
        ]
        assert cost.conv_parameters == sum(weights)
        positions = [count for *_, count in layers]
        assert cost.conv_macs == sum(map(math.prod, zip(weights, positions, strict=True)))
        assert cost.macs - cost.conv_macs == 512 * classes
        millions, *gmacs = costs.PUBLISHED[arch][variant]
        assert round(cost.conv_parameters / 1e6, 3) == millions
        assert costs.unexplained(cost.conv_macs / 1e9, gmacs[index]) <= 1.5


@pytest.mark.parametrize(
    ("arch", "width", "pattern"),
    [
        *(("resnet18", 8, "PSD2_P8"), ("vgg16", 8, "pSC4"), ("shufflenet", 48, None)),
    ],
)
def test_counts_are_those_of_the_network(arch, width, pattern):
    """Built at the size and with the pattern, which `count` never does."""
    model = zoo.build(arch, (64, 64, 3), 20, width, pattern)
    for layer in model.layers:
        if hasattr(layer, "kernel"):  # a random weight can be exactly zero
            layer.kernel.assign(keras.ops.ones_like(layer.kernel))
    expected, found = model_cost(model), costs.count(arch, 64, 20, pattern, width)
    assert (found.parameters, found.macs) == (expected.parameters, expected.macs)
    assert found.dram_traffic(32) == expected.dram_traffic(32)
    for layer, other in zip(found.layers, expected.layers, strict=True):
        names = ("name", "kind", "calls", "output_shape")
        unlike = {name: getattr(other, name) for name in names}
        assert dataclasses.replace(layer, **unlike) == other


def test_rounding_is_half_a_unit_of_the_last_place():
    assert costs.deviation(0.1035, 0.1) == pytest.approx(3.5)
    assert costs.unexplained(0.1035, 0.1) == pytest.approx(3.0)
    assert costs.unexplained(0.0965, 0.1) == pytest.approx(3.0)
    assert costs.unexplained(0.1004, 0.1) == costs.unexplained(0.0996, 0.1) == 0
