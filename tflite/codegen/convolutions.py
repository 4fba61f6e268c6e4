"""Convolutions of a file as `packing.Convolution`s, and several of them as one."""

import dataclasses

import numpy as np

from tflite.codegen.layers import activation_range
from tflite.codegen.packing import Convolution
from tflite.codegen.quantization import quantize_multiplier, requantize

_SAME = 0  # of the schema's Padding


def convolution(graph, operator):
    """Returns the `packing.Convolution` of a CONV_2D or DEPTHWISE_CONV_2D operator.

    A depthwise one with several filters for each channel, and a grouped one, are convolutions with
    the weights of the other channels not kept.
    """
    source, output = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    weights, options = graph.constant(operator, 1), operator.options
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    height, width, channels = source.shape[1:]
    filters = output.shape[3]
    kept = None
    if depthwise and filters > channels:
        weights, kept = _of_own_channels(weights[0].transpose(2, 0, 1), filters // channels)
        depthwise = False
    elif not depthwise and weights.shape[3] < channels:
        weights, kept = _of_own_groups(weights, channels)
    steps = options.dilationHFactor, options.dilationWFactor
    if steps != (1, 1):
        kept = np.ones(weights.shape, bool) if kept is None else kept
        weights, kept = (_dilated(each, steps) for each in (weights, kept))
    stride = options.strideH, options.strideW
    made = Convolution(
        (height, width, channels),
        output.shape[1:],
        weights,
        stride=stride,
        padding=paddings(options.padding, source.shape, output.shape, weights.shape, stride),
        depthwise=depthwise,
        kept=kept,
        **_numbers(graph, operator, filters),
    )
    return with_usual_scales(made)


def with_usual_scales(convolution):
    """Returns the same convolution, with a usual scale for filters without weights.

    The converter chooses a scale for them that may be extreme. Their outputs are constant: v is
    2^8 v times 2^-8.
    """
    axes = (0, 1, 2) if convolution.depthwise else (1, 2, 3)
    dead = ~convolution.weights.any(axes)
    values = requantize(convolution.bias, convolution.multiplier, convolution.shift)
    low, high = (each - convolution.output_zero_point for each in convolution.activation)
    bias = np.where(dead, np.clip(values, low, high) << 8, convolution.bias)
    return dataclasses.replace(
        convolution,
        bias=bias.astype(np.int32),
        multiplier=np.where(dead, 1 << 30, convolution.multiplier).astype(np.int32),
        shift=np.where(dead, -7, convolution.shift).astype(np.int32),
    )


def paddings(padding, source, output, kernel, stride):
    """Returns the rows above and the columns left of an image, as "SAME" or "VALID" want them.

    Args:
        padding: the schema's.
        source, output: shapes [1, height, width, channels].
        kernel: shape with height and width in the same places.
        stride: (height, width).
    """
    if padding != _SAME:
        return 0, 0
    return tuple(
        max(0, (output[axis] - 1) * stride[axis - 1] + kernel[axis] - source[axis]) // 2
        for axis in (1, 2)
    )


def _numbers(graph, operator, filters):
    """Returns the arguments of a `Convolution` that say how sums become outputs."""
    source, kernel, output = (
        graph.tensors[index]
        for index in (operator.inputs[0], operator.inputs[1], operator.outputs[0])
    )
    has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
    bias = graph.constant(operator, 2) if has_bias else np.zeros(filters, np.int32)
    factors = np.broadcast_to(source.scale * kernel.scales / output.scale, filters)
    multiplier, shift = quantize_multiplier(factors)
    return {
        "bias": bias.astype(np.int32),
        "multiplier": multiplier,
        "shift": shift,
        "input_zero_point": source.zero_point,
        "output_zero_point": output.zero_point,
        "activation": activation_range(
            operator.options.fusedActivationFunction, *output.quantization
        ),
    }


def _of_own_channels(kernels, multiple):
    """Returns dense weights and which are kept, of depthwise kernels [filters, height, width]."""
    filters = len(kernels)
    dense = np.zeros((*kernels.shape, filters // multiple), np.int8)
    kept = np.zeros(dense.shape, bool)
    index = np.arange(filters)
    dense[index, :, :, index // multiple] = kernels
    kept[index, :, :, index // multiple] = True
    return dense, kept


def _of_own_groups(weights, channels):
    """Returns dense weights and which are kept, of those of a grouped convolution."""
    filters, height, width, depth = weights.shape
    dense = np.zeros((filters, height, width, channels), np.int8)
    kept = np.zeros(dense.shape, bool)
    size = filters * depth // channels
    for start in range(0, filters, size):
        first = start // size * depth
        dense[start : start + size, :, :, first : first + depth] = weights[start : start + size]
        kept[start : start + size, :, :, first : first + depth] = True
    return dense, kept


def _dilated(array, steps):
    filters, height, width, channels = array.shape
    shape = (filters, (height - 1) * steps[0] + 1, (width - 1) * steps[1] + 1, channels)
    spread = np.zeros(shape, array.dtype)
    spread[:, :: steps[0], :: steps[1]] = array
    return spread


def shifted_taps(convolution):
    """Returns (row, column) of the tap that each channel of a depthwise layer copies, or None.

    It copies one if its kernels are 0 but for one weight and its factors make every number itself.
    """
    weights = convolution.weights[0].astype(np.int64)  # [height, width, channels]
    width, channels = weights.shape[1:]
    flat = weights.reshape(-1, channels)
    if ((flat != 0).sum(0) != 1).any():
        return None
    taps = (flat != 0).argmax(0)
    codes = np.arange(-128, 128)[:, None]
    sums = (codes - convolution.input_zero_point) * flat.sum(0) + convolution.bias
    results = requantize(sums, convolution.multiplier, convolution.shift)
    results = np.clip(results + convolution.output_zero_point, *convolution.activation)
    if (results != codes).any():
        return None
    return taps // width, taps % width


def over_window(convolution, window, stored):
    """Returns the same convolution over the stored tensor that it reads through a `Window`."""
    filters = len(convolution.weights)
    used = window.taps[:, 0] >= 0
    rows, columns, channels = window.taps[used].T
    kept = convolution.kept
    if kept is None:
        kept = np.ones(convolution.weights.shape, bool)
    arrays = []
    for array in (convolution.weights, kept):
        moved = np.zeros((filters, *window.kernel_size, stored[2]), array.dtype)
        moved[:, rows, columns, channels] = array.reshape(filters, -1)[:, used]
        arrays.append(moved)
    return dataclasses.replace(
        convolution,
        input_shape=stored,
        weights=arrays[0],
        kept=arrays[1],
        stride=window.strides,
        padding=window.padding,
    )


def merged(convolutions):
    """Returns convolutions of one tensor, whose filters are to be concatenated, as one; or None."""

    def key(each):
        zero_points = each.input_zero_point, each.output_zero_point
        geometry = each.input_shape, each.output_shape[:2], each.stride
        return geometry, zero_points, each.activation, each.depthwise

    first = convolutions[0]
    if len({key(each) for each in convolutions}) > 1 or first.depthwise:
        return None
    top, left = (max(each.padding[axis] for each in convolutions) for axis in (0, 1))
    offsets = [(top - each.padding[0], left - each.padding[1]) for each in convolutions]
    size = [
        max(
            offset[axis] + each.weights.shape[axis + 1]
            for offset, each in zip(offsets, convolutions, strict=True)
        )
        for axis in (0, 1)
    ]
    arrays = {}
    for name in ("weights", "kept"):
        parts = []
        for each, (row, column) in zip(convolutions, offsets, strict=True):
            array = getattr(each, name)
            array = np.ones(each.weights.shape, bool) if array is None else array
            filters, height, width, channels = array.shape
            part = np.zeros((filters, *size, channels), array.dtype)
            part[:, row : row + height, column : column + width] = array
            parts.append(part)
        arrays[name] = np.concatenate(parts)
    for name in ("bias", "multiplier", "shift"):
        arrays[name] = np.concatenate([getattr(each, name) for each in convolutions])
    shape = (*first.output_shape[:2], len(arrays["bias"]))
    return dataclasses.replace(first, output_shape=shape, padding=(top, left), **arrays)
