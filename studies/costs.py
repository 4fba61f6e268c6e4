"""What do the paper's patterns cost? Weights, MACs, storage and energy of ResNet18 and VGG16.

    python -m studies.costs --output=docs

Builds each network with each pattern, counts, and writes costs.md to --output, with the figures of
the paper beside. Nothing is trained.

Source of the published figures: Kundu et al., arXiv 2001.10710 (IEEE Trans. Computers 2020).
"""

import pathlib

import keras
from absl import flags

import zoo
from tfsparse import cost, energy
from tfsparse.files import write_bytes
from tfsparse.storage import FORMATS
from zoo.commands import commandline

BITS = 32
WIDTH = 64
SIZES = [(32, 10), (64, 200)]  # of an image's side, and classes
# Convolution weights in millions, and GMACs for each of SIZES, read off a plot.
PUBLISHED = {
    "resnet18": {
        "dense": (11.159, 0.559, 2.227),
        "pSC4": (5.056, 0.253, 1.005),
        "pSC2": (2.615, 0.130, 0.518),
        "pSC1": (1.394, 0.069, 0.274),
        "PS4_P4": (5.056, 0.253, 1.005),
        "PS2_P6": (2.615, 0.130, 0.518),
        "PS1_P9": (1.394, 0.069, 0.274),
        "PSD4_P8": (5.819, 0.291, 1.156),
        "PSD4_P16": (5.438, 0.272, 1.081),
        "PSD2_P8": (3.683, 0.184, 0.731),
        "PSD2_P16": (3.149, 0.157, 0.625),
        "PSD1_P8": (2.615, 0.130, 0.518),
        "PSD1_P16": (2.005, 0.100, 0.396),
    },
    "vgg16": {
        "dense": (14.710, 0.314, 1.255),
        "pSC4": (6.539, 0.141, 0.562),
        "pSC2": (3.270, 0.071, 0.284),
        "pSC1": (1.636, 0.037, 0.145),
        "PS4_P4": (6.539, 0.141, 0.562),
        "PS2_P6": (3.270, 0.071, 0.284),
        "PS1_P9": (1.636, 0.037, 0.145),
        "PSD4_P8": (7.560, 0.162, 0.645),
        "PSD4_P16": (7.050, 0.152, 0.601),
        "PSD2_P8": (4.700, 0.102, 0.406),
        "PSD2_P16": (3.985, 0.087, 0.340),
        "PSD1_P8": (3.270, 0.071, 0.284),
        "PSD1_P16": (2.453, 0.054, 0.215),
    },
}
HALF_A_DIGIT = 0.0005  # published figures have three decimals

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("output", None, "Folder for costs.md.", required=True)


def main():
    write_bytes(pathlib.Path(FLAGS.output) / "costs.md", page(measure()))


def measure():
    """Returns {(arch, variant, image size): `tfsparse.cost.ModelCost`} of all networks."""
    costs = {}
    for arch, variants in PUBLISHED.items():
        for variant in variants:
            keras.utils.clear_session()
            for size, classes in SIZES:
                costs[arch, variant, size] = measure_one(arch, variant, size, classes)
    return costs


def measure_one(arch, variant, size, classes):
    pattern = None if variant == "dense" else variant
    model = zoo.build(arch, (size, size, 3), classes, width=WIDTH, pattern=pattern)
    for layer in model.layers:
        if hasattr(layer, "kernel"):  # a random weight can be exactly zero
            layer.kernel.assign(keras.ops.ones_like(layer.kernel))
    return cost.model_cost(model)


def deviation(measured, published):
    """Returns the deviation of `measured` in % of `published`, both in G."""
    return 100 * (measured - published) / published


def unexplained(measured, published):
    """Returns the part of the deviation, in %, that rounding to three decimals leaves unexplained.

    The published figure stands for all numbers within half a unit of its last place; this is the
    distance to the nearest of them.
    """
    distance = max(abs(measured - published) - HALF_A_DIGIT, 0)
    return 100 * distance / published


def page(costs):
    """Returns the Markdown page of what `measure` returned."""
    sections = [_introduction(costs)]
    for arch, variants in PUBLISHED.items():
        sections.append(f"## {arch}\n")
        sections.append(_storage_table(arch, variants, costs))
        for index, (size, classes) in enumerate(SIZES):
            sections.append(f"### {arch}, {size}x{size}, {classes} classes\n")
            sections.append(_macs_table(arch, variants, costs, index))
    return "\n".join(sections)


