"""Operators that move numbers and compute nothing, run on arrays of any numbers by NumPy.

Run on the numbers' places instead of the numbers themselves, they tell where each number of a
tensor comes from.
"""

import numpy as np

from tfsparse.errors import UsageError


def move(graph, operator, arrays, padding):
    """Returns what a data movement operator makes of arrays, a list of arrays.

    Args:
        graph: the `tflite.codegen.reading.Graph`.
        operator: its `Operator`, whose name is in `MOVEMENTS`.
        arrays: for each input of the operator an array, or None for a constant.
        padding: function from the value of a padded element, an int8 number, to what stands for it.
    """
    outputs = MOVEMENTS[operator.name](graph, operator, arrays, padding)
    shapes = [graph.tensors[index].shape for index in operator.outputs]
    if [output.shape for output in outputs] != shapes:
        raise UsageError(
            f"{operator.title} is used in a way that is not known. Received: {arrays[0].shape} to "
            f"{shapes}"
        )
    return outputs


def _pad(graph, operator, arrays, padding):
    value = graph.tensors[operator.outputs[0]].zero_point
    if len(operator.inputs) > 2:
        value = int(graph.constant(operator, 2).item())
    amounts = graph.constant(operator, 1)
    return [np.pad(arrays[0], amounts, constant_values=padding(value))]


def _slice(graph, operator, arrays, _):
    begin = graph.constant(operator, 1)
    sizes = graph.tensors[operator.outputs[0]].shape
    return [arrays[0][tuple(slice(b, b + s) for b, s in zip(begin, sizes, strict=True))]]


def _strided_slice(graph, operator, arrays, _):
    options = operator.options
    if options.ellipsisMask or options.newAxisMask:
        raise UsageError(f"{operator.title} has an ellipsis or a new axis, which is not supported.")
    begin, end, strides = (graph.constant(operator, position) for position in (1, 2, 3))
    index = []
    for axis, bounds in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)):
        first, last, stride = bounds
        if options.shrinkAxisMask >> axis & 1:
            index.append(first)
            continue
        first = None if options.beginMask >> axis & 1 else first
        last = None if options.endMask >> axis & 1 else last
        index.append(slice(first, last, stride))
    return [arrays[0][tuple(index)]]


def _concatenate(graph, operator, arrays, _):
    return [np.concatenate(arrays, operator.options.axis)]


def _reshape(graph, operator, arrays, _):
    return [arrays[0].reshape(graph.tensors[operator.outputs[0]].shape)]


def _transpose(graph, operator, arrays, _):
    return [arrays[0].transpose(graph.constant(operator, 1))]


def _split(graph, operator, arrays, _):
    axis = int(graph.constant(operator, 0).item())
    return np.split(arrays[1], len(operator.outputs), axis)


def _split_by_sizes(graph, operator, arrays, _):
    axis = int(graph.constant(operator, 2).item())
    sizes = [graph.tensors[index].shape[axis] for index in operator.outputs]
    return np.split(arrays[0], np.cumsum(sizes)[:-1], axis)


def _gather(graph, operator, arrays, _):
    return [np.take(arrays[0], graph.constant(operator, 1), operator.options.axis)]


MOVEMENTS = {
    "CONCATENATION": _concatenate,
    "EXPAND_DIMS": _reshape,
    "GATHER": _gather,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_by_sizes,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
}
