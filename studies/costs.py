"""What do the paper's patterns cost? Weights, MACs, storage and energy of ResNet18 and VGG16.

    python -m studies costs

Counts each network with each pattern at full width and writes costs.md, next to the figures of the
paper. Nothing is trained.

Source of the published figures: Kundu et al., arXiv 2001.10710 (IEEE Trans. Computers 2020).
"""

import dataclasses
import functools

import zoo
from studies import records
from tfsparse import cost, energy, patterns, tables
from tfsparse.storage import FORMATS

NAME = "costs"
RECORDS = ()
BITS = 32
SIDE, CLASSES = 32, 10  # of the networks that are built
SIZES = [(32, 10), (64, 200)]  # of an image's side, and classes
PUBLISHED = {}  # {arch: {variant: (weights in millions, GMACs for each of SIZES, off a plot)}}
for _row in records.read_csv(NAME):
    _arch, _variant, *_numbers = _row.values()
    PUBLISHED.setdefault(_arch, {})[_variant] = tuple(map(float, _numbers))
HALF_A_DIGIT = 0.0005  # published figures have three decimals


def define_flags():
    records.define_output()


def main():
    records.write_page(NAME, page())


# ---- counting ----


def measure():
    """Returns {(arch, variant, image size): `tfsparse.cost.ModelCost`} of all networks."""
    return {
        (arch, variant, side): count(arch, side, classes, None if variant == "dense" else variant)
        for arch, variants in PUBLISHED.items()
        for variant in variants
        for side, classes in SIZES
    }


