"""Packs convolutions by the weights that they keep, for convolve_sparse.c and convolve_pairs.c."""

import numpy as np

from tflite.codegen.packing import Packed, common_fields

_WORDS = 4  # elements that are computed together
_LANE_LIMIT = 1 << 22  # of an output's sum, if two share a word
_FURTHEST = 255  # elements between a weight's inputs and the next one's
_HALVES, _ROWS, _CHANNELS, _DEPTHWISE = 0, 1, 2, 4  # what is in an element; see sweep.c


def pack_sparse(convolution):
    """Returns the `Packed` of a `Convolution` weight by weight, or None if sums may be too large.

    Depthwise convolutions with one filter per channel are taken, too.
    """
    weights, kept = _weights(convolution)
    fields, arrays = common_fields(convolution)
    if convolution.depthwise:  # each filter: the taps of one channel
        weights, kept = (each.transpose(3, 1, 2, 0) for each in (weights, kept))
        if len(weights) != convolution.input_shape[2]:
            return None
    magnitudes = np.abs(weights.astype(np.int64)).sum((1, 2, 3)) * 128
    biases = np.abs(arrays["filters"][:, 0].astype(np.int64))
    if (magnitudes + biases).max() >= _LANE_LIMIT:
        return None
    kind = _ROWS if (convolution.output_shape[1] + 1) // 2 < _WORDS else _HALVES
    layout = _Layout(convolution, kind, weights.shape[1:])
    streams = []
    for values, bits in zip(weights, kept, strict=True):
        places = layout.places[bits]
        order = np.argsort(places)
        streams.append(_stream(places[order], values[bits][order][:, None])[:, ::-1].ravel())
    sizes = [len(stream) for stream in streams]
    sizes_and_shifts = np.array(sizes) * 256 + arrays.pop("shift")
    arrays["filters"] = np.column_stack([arrays["filters"], sizes_and_shifts]).astype(np.int32)
    packed = layout.packed("convolve_sparse", fields, arrays, streams)
    packed.instructions += layout.blocks * (5 * sum(sizes) + 99 * len(weights))
    return packed


def pack_pairs(convolution):
    """Returns the `Packed` of a `Convolution` by pairs of filters and of channels, or None.

    Both numbers have to be even. What a pair of filters keeps is the union.
    """
    weights, kept = _weights(convolution)
    filters, height, width, channels = weights.shape
    if convolution.depthwise or filters % 2 or channels % 2:
        return None
    fields, arrays = common_fields(convolution)
    layout = _Layout(convolution, _CHANNELS, (height, width, channels // 2))
    by_pairs = (filters // 2, 2, height, width, channels // 2, 2)
    weights = weights.reshape(by_pairs).transpose(0, 2, 3, 4, 5, 1)  # Aa Ba Ab Bb
    kept = kept.reshape(by_pairs).any((1, 5))
    streams = []
    for values, bits in zip(weights, kept, strict=True):
        places = layout.places[bits]
        order = np.argsort(places)
        streams.append(_stream(places[order], values[bits][order].reshape(-1, 4)).ravel())
    sizes = np.array([len(stream) for stream in streams])
    if sizes.max() >= 1 << 16:
        return None
    shifts = arrays.pop("shift").astype(np.int64)
    last = (shifts[::2] + shifts[1::2] * 256 + sizes * 65536).astype(np.uint32).view(np.int32)
    arrays["filters"] = np.column_stack([arrays["filters"].reshape(-1, 4), last])
    packed = layout.packed("convolve_pairs", fields, arrays, streams)
    packed.instructions += int(layout.blocks * (3.3 * sizes.sum() + 84 * len(streams)))
    return packed


def _weights(convolution):
    kept = convolution.weights != 0
    if convolution.kept is not None:
        kept &= convolution.kept
    return np.where(kept, convolution.weights, 0), kept


class _Layout:
    """Where the kernels find what weights read, and what that costs; see sweep.c."""

    def __init__(self, convolution, kind, shape):
        """Lays out rows for filters of `shape`, (height, width, channels or pairs of them)."""
        self._convolution, self._kind = convolution, kind
        rows, columns, channels = shape
        height, width, filters = convolution.output_shape
        stride = convolution.stride[1]
        self._lines = 2 if kind == _ROWS else 1  # rows of outputs that are computed together
        outputs = (width + 1) // 2 if kind == _HALVES else width
        phases = min(stride, columns)
        positions = outputs + (columns - 1) // stride
        row, column, channel = np.indices(shape)
        places = ((row * channels + channel) * phases + column % stride) * positions
        self.places = places + column // stride
        self.blocks = -(-height // self._lines) * -(-outputs // _WORDS)
        channels = convolution.input_shape[2] // (2 if kind == _CHANNELS else 1)
        self._row = positions * phases * channels  # elements
        self._elements = self._row * rows
        is_whole = outputs >= _WORDS and not {_ROWS: height, _HALVES: width}.get(kind, 0) % 2
        self._part = 0 if is_whole else (1 if kind == _CHANNELS else 2) * _WORDS * filters

    def packed(self, kernel, fields, arrays, streams):
        """Returns the `Packed` with the instructions of loading rows."""
        kind = self._kind + _DEPTHWISE * self._convolution.depthwise
        arrays["weights"] = np.concatenate(streams)
        arrays["table"] = np.array([kind], np.uint16)
        fields |= {"weights": "weights", "table": "table", "shift": 0}
        height, channels = self._convolution.output_shape[0], self._convolution.input_shape[2]
        rows, step = self._convolution.weights.shape[1], self._convolution.stride[0] * self._lines
        moved = max(0, rows - step) * self._row
        loaded = min(rows, step) * self._row
        bands = -(-height // self._lines)
        return Packed(
            kernel,
            (f"{kernel}.c", "sweep.c"),
            fields,
            arrays,
            4 * (self._elements + _WORDS) + channels + self._part,
            self._distance(max(rows, step)),
            int(500 + bands * (7 * loaded + moved)),
        )

    def _distance(self, read):
        """Returns by how many bytes the output must precede the input.

        Args:
            read: rows that no later outputs need, counted from the first one that outputs read.
        """
        height, columns, channels = self._convolution.input_shape
        rows, width, filters = self._convolution.output_shape
        furthest = 0
        for row in range(0, rows, self._lines):
            first = row * self._convolution.stride[0] - self._convolution.padding[0]
            if first + read < height:
                written = (row + self._lines) * width * filters
                furthest = max(furthest, written - (first + read) * columns * channels)
        return furthest


def _stream(places, values):
    """Returns int8 [entries, 1 + n]: the distance to the place before, and the values there.

    Args:
        places: int [entries], increasing.
        values: int8 [entries, n].
    """
    rows = []
    for distance, numbers in zip(np.diff(places, prepend=0).tolist(), values.tolist(), strict=True):
        while distance > _FURTHEST:
            rows.append([_FURTHEST] + [0] * len(numbers))
            distance -= _FURTHEST
        rows.append([distance, *numbers])
    missing = len(rows) % 2 if rows else 2
    rows += [[0] * (1 + values.shape[1])] * missing
    return np.array(rows, np.int16).astype(np.uint8).view(np.int8)
