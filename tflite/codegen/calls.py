"""The layers of a network as calls of kernels in C, with what each call needs."""

import dataclasses

import numpy as np

from tflite.codegen import layers, structs
from tflite.codegen.choosing import pack
from tflite.codegen.packing import Convolution

_ADDITION_SCRATCH = 2048  # bytes


@dataclasses.dataclass
class Call:
    """One layer in C.

    Attributes:
        layer: the `layers.Layer`.
        kernel: name of the function without its prefix.
        sources: names of its .c files in kernels/.
        arguments: list of str; "{in0}", "{out}", "{scratch}", "{layer}", and "{array}" stand for
            pointers. One list for each call, as copies take several.
        struct: name of the C type of its parameters, or None.
        fields: {field: number or name of an array}.
        arrays: {name: array} of constants.
        scratch: bytes that it needs beside input and output.
        distances: for each input, how many bytes before it the output may begin although they
            overlap; None if they must lie apart.
        fill: number that the output is filled with first, or None.
        macs: multiply-accumulates of weights that the kernel computes with.
        estimate: instructions on a Cortex-M4 by the cost model, or None.
    """

    layer: layers.Layer
    kernel: str
    sources: tuple
    arguments: list
    struct: str | None
    fields: dict
    arrays: dict
    scratch: int
    distances: tuple
    fill: int | None = None
    macs: int = 0
    estimate: int | None = None

    @property
    def flash_bytes(self):
        """Bytes of its constants, without code."""
        size = structs.size_of(self.struct) if self.struct else 0
        return sum(array.nbytes for array in self.arrays.values()) + size


def make_call(layer):
    """Returns the `Call` of a `layers.Layer`.

    Raises:
        UsageError: if a size of the layer is larger than the C struct can hold.
    """
    call = _CALLS[type(layer.operation)](layer)
    if call.struct:
        structs.check(call.struct, call.fields)
    return call


def _convolution(layer):
    made = layer.operation
    packed = pack(made)
    pixels = int(np.prod(made.output_shape[:2]))
    return Call(
        layer,
        packed.kernel,
        packed.sources,
        [["{in0}", "{layer}", "{out}", "{scratch}"]],
        "convolution",
        packed.fields,
        packed.arrays,
        int(packed.scratch_bytes),
        (int(packed.distance),),
        macs=pixels * int(np.count_nonzero(made.weights)),
        estimate=int(packed.instructions),
    )


def _connection(layer):
    made = layer.operation
    weights = np.concatenate([made.weights, np.zeros_like(made.weights[: len(made.weights) % 2])])
    arrays = {
        "weights": weights.reshape(-1, 2, weights.shape[1]).transpose(0, 2, 1).copy(),
        "bias": made.bias,
        "multiplier": made.multiplier,
        "shift": made.shift.astype(np.int8),
    }
    fields = {**made.fields, **{name: name for name in arrays}}
    return Call(
        layer,
        "fully_connected",
        ("fully_connected.c",),
        [["{in0}", "{layer}", "{out}"]],
        "connection",
        fields,
        arrays,
        0,
        (None,),
        macs=int(np.count_nonzero(made.weights)),
    )


def _addition(layer):
    made = layer.operation
    arguments = ["{in0}", "{in1}", "{layer}", str(made.count), "{out}", "{scratch}"]
    scratch = _ADDITION_SCRATCH
    distances = (0,) * len(layer.inputs)
    if len(layer.inputs) == 2 and layer.inputs[0] == layer.inputs[1]:
        layer = dataclasses.replace(layer, inputs=layer.inputs[:1])
        arguments[1], distances = "{in0}", (0,)
    return Call(
        layer, "add", ("add.c",), [arguments], "addition", made.fields, {}, scratch, distances
    )


def _pooling(layer):
    made, name = layer.operation, f"{layer.operation.kind}_pool"
    arguments = ["{in0}", "{layer}", "{out}"]
    distance = _pooling_distance(made.fields)
    return Call(
        layer, name, (f"{name}.c",), [arguments], "pooling", made.fields, {}, 0, (distance,)
    )


def _pooling_distance(fields):
    """Returns how far the output of pooling must begin before its input.

    A kernel writes the channels of a pixel while it reads the window of that pixel.
    """
    window = {}
    for axis, size, pad in (("height", "height", "top"), ("width", "width", "left")):
        count = np.arange(fields[f"output_{size}"])
        window[axis] = np.maximum(0, count * fields[f"stride_{axis}"] - fields[f"pad_{pad}"])
    first = window["height"][:, None] * fields["input_width"] + window["width"]
    written = np.arange(1, first.size + 1).reshape(first.shape)
    return int((written - first).max()) * fields["channels"]


def _mean(layer):
    fields = layer.operation.fields
    arguments = ["{in0}", "{layer}", "{out}"]
    return Call(layer, "mean", ("mean.c",), [arguments], "averaging", fields, {}, 0, (0,))


def _look_up(layer):
    made = layer.operation
    arguments = ["{in0}", "{table}", str(len(made.table)), str(made.count), "{out}"]
    arrays = {"table": made.table}
    return Call(layer, "look_up", ("look_up.c",), [arguments], None, {}, arrays, 0, (0,))


def _softmax(layer):
    made = layer.operation
    arguments = ["{in0}", "{exponentials}", str(made.count), "{out}"]
    arrays = {"exponentials": made.exponentials}
    return Call(layer, "softmax", ("softmax.c",), [arguments], None, {}, arrays, 0, (0,))


def _copy(layer):
    made, calls = layer.operation, []
    for row in made.rows:
        source = f"{{in{row.source}}} + {row.offset}"
        sizes = map(str, (row.pitch, row.bytes, row.rows))
        calls.append([source, *sizes, f"{{out}} + {row.output_offset}", str(row.output_pitch)])
    distances = (None,) * len(layer.inputs)
    return Call(layer, "copy", ("copy.c",), calls, None, {}, {}, 0, distances, fill=made.fill)


_CALLS = {
    Convolution: _convolution,
    layers.Addition: _addition,
    layers.Connection: _connection,
    layers.Copy: _copy,
    layers.LookUp: _look_up,
    layers.Mean: _mean,
    layers.Pooling: _pooling,
    layers.Softmax: _softmax,
}
