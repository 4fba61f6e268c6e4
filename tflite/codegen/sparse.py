"""Packs convolutions of which single weights are pruned, for convolve_sparse.c."""

import numpy as np

from tflite.codegen.packing import Packed, common_fields

_WORDS = 4  # elements, of two pixels each, that are computed together
_LANE_LIMIT = 1 << 22  # of an output's sum
_FURTHEST = 255  # elements between a weight's inputs and the next one's


def pack_sparse(convolution):
    """Returns the `Packed` of a `Convolution`, or None if its sums may be too large."""
    fields, arrays = common_fields(convolution)
    weights, kept = convolution.weights, convolution.weights != 0
    if convolution.kept is not None:
        kept &= convolution.kept
    channels = convolution.input_shape[2]
    height, width, filters = convolution.output_shape
    if convolution.depthwise:  # each filter: the taps of one channel
        weights, kept = (each.transpose(3, 1, 2, 0) for each in (weights, kept))
        if filters != channels:
            return None
    magnitudes = np.abs(weights.astype(np.int64)).sum((1, 2, 3)) * 128
    biases = np.abs(arrays["filters"][: len(weights), 0].astype(np.int64))
    if (magnitudes + biases).max() >= _LANE_LIMIT:
        return None
    two_rows = (width + 1) // 2 < _WORDS
    outputs = width if two_rows else (width + 1) // 2
    pitch, places = _places(weights.shape[1:], convolution.stride[1], outputs)
    pairs = zip(weights, kept, strict=True)
    entries = [_entries(values[bits], places[bits]) for values, bits in pairs]
    arrays["weights"] = np.concatenate(entries)
    sizes = np.array([len(each) for each in entries]) * 256 + arrays.pop("shift")
    arrays["filters"] = np.column_stack([arrays["filters"], sizes]).astype(np.int32)
    arrays["table"] = np.array([two_rows + 2 * convolution.depthwise], np.uint16)
    fields |= {"weights": "weights", "table": "table", "shift": 0}
    elements = pitch * weights.shape[1] * channels
    whole = outputs >= _WORDS and (height % 2 == 0 if two_rows else width % 2 == 0)
    part = 0 if whole else 2 * _WORDS * filters
    bands = -(-height // (1 + two_rows))
    blocks = bands * -(-outputs // _WORDS)
    loaded = pitch * channels * min(weights.shape[1], convolution.stride[0] * (1 + two_rows))
    instructions = blocks * (5 * len(arrays["weights"]) + 98 * filters) + bands * 6 * loaded
    return Packed(
        "convolve_sparse",
        ("convolve_sparse.c",),
        fields,
        arrays,
        4 * (elements + _WORDS) + channels + part,
        _distance(convolution, 1 + two_rows),
        instructions,
    )


def _places(shape, stride, outputs):
    """Returns the elements of a row and channel, and the first that each weight reads, [h, w, c].

    Args:
        shape: (height, width, channels) of a filter.
        stride: columns.
        outputs: elements of which one row of outputs consists.
    """
    _, width, channels = shape
    phases = min(stride, width)
    positions = outputs + (width - 1) // stride
    row, column, channel = np.indices(shape)
    places = (row * channels + channel) * phases + column % stride
    return positions * phases, places * positions + column // stride


def _entries(weights, places):
    """Returns the weights of one filter with the distances of what they read, int8 [2 n]."""
    order = np.argsort(places)
    distances = np.diff(places[order], prepend=0)
    values, deltas = [], []
    for value, distance in zip(weights[order].tolist(), distances.tolist(), strict=True):
        while distance > _FURTHEST:
            values.append(0)
            deltas.append(_FURTHEST)
            distance -= _FURTHEST
        values.append(value)
        deltas.append(distance)
    missing = len(values) % 2 if values else 2
    values += [0] * missing
    deltas += [0] * missing
    return np.stack([values, np.array(deltas, np.uint8).view(np.int8)], 1).astype(np.int8).ravel()


def _distance(convolution, rows_at_once):
    """Returns by how many bytes the output must precede the input."""
    height, columns, channels = convolution.input_shape
    rows, width, filters = convolution.output_shape
    furthest = 0
    for row in range(0, rows, rows_at_once):
        first = row * convolution.stride[0] - convolution.padding[0]
        loaded = first + max(convolution.stride[0] * rows_at_once, convolution.weights.shape[1])
        if loaded < height:
            written = (row + rows_at_once) * width * filters
            furthest = max(furthest, written - loaded * columns * channels)
    return furthest