def _introduction(costs):
    gaps = {
        key: _compare(costs, *key, index + 1)
        for index, (size, _) in enumerate(SIZES)
        for key in costs
        if key[2] == size
    }
    worst = max(gaps, key=lambda key: abs(gaps[key][0]))
    left = max(gaps, key=lambda key: gaps[key][1])
    above = [key for key in gaps if abs(gaps[key][0]) > 1.5]
    rounded = [
        round(costs[arch, variant, SIZES[0][0]].conv_parameters / 1e6, 3) == published[0]
        for arch, variants in PUBLISHED.items()
        for variant, published in variants.items()
    ]
    classifier = max(100 * (1 - cost.conv_macs / cost.macs) for cost in costs.values())
    return f"""\
# Costs

Weights, MACs, storage and energy of the paper's networks at full width, beside what the paper
prints (Kundu et al., [arXiv 2001.10710](https://arxiv.org/abs/2001.10710)). This page is what
`python -m studies.costs --output=docs` writes: it builds each network and counts with
`tfsparse.cost.model_cost`; a test compares the two.

**Weights** are those of all convolutions, the dense first one and the 1x1 shortcuts included, the
classifier not. {sum(rounded)} of the {len(rounded)} published figures agree in all their decimals.

**MACs** are those of all convolutions, taps on padding included; the classifier would add at most
{classifier:.2f} %. The published ones are read off a plot.

- Largest deviation from a figure as printed: {gaps[worst][0]:+.2f} % ({_name(worst)}).
- More than 1.5 % off as printed: {", ".join(map(_name, above)) or "none"}.
- A figure with three decimals stands for all numbers within 0.0005 of it, which is up to
  {_rounding():.1f} % of it. "Beyond rounding" is the distance to the nearest of these numbers.
  Largest: {gaps[left][1]:.2f} % ({_name(left)}).

**Storage** is that of all kernels, the classifier's included, for 32-bit weights, in Mbit (10^6
bits), with the index that each format needs (`tfsparse.storage`). In "periodic", layers without a
periodic pattern, such as the first one, are dense.

**DRAM** words have 32 bits: each layer reads its kernel, in the smallest of these formats, and its
input once and writes its output once; what stands between the layers is fused. **Energy** is a
model of one inference from these words and the MACs, classifier included, and not a measurement:
`tfsparse.energy`, after {energy.SOURCE}.
"""


def _name(key):
    arch, variant, size = key
    return f"{arch} {variant} {size}x{size}"


def _rounding():
    smallest = min(
        value for rows in PUBLISHED.values() for row in rows.values() for value in row[1:]
    )
    return 100 * HALF_A_DIGIT / smallest


def _compare(costs, arch, variant, size, column):
    """Returns the deviation of the MACs from the published ones, and what rounding leaves of it."""
    measured, published = costs[arch, variant, size].conv_macs / 1e9, PUBLISHED[arch][variant]
    return deviation(measured, published[column]), unexplained(measured, published[column])


def _storage_table(arch, variants, costs):
    size, classes = SIZES[0]
    lines = [
        f"Storage with {classes} classes.\n",
        "| pattern | weights | published, M | dense, Mbit | CSR | bitmap | periodic |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant, published in variants.items():
        cost = costs[arch, variant, size]
        sizes = cost.storage(BITS)
        cells = ["-" if sizes[name] is None else f"{sizes[name] / 1e6:.2f}" for name in FORMATS]
        lines.append(
            f"| {variant} | {cost.conv_parameters:,} | {published[0]:.3f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _macs_table(arch, variants, costs, index):
    size = SIZES[index][0]
    lines = [
        "| pattern | MACs, G | published | deviation, % | beyond rounding, % "
        "| DRAM, M words | of these weights | energy, mJ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, published in variants.items():
        cost = costs[arch, variant, size]
        off, left = _compare(costs, arch, variant, size, index + 1)
        traffic = cost.dram_traffic(BITS)
        spent = energy.estimate(cost.nonzero_macs, traffic.words, BITS)
        lines.append(
            f"| {variant} | {cost.conv_macs / 1e9:.4f} | {published[index + 1]:.3f} | {off:+.2f} "
            f"| {left:.2f} | {traffic.words / 1e6:.2f} | {traffic.weights / 32e6:.2f} "
            f"| {spent.total / 1e9:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
