"""The C kernels of layers without weights against LiteRT's reference kernels."""

from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.tflite.codegen import programs, reference
from tests.tflite.codegen.reference import tensor
from tflite.codegen import layers
from tflite.codegen.emulation import KERNELS


class Operator(NamedTuple):
    """An operator without weights: its C source, its inputs, and what LiteRT makes of them."""

    source: str
    inputs: bytes
    scratch: int
    expected: np.ndarray


def _struct(kind, name, fields):
    values = ", ".join(f".{field} = {value}" for field, value in fields.items())
    return f"static const tfsparse_{kind} {name}_layer = {{{values}}};\n"


def make_addition(name, seed, shape, scales, zero_points, activation):
    rng = np.random.default_rng(seed)
    first, second, target = (
        Quantized(shape, np.float32(s), z) for s, z in zip(scales, zero_points, strict=True)
    )
    values = [rng.integers(-128, 128, shape).astype(np.int8) for _ in range(2)]
    options = schema.AddOptionsT()
    options.fusedActivationFunction = activation
    tensors = [tensor((1, *shape), each.scale, each.zero_point) for each in (first, second, target)]
    expected = reference.run("ADD", options, tensors[:2], tensors[2], [v[None] for v in values])[0]
    fields = layers.addition(first, second, target, activation).fields
    count = values[0].size
    call = f"tfsparse_add(input, input + {count}, &{name}_layer, {count}, output, scratch);"
    source = _struct("addition", name, fields) + programs.function_source(name, call)
    return Operator(source, b"".join(value.tobytes() for value in values), 2048, expected)


class Quantized(NamedTuple):
    """What `layers` reads of a tensor."""

    shape: tuple
    scale: float
    zero_point: int

    @property
    def quantization(self):
        return self.scale, self.zero_point


def make_mean(name, seed, shape, scales, zero_points):
    rng = np.random.default_rng(seed)
    source, target = (
        Quantized(shape, float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True)
    )
    image = rng.integers(-128, 128, (1, *shape)).astype(np.int8)
    options = schema.ReducerOptionsT()
    options.keepDims = True
    axes = np.array([1, 2], np.int32)
    output = tensor((1, 1, 1, shape[2]), target.scale, target.zero_point)
    inputs = [tensor(image.shape, source.scale, source.zero_point)]
    inputs.append(tensor((2,), dtype=np.int32, data=axes))
    expected = reference.run("MEAN", options, inputs, output, [image])[0]
    fields = layers.mean(source, target, shape[0] * shape[1], shape[2]).fields
    call = f"tfsparse_mean(input, &{name}_layer, output);"
    text = _struct("averaging", name, fields) + programs.function_source(name, call)
    return Operator(text, image.tobytes(), 0, expected)


