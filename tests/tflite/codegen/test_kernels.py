"""The C kernels of convolutions against LiteRT, on this machine and on emulated ones."""

from typing import NamedTuple

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite.codegen import programs, reference
from tests.tflite.codegen.reference import tensor
from tflite.codegen import layers
from tflite.codegen.choosing import candidates
from tflite.codegen.emulation import KERNELS, compile_sources
from tflite.codegen.packing import Convolution
from tflite.codegen.quantization import quantize_multiplier
from tfsparse.errors import UsageError


class Case(NamedTuple):
    """A convolution: `kept` is a density, a number of groups of filters, or None for all."""

    size: tuple  # height, width, channels of the input
    filters: int
    kernel: tuple = (3, 3)
    stride: int = 1
    padding: str = "SAME"
    activation: int = 0  # of the schema: none
    kept: float | int | None = None
    zero_points: tuple = (-128, -128)
    depthwise: bool = False
    gain: float = 1.0  # of the output's scale


CASES = {
    "dense": Case((8, 8, 16), 6),
    "dense_odd": Case((5, 7, 6), 5, zero_points=(3, -20)),
    "dense_clamped": Case((4, 6, 8), 4, activation=3, zero_points=(-128, -50)),
    "stride": Case((9, 9, 8), 6, stride=2, zero_points=(17, 0)),
    "valid": Case((7, 9, 4), 4, kernel=(3, 2), padding="VALID"),
    "valid_stride": Case((8, 11, 8), 6, kernel=(2, 5), stride=3, padding="VALID"),
    "narrow_channels": Case((6, 6, 3), 8, activation=1),
    "one_channel": Case((5, 5, 1), 3, kernel=(1, 1)),
    "pointwise": Case((6, 4, 12), 10, kernel=(1, 1)),
    "pointwise_stride": Case((8, 8, 8), 12, kernel=(1, 1), stride=2),
    "tall": Case((6, 3, 4), 4, kernel=(5, 1), zero_points=(127, 127)),
    "very_tall": Case((19, 4, 2), 2, kernel=(17, 1)),
    "one_pixel": Case((1, 1, 20), 10, kernel=(1, 1)),
    "one_group": Case((8, 8, 16), 6, kept=1),
    "three_groups": Case((6, 8, 12), 9, kept=3),
    "two_groups": Case((9, 10, 6), 8, stride=2, kept=2, zero_points=(7, -9)),
    "two_groups_narrow": Case((3, 3, 18), 4, kept=2),
    "density_50": Case((8, 8, 8), 6, kept=0.5),
    "density_10": Case((6, 16, 16), 8, kept=0.1, zero_points=(5, -3)),
    "density_02": Case((5, 10, 32), 7, kept=0.02, activation=3),
    "sparse_stride": Case((10, 18, 8), 8, stride=2, kept=0.2),
    "sparse_narrow": Case((5, 4, 16), 6, kept=0.2),
    "sparse_tiny": Case((2, 2, 16), 4, kept=0.2),
    "sparse_stride_narrow": Case((7, 5, 8), 4, stride=2, kept=0.3),
    "depthwise": Case((8, 8, 10), 10, depthwise=True),
    "depthwise_stride": Case((9, 7, 6), 6, stride=2, depthwise=True, zero_points=(9, 4)),
    "depthwise_multiplier": Case((4, 4, 3), 6, depthwise=True),
    "large_scale": Case((4, 4, 2), 4, gain=1e-4),
    "tiny_scale": Case((4, 4, 8), 4, gain=1e7),
}


def make(case, seed):
    """Returns a `Convolution`, an input, and what LiteRT makes of it."""
    rng = np.random.default_rng(seed)
    height, width, channels = case.size
    outputs, padding = zip(
        *(
            reference.geometry(size, taps, case.stride, case.padding)
            for size, taps in zip((height, width), case.kernel, strict=True)
        ),
        strict=True,
    )
    shape = (1, *case.kernel, case.filters) if case.depthwise else (
        case.filters, *case.kernel, channels)  # fmt: skip
    kept = _kept(case.kept, shape, rng)
    weights = np.where(kept, rng.normal(0, 30, shape).round().clip(-127, 127), 0).astype(np.int8)
    scales = rng.uniform(0.005, 0.02, case.filters).astype(np.float32)
    source, target = np.float32(0.05), np.float32(0.3 * case.gain)
    bias = rng.integers(-2000, 2000, case.filters).astype(np.int32)
    image = rng.integers(-128, 128, (1, *case.size)).astype(np.int8)
    zero_in, zero_out = case.zero_points
    options = schema.DepthwiseConv2DOptionsT() if case.depthwise else schema.Conv2DOptionsT()
    options.padding = getattr(schema.Padding, case.padding)
    options.strideH = options.strideW = case.stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = case.activation
    if case.depthwise:
        options.depthMultiplier = case.filters // channels
    expected = reference.run(
        "DEPTHWISE_CONV_2D" if case.depthwise else "CONV_2D",
        options,
        [
            tensor(image.shape, source, zero_in),
            tensor(shape, scales, data=weights, axis=3 if case.depthwise else 0),
            tensor(bias.shape, source * scales, dtype=np.int32, data=bias),
        ],
        tensor((1, *outputs, case.filters), target, zero_out),
        [image],
    )[0]
    factors = [float(source) * float(scale) / float(target) for scale in scales]
    multiplier, shift = quantize_multiplier(factors)
    convolution = Convolution(
        case.size, (*outputs, case.filters), weights, bias, multiplier, shift,
        (case.stride, case.stride), padding, zero_in, zero_out,
        layers.activation_range(case.activation, target, zero_out), case.depthwise, kept,
    )  # fmt: skip
    return convolution, image, expected


