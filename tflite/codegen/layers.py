"""The layers of a network in C, and the numbers that LiteRT's kernels compute with."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from tflite.codegen.quantization import mean_multiplier, quantize_multiplier
from tfsparse.errors import UsageError


@dataclasses.dataclass
class Layer:
    """One call of a kernel.

    Attributes:
        operation: a `packing.Convolution` or one of the classes below.
        inputs: indices of the stored tensors that it reads.
        output: index of the one that it writes.
        title: operators of the file that it computes, such as "CONV_2D 3".
    """

    operation: object
    inputs: tuple
    output: int
    title: str


@dataclasses.dataclass
class Addition:
    """The sum of two tensors, and the fields of `tfsparse_addition`."""

    count: int
    fields: dict


@dataclasses.dataclass
class Pooling:
    """Pooling of windows, and the fields of `tfsparse_pooling`; `kind` is "max" or "average"."""

    kind: str
    fields: dict


@dataclasses.dataclass
class Mean:
    """The mean of each channel over all pixels, and the fields of `tfsparse_averaging`."""

    fields: dict


@dataclasses.dataclass
class LookUp:
    """Any function of single numbers: int8 [1 or channels, 256], its results for -128 to 127."""

    table: np.ndarray
    count: int


@dataclasses.dataclass
class Connection:
    """A fully connected layer, and the fields of `tfsparse_connection` that are numbers.

    Attributes:
        weights: int8 [outputs, inputs].
        bias: int32 [outputs], with the input's zero point folded in.
        multiplier, shift: int32 [outputs]: factors of multiplier / 2^shift.
        fields: {field: number}.
    """

    weights: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    fields: dict


@dataclasses.dataclass
class Softmax:
    """Softmax of a vector: int32 [256], the exponentials that its kernel reads."""

    exponentials: np.ndarray
    count: int


class Rows(NamedTuple):
    """Rows of `bytes` bytes to copy; offsets and pitches in bytes."""

    source: int  # position among the layer's inputs
    offset: int
    pitch: int
    bytes: int
    rows: int
    output_offset: int
    output_pitch: int


@dataclasses.dataclass
class Copy:
    """Numbers from elsewhere: a fill, if `fill` is a number, and then rows of other tensors."""

    size: int
    fill: int | None
    rows: list


ACTIVATIONS = {0: (None, None), 1: (0, None), 2: (-1, 1), 3: (0, 6)}  # of the schema


def activation_range(activation, scale, zero_point):
    """Returns the (smallest, largest) number after one of `ACTIVATIONS`."""
    bounds = [
        limit
        if real is None
        else zero_point + int(np.floor(np.float32(real) / np.float32(scale) + 0.5))
        for real, limit in zip(ACTIVATIONS[activation], (-128, 127), strict=True)
    ]
    return max(-128, bounds[0]), min(127, bounds[1])


def addition(first, second, output, activation):
    """Returns the `Addition` of two `reading.Tensor`s.

    LiteRT shifts both inputs left by 20 bits, brings them to the same scale, twice the larger one,
    and the sum to that of the output.
    """
    twice = 2 * max(first.scale, second.scale)
    factors = [first.scale / twice, second.scale / twice, twice / (output.scale * (1 << 20))]
    multipliers, shifts = quantize_multiplier(factors)
    low, high = activation_range(activation, *output.quantization)
    if not -30 <= shifts[2] <= -1:
        raise UsageError(
            f"ADD has inputs of scales {first.scale} and {second.scale} and an output of "
            f"{output.scale}, which is too far from them. Calibrate the model on typical images."
        )
    fields = {}
    for name, multiplier, shift in zip(("1", "2", "output"), multipliers, shifts, strict=True):
        fields[f"multiplier_{name}"] = int(multiplier)
        fields[f"shift_{name}"] = -int(shift)
    fields |= {"zero_point_1": first.zero_point, "zero_point_2": second.zero_point}
    fields |= {"zero_point_output": output.zero_point}
    fields |= {"activation_min": low, "activation_max": high}
    return Addition(int(np.prod(output.shape)), fields)


def connection(source, kernel, output, weights, bias, activation):
    """Returns the `Connection` of a FULLY_CONNECTED operator.

    LiteRT multiplies the sum with a factor in double precision and rounds once, halves away from
    zero. A multiplier of 31 bits gives the same for all sums.

    Args:
        source, kernel, output: the `reading.Tensor`s.
        weights: int8 [outputs, inputs].
        bias: int32 [outputs].
        activation: of the schema.

    Raises:
        UsageError: if it does not.
    """
    folded = bias - source.zero_point * weights.astype(np.int64).sum(1)
    factors = np.broadcast_to(source.scale * kernel.scales / output.scale, len(weights))
    multiplier, shift = quantize_multiplier(factors)
    shift = 31 - shift
    for factor, *integers in zip(factors, multiplier, shift, strict=True):
        # The numbers where the result changes, and their neighbors.
        edges = np.floor((np.arange(-300, 300) + 0.5) / factor)
        sums = (edges[:, None] + np.arange(-2, 3)).ravel()
        sums = np.unique(sums[np.abs(sums) < 1 << 31]).astype(np.int64)
        expected = np.copysign(np.floor(np.abs(sums * factor) + 0.5), sums)
        products = sums * int(integers[0])
        sizes = (np.abs(products) + (1 << (int(integers[1]) - 1))) >> int(integers[1])
        if (np.copysign(sizes, sums) != expected).any():
            raise UsageError(
                f"A fully connected layer multiplies by {factor}, which no integer factor replaces "
                "exactly. Use a 1x1 convolution in its place, as `tfsparse convert` does."
            )
    low, high = activation_range(activation, *output.quantization)
    fields = {"inputs": weights.shape[1], "outputs": weights.shape[0]}
    fields |= {"output_zero_point": output.zero_point}
    fields |= {"activation_min": low, "activation_max": high}
    return Connection(weights, folded.astype(np.int32), multiplier, shift, fields)


def mean(source, output, pixels, channels):
    """Returns the `Mean` of a `reading.Tensor` of that many pixels."""
    multiplier, shift = mean_multiplier(source.scale / output.scale, pixels)
    fields = {"pixels": pixels, "channels": channels, "bias": -source.zero_point * pixels}
    fields |= {"multiplier": multiplier, "shift": shift, "output_zero_point": output.zero_point}
    return Mean(fields)


def copy_of(places, sources, tensor_size, constant):
    """Returns the `Copy` that brings numbers to where they are wanted.

    Args:
        places: int64 [rows, columns]; each is tensor * tensor_size + number in the tensor, or
            `constant` + the number to fill in.
        sources: the tensors, in the order in which the layer will have them as inputs.
    """
    columns = places.shape[1]
    fills = np.unique(places[places < 0]) - constant
    if len(fills) > 1:
        raise ValueError(f"one fill, not {fills}")
    found = []
    for source_position, source in enumerate(sources):
        local = np.where(places // tensor_size == source, places % tensor_size, -1)
        for top, bottom, left, right, pitch in _rectangles(local):
            found.append(
                Rows(
                    source_position,
                    int(local[top, left]),
                    pitch,
                    right - left,
                    bottom - top,
                    top * columns + left,
                    columns,
                )
            )
    return Copy(places.size, int(fills[0]) if len(fills) else None, found)


def _rectangles(local):
    """Yields (top, bottom, left, right, pitch) of parts in which numbers are rows of one pitch.

    Args:
        local: int64 [rows, columns]; negative where there is nothing.
    """
    rows, columns = local.shape
    is_next = (np.diff(local, axis=1) == 1) & (local[:, 1:] > 0)
    top = 0
    while top < rows:
        # Rows that are divided in the same places, at one pitch, are copied together.
        bottom, pitch = top + 1, columns
        while bottom < rows and np.array_equal(is_next[bottom], is_next[top]):
            if not np.array_equal(local[bottom] >= 0, local[top] >= 0):
                break
            steps = np.unique((local[bottom] - local[bottom - 1])[local[top] >= 0])
            if len(steps) > 1 or (len(steps) and bottom > top + 1 and steps[0] != pitch):
                break
            pitch = int(steps[0]) if len(steps) else pitch
            bottom += 1
        edges = [0, *(np.flatnonzero(~is_next[top]) + 1).tolist(), columns]
        for left, right in itertools.pairwise(edges):
            if local[top, left] >= 0:
                yield top, bottom, left, right, pitch
        top = bottom
