"""How many instructions does one convolution take on a Cortex-M4, dense, periodic, and pruned?

    python -m studies microcontroller_layers

Generates 3x3 convolutions with random weights as C and runs them on an emulated Cortex-M4. Needs
the extra `bench`. Adds to microcontroller_layers.json and writes microcontroller_layers.md.
"""

import pathlib
import tempfile

import numpy as np
import tqdm
from absl import flags

from studies import records
from studies.microcontroller import spent
from tflite.codegen import bench, host
from tflite.codegen.layers import Layer
from tflite.codegen.network import Network
from tflite.codegen.package import Package
from tflite.codegen.packing import Convolution
from tflite.codegen.program import program_of
from tflite.codegen.reading import Graph, Tensor
from tflite.codegen.writing import write_sources
from tfsparse import patterns, tables

NAME = "microcontroller_layers"
SIZES = [(8, 64), (16, 32), (32, 16)]  # height and width of the image, channels and filters
_PERIODIC = ("PS4_P4", "PS2_P6", "PS1_P9", "PSD1_P16")
_DENSITIES = (50, 25, 10, 5, 2)
KINDS = [
    *("dense", *_PERIODIC, *(f"{name}_F1" for name in _PERIODIC)),
    *(f"{density} % kept" for density in _DENSITIES),
]

FLAGS = flags.FLAGS


def define_flags():
    records.define_output()


def main():
    for size, channels in SIZES:
        title = f"{size}x{size}x{channels}"
        rows = [measure(size, channels, kind) for kind in tqdm.tqdm(KINDS, title, disable=None)]
        run = {"settings": {"size": size, "channels": channels}, "rows": rows}
        records.record(FLAGS.output, NAME, [run], page)


def measure(size, channels, kind):
    """Returns what one 3x3 convolution takes, a dict for JSON.

    Args:
        size: height and width of its input and output.
        channels: of its input, and its filters.
        kind: one of KINDS; the weights are random.
    """
    rng = np.random.default_rng(0)
    shape = (channels, 3, 3, channels)
    weights = (rng.integers(1, 128, shape) * rng.choice([-1, 1], shape)).astype(np.int8)
    kept = np.ones(shape, bool)
    if kind.endswith(" kept"):
        order = rng.permutation(weights.size)
        count = round(weights.size * int(kind.split()[0]) / 100)
        kept.ravel()[order[count:]] = False
    elif kind != "dense":
        kept = patterns.parse(kind).mask((3, 3), channels, channels).transpose(3, 0, 1, 2)
    image = (size, size, channels)
    made = Convolution(
        image,
        image,
        np.where(kept, weights, 0).astype(np.int8),
        bias=rng.integers(-1000, 1000, channels).astype(np.int32),
        multiplier=rng.integers(1 << 30, (1 << 31) - 1, channels).astype(np.int32),
        shift=np.full(channels, -10, np.int32),
        padding=(1, 1),
        input_zero_point=-128,
        output_zero_point=-128,
        kept=None if kind.endswith(" kept") or kind == "dense" else kept,
    )
    tensor = Tensor((1, *image), np.int8, np.array([1.0]), -128, None)
    graph = Graph([tensor, tensor], [], 0, 1, None)
    program = program_of(Network([Layer(made, (0,), 1, kind)], [image, image], 1, graph), {})
    codes = rng.integers(-128, 128, (1, *image)).astype(np.int8)
    with tempfile.TemporaryDirectory() as folder:
        sources, build = pathlib.Path(folder, "sources"), pathlib.Path(folder)
        sources.mkdir()
        write_sources(program, b"", codes, codes, sources, kind)
        outputs = host.run(host.build(sources, build), codes)  # plain C: the same bits are expected
        measured = bench.measure(Package(program, codes, outputs, 1), sources)
    return {"kind": kind, "kernel": program.calls[0].kernel, **spent(measured)}


page = records.page_of_tables(NAME, lambda run: table(run))


def table(run):
    """Returns the Markdown table of a single layer in all kinds."""
    size, channels = run["settings"]["size"], run["settings"]["channels"]
    (baseline,) = [
        int(row["instructions"])
        for row in records.read_csv("cmsis_nn")
        if (int(row["size"]), int(row["channels"])) == (size, channels)
    ]
    title = f"**{size}x{size}x{channels} to {channels}, 3x3** (CMSIS-NN: {baseline / 1000:,.0f}k)"
    rows = []
    for row in run["rows"]:
        rows.append(
            [
                row["kind"],
                row["kernel"],
                f"{row['macs'] / 1000:,.0f}k",
                f"{row['instructions'] / 1000:,.0f}k",
                f"{row['instructions'] / row['macs']:.2f}",
                f"{baseline / row['instructions']:.1f}x",
            ]
        )
    header = ["", "kernel", "MACs", "instructions", "per MAC", "fewer than CMSIS-NN"]
    return f"{title}\n\n{tables.markdown(header, rows)}"