def _kept(kept, shape, rng):
    if kept is None:
        return np.ones(shape, bool)
    if isinstance(kept, float):
        return rng.random(shape) < kept
    groups = rng.random((kept, *shape[1:])) < 0.4
    return groups[np.arange(shape[0]) * kept // shape[0]]


@pytest.fixture(scope="module")
def made():
    """[(name, packed, input, output of LiteRT)] for each case and each kernel that can run it."""
    found = []
    for seed, (name, case) in enumerate(CASES.items()):
        convolution, image, expected = make(case, seed)
        for packed in candidates(convolution):
            found.append((f"{name}_{packed.kernel}", packed, image, expected))
    return found


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """A folder with a program of all convolutions; and the sources of the kernels."""
    folder = tmp_path_factory.mktemp("kernels")
    listed = [
        (
            name,
            programs.convolution_source(name, packed),
            image.size,
            expected.size,
            packed.scratch_bytes,
        )
        for name, packed, image, expected in made
    ]
    programs.write_program(folder, listed)
    return folder


@pytest.fixture(scope="module")
def sources(made):
    return sorted({KERNELS / source for _, packed, *_ in made for source in packed.sources})


def test_kernels_of_each_case(made):
    kernels = {}
    for name, packed, *_ in made:
        case = name.removesuffix(f"_{packed.kernel}")
        kernels.setdefault(case, set()).add(packed.kernel)
    assert set(kernels) == set(CASES)
    kinds = {"convolve_gathered", "convolve_pairs", "convolve_sparse"}
    assert kernels["dense"] == kernels["density_10"] == kinds
    assert kernels["three_groups"] == kinds - {"convolve_pairs"}  # of an odd number of filters
    assert kernels["depthwise"] == {"convolve_sparse"}
    assert kernels["very_tall"] == {"convolve_pairs", "convolve_sparse"}
    for case in ("large_scale", "tiny_scale", "depthwise_multiplier"):
        assert kernels[case] == {"convolve_plain"}


def test_rows_longer_than_the_table_of_gathered_convolutions():
    """It has 16 bits for a run's pairs and for its offset."""
    for columns, fits in ((3, True), (5, False)):
        size = columns, 30_000
        numbers = np.full(2, 1 << 30, np.int32), np.full(2, -7)
        weights = np.zeros((2, 1, *size), np.int8)
        wide = Convolution((1, *size), (1, 1, 2), weights, np.zeros(2, np.int32), *numbers)
        kernels = {packed.kernel for packed in candidates(wide)}
        assert ("convolve_gathered" in kernels) == fits


def test_sums_that_need_more_bits():
    convolution, *_ = make(CASES["dense"], seed=0)
    for bias, kernels in (
        (1 << 22, {"convolve_gathered", "convolve_pairs"}),  # no two sums in a word
        (1 << 30, {"convolve_plain"}),
    ):
        convolution.bias = np.full(6, bias, np.int32)
        assert {packed.kernel for packed in candidates(convolution)} == kernels


def test_too_large():
    convolution, *_ = make(CASES["dense"], seed=0)
    convolution.stride = (256, 1)
    with pytest.raises(UsageError, match=r"0 to 255 as stride_height.*256"):
        candidates(convolution)


def check(made, outputs):
    wrong = [
        name
        for (name, _, _, expected), output in zip(made, outputs, strict=True)
        if output != expected.tobytes()
    ]
    assert not wrong


def test_convolutions_equal_litert(made, folder, sources):
    outputs = programs.run_here(
        folder,
        sources,
        [image.tobytes() for *_, image, _ in made],
        [expected.size for *_, expected in made],
        flags=programs.SANITIZED,
    )
    check(made, outputs)


@programs.emulated
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m0", "riscv32"])
def test_convolutions_are_the_same_on_microcontrollers(made, folder, sources, target):
    """With the output as near to the input as `distance` allows."""
    program = programs.emulate(folder, sources, target)
    outputs = []
    for index, (_, packed, image, expected) in enumerate(made):
        memory = np.zeros(max(packed.distance + image.size, expected.size), np.int8)
        memory[packed.distance :][: image.size] = image.ravel()
        scratch = program.place(np.full(packed.scratch_bytes + 8, 0x5A, np.int8))
        output = program.place(memory)
        program.call("run_layer", index, output + packed.distance, output, scratch)
        outputs.append(program.read(output, expected.size).tobytes())
        beyond = program.read(scratch + packed.scratch_bytes, 8)
        assert (beyond == 0x5A).all()
    check(made, outputs)


@programs.emulated
def test_kernels_compile_without_warnings(tmp_path):
    """For another core and without optimization, which other tests do not do."""
    flags = (*programs.STRICT, "-mcpu=cortex_m33", "-O0")
    assert compile_sources(sorted(KERNELS.glob("*.c")), "cortex-m4", tmp_path, flags)