def make_pooling(name, seed, kind, shape, window, stride, padding, activation=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(-128, 128, (1, *shape)).astype(np.int8)
    outputs, pads = zip(
        *(reference.geometry(s, window, stride, padding) for s in shape[:2]), strict=True
    )
    options = schema.Pool2DOptionsT()
    options.padding = getattr(schema.Padding, padding)
    options.strideH = options.strideW = stride
    options.filterHeight = options.filterWidth = window
    options.fusedActivationFunction = activation
    target = tensor((1, *outputs, shape[2]), 0.1, -7)
    code = {"max": "MAX_POOL_2D", "average": "AVERAGE_POOL_2D"}[kind]
    expected = reference.run(code, options, [tensor(image.shape, 0.1, -7)], target, [image])[0]
    low, high = layers.activation_range(activation, np.float32(0.1), -7)
    fields = {
        "input_height": shape[0], "input_width": shape[1], "channels": shape[2],
        "output_height": outputs[0], "output_width": outputs[1], "window_height": window,
        "window_width": window, "stride_height": stride, "stride_width": stride,
        "pad_top": pads[0], "pad_left": pads[1], "activation_min": low, "activation_max": high,
    }  # fmt: skip
    call = f"tfsparse_{kind}_pool(input, &{name}_layer, output);"
    text = _struct("pooling", name, fields) + programs.function_source(name, call)
    return Operator(text, image.tobytes(), 0, expected)


OPERATORS = {
    "add": (make_addition, (5, 7, 3), (0.1, 0.07, 0.12), (3, -128, 5), 0),
    "add_clamped": (make_addition, (4, 4, 8), (0.01, 0.2, 0.05), (-128, 127, -100), 3),
    "add_large": (make_addition, (16, 8, 9), (0.1, 0.1, 0.002), (0, 0, 0), 1),
    "mean": (make_mean, (8, 8, 6), (0.1, 0.05), (-128, 4)),
    "mean_odd": (make_mean, (3, 7, 5), (0.02, 0.01), (100, -128)),
    "mean_pixel": (make_mean, (1, 1, 3), (0.1, 0.02), (0, 0)),
    "max": (make_pooling, "max", (6, 8, 5), 2, 2, "VALID"),
    "max_padded": (make_pooling, "max", (7, 5, 3), 3, 2, "SAME", 1),
    "average": (make_pooling, "average", (7, 9, 4), 3, 2, "SAME"),
    "average_clamped": (make_pooling, "average", (4, 4, 3), 2, 1, "VALID", 3),
}


def test_other_operators_equal_litert(tmp_path):
    made = {
        name: make(name, seed, *arguments)
        for seed, (name, (make, *arguments)) in enumerate(OPERATORS.items())
    }
    programs.write_program(
        tmp_path,
        [
            (name, each.source, len(each.inputs), each.expected.size, each.scratch)
            for name, each in made.items()
        ],
    )
    names = ("add", "mean", "max_pool", "average_pool")
    sources = [KERNELS / f"{name}.c" for name in names]
    sizes = [each.expected.size for each in made.values()]
    inputs = [each.inputs for each in made.values()]
    outputs = programs.run_here(tmp_path, sources, inputs, sizes, flags=programs.SANITIZED)
    for (name, each), output in zip(made.items(), outputs, strict=True):
        assert output == each.expected.tobytes(), name
    if programs.HAS_BENCH:
        _check_emulated(tmp_path, sources, made)


def _check_emulated(folder, sources, made):
    for target in ("cortex-m4", "cortex-m0", "riscv32"):
        program = programs.emulate(folder, sources, target)
        for index, (name, each) in enumerate(made.items()):
            image = program.place(np.frombuffer(each.inputs, np.int8))
            scratch = program.place(np.zeros(each.scratch, np.int8))
            output = program.place(np.zeros(each.expected.size, np.int8))
            program.call("run_layer", index, image, output, scratch)
            found = program.read(output, each.expected.size)
            assert np.array_equal(found, each.expected.ravel()), (target, name)


def test_tables_and_copies(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(-128, 128, (4, 3)).astype(np.int8)
    table = rng.integers(-128, 128, (3, 256)).astype(np.int8)
    one = "tfsparse_look_up(input, table, 1, 12, output);"
    each = "tfsparse_look_up(input, table, 3, 12, output);"
    copy = "tfsparse_copy(input + 1, 3, 2, 4, output + 1, 3);"
    zeros = "for (int i = 0; i < 12; i++) output[i] = 0;"
    listed = [
        ("one", programs.array_source("table", table) + programs.function_source("one", one)),
        ("each", programs.function_source("each", each)),
        ("copied", programs.function_source("copied", f"{zeros}\n  {copy}")),
    ]
    programs.write_program(tmp_path, [(*each, 12, 12, 0) for each in listed])
    sources = [KERNELS / "look_up.c", KERNELS / "copy.c"]
    outputs = programs.run_here(
        tmp_path, sources, [image.tobytes()] * 3, [12] * 3, flags=programs.SANITIZED
    )
    arrays = [np.frombuffer(output, np.int8).reshape(4, 3) for output in outputs]
    codes = image.astype(int) + 128
    assert np.array_equal(arrays[0], table[0][codes])
    assert np.array_equal(arrays[1], table[np.arange(3), codes])
    assert np.array_equal(arrays[2], image * np.array([0, 1, 1], np.int8))