def count(arch, side, classes, pattern=None, width=None):
    """Returns the `ModelCost` of a network whose weights are all nonzero.

    Only the dense network for small images is built. A pattern keeps taps of the spatial
    convolutions but the first, convolutions scale with the area of the image, and the classifier
    with the classes.

    Args:
        arch, pattern, width: as for `zoo.build`.
        side: height and width of the images, a multiple of 32.
        classes: number of logits.
    """
    dense = _dense(arch, width)
    layers = [
        _layer(layer, (side // SIDE) ** 2, pattern if index else None)
        if layer.is_convolution
        else _classifier(layer, classes)
        for index, layer in enumerate(dense.layers)
    ]
    change = sum(
        new.parameters - old.parameters for new, old in zip(layers, dense.layers, strict=True)
    )
    return cost.ModelCost(layers, dense.parameters + change + classes - CLASSES, dense.uncounted)


@functools.cache
def _dense(arch, width):
    return cost.model_cost(zoo.build(arch, (SIDE, SIDE, 3), CLASSES, width))


def _layer(layer, area, pattern):
    """Returns the cost of a convolution with `area` times the positions and with a pattern."""
    kept, period, positions = layer.parameters, None, layer.macs // layer.parameters
    if pattern and layer.kernel_shape[0] > 1:
        parsed = patterns.parse(pattern)
        kept = _taps(pattern, layer.kernel_shape)
        period = parsed.period if isinstance(parsed, patterns.Pattern) else None
    macs = area * positions * kept
    return dataclasses.replace(
        layer,
        parameters=kept,
        nonzeros=kept,
        macs=macs,
        nonzero_macs=macs,
        inputs=area * layer.inputs,
        outputs=area * layer.outputs,
        period=period,
    )


@functools.cache
def _taps(pattern, kernel_shape):
    return int(patterns.parse(pattern).mask(kernel_shape[:2], *kernel_shape[2:]).sum())


def _classifier(layer, classes):
    features = layer.kernel_shape[0]
    sizes = dict.fromkeys(("parameters", "nonzeros", "macs", "nonzero_macs"), features * classes)
    shape = {"kernel_shape": (features, classes), "output_shape": (classes,), "rows": classes}
    return dataclasses.replace(layer, **sizes, **shape, outputs=classes)


# ---- comparing ----


def deviation(measured, published):
    """Returns the deviation of `measured` in % of `published`, both in G."""
    return 100 * (measured - published) / published


def unexplained(measured, published):
    """Returns the part of the deviation, in %, that rounding to three decimals does not explain.

    The published figure stands for all numbers within half a unit of its last place; this is the
    distance to the nearest of them.
    """
    distance = max(abs(measured - published) - HALF_A_DIGIT, 0)
    return 100 * distance / published


def _compare(costs, arch, variant, side, column):
    """Returns the deviation of the MACs from the published ones, and its unexplained part."""
    measured, published = costs[arch, variant, side].conv_macs / 1e9, PUBLISHED[arch][variant]
    return deviation(measured, published[column]), unexplained(measured, published[column])


# ---- the page ----


def page(costs=None):
    """Returns the Markdown page of what `measure` returns."""
    costs = costs or measure()
    sections = [_introduction(costs)]
    for arch, variants in PUBLISHED.items():
        sections += [f"## {arch}", _storage_table(arch, variants, costs)]
        for index, (side, classes) in enumerate(SIZES):
            sections.append(f"### {arch}, {side}x{side}, {classes} classes")
            sections.append(_macs_table(arch, variants, costs, index))
    return "\n\n".join(sections) + "\n"


def _introduction(costs):
    gaps = {
        key: _compare(costs, *key, index + 1)
        for index, (side, _) in enumerate(SIZES)
        for key in costs
        if key[2] == side
    }
    worst = max(gaps, key=lambda key: abs(gaps[key][0]))
    left = max(gaps, key=lambda key: gaps[key][1])
    above = [key for key in gaps if abs(gaps[key][0]) > 1.5]
    rows = [row for variants in PUBLISHED.values() for row in variants.values()]
    equal = [
        round(costs[arch, variant, SIZES[0][0]].conv_parameters / 1e6, 3) == row[0]
        for arch, variants in PUBLISHED.items()
        for variant, row in variants.items()
    ]
    return records.fill(
        NAME,
        equal=sum(equal),
        figures=len(equal),
        classifier=f"{max(100 * (1 - each.conv_macs / each.macs) for each in costs.values()):.2f}",
        worst=f"{gaps[worst][0]:+.2f} % ({_name(worst)})",
        above=", ".join(map(_name, above)) or "none",
        rounding=f"{100 * HALF_A_DIGIT / min(min(row[1:]) for row in rows):.1f}",
        left=f"{gaps[left][1]:.2f} % ({_name(left)})",
        source=energy.SOURCE,
    ).rstrip()


def _name(key):
    arch, variant, side = key
    return f"{arch} {variant} {side}x{side}"


def _storage_table(arch, variants, costs):
    side, classes = SIZES[0]
    rows = []
    for variant, published in variants.items():
        each = costs[arch, variant, side]
        sizes = each.storage(BITS)
        cells = ["-" if sizes[name] is None else f"{sizes[name] / 1e6:.2f}" for name in FORMATS]
        rows.append([variant, f"{each.conv_parameters:,}", f"{published[0]:.3f}", *cells])
    header = "pattern|weights|published, M|dense, Mbit|CSR|bitmap|periodic"
    return f"Storage with {classes} classes.\n\n" + tables.markdown(header.split("|"), rows)


def _macs_table(arch, variants, costs, index):
    side, _ = SIZES[index]
    rows = []
    for variant, published in variants.items():
        each = costs[arch, variant, side]
        off, left = _compare(costs, arch, variant, side, index + 1)
        traffic = each.dram_traffic(BITS)
        spent = energy.estimate(each.nonzero_macs, traffic.words, BITS).total / 1e9
        words = traffic.words / 1e6, traffic.weights / (BITS * 1e6)
        numbers = (off, "+.2f"), (left, ".2f"), *((value, ".2f") for value in (*words, spent))
        cells = [f"{each.conv_macs / 1e9:.4f}", f"{published[index + 1]:.3f}"]
        rows.append([variant, *cells, *(format(*number) for number in numbers)])
    header = (
        "pattern|MACs, G|published|deviation, %|beyond rounding, %"
        "|DRAM, M words|of these weights|energy, mJ"
    )
    return tables.markdown(header.split("|"), rows)
