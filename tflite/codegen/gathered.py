"""Packs convolutions whose filters share what they read, in groups, for convolve_gathered.c."""

import itertools

import numpy as np

from tflite.codegen.packing import Packed, common_fields

_PIXELS = 4  # that are computed together


def pack_gathered(convolution):
    """Returns the `Packed` of a `Convolution`: dense, periodic, or fully connected.

    None if a row of the patch is longer than the kernel's table can say.

    Filters that follow each other and keep the same taps are a group. Its taps are read in quads
    of neighboring bytes; a quad's other taps have a weight of 0.
    """
    kept = convolution.kept
    if kept is None:
        kept = np.ones(convolution.weights.shape, bool)
    groups = _groups(kept)
    padded = convolution.is_padded
    shortest = kept.shape[2] * kept.shape[3]
    padded |= shortest < 4
    fields, arrays = common_fields(convolution)
    odd = (groups[-1][1] - groups[-1][0]) % 2
    arrays["filters"] = np.pad(arrays["filters"], ((0, odd), (0, 0)))
    arrays["shift"] = np.pad(arrays["shift"], (0, odd))
    table, weights, largest, work, gathered = [padded + 2 * odd, len(groups)], [], 0, 0, 0
    for start, stop in groups:
        runs, pairs = _runs(kept[start:stop].any(0), padded)
        table += [stop - start, len(runs), *np.ravel(runs)]
        weights.append(_order(convolution.weights[start:stop], pairs))
        largest = max(largest, len(pairs))
        work += len(pairs) * -(-(stop - start) // 2)
        gathered += len(pairs)
    if max(table) > np.iinfo(np.uint16).max:
        return None
    arrays["weights"] = np.concatenate(weights)
    arrays["table"] = np.array(table, np.uint16)
    fields |= {"weights": "weights", "table": "table"}
    return Packed(
        "convolve_gathered",
        ("convolve_gathered.c",),
        fields,
        arrays,
        _scratch_bytes(convolution, padded, odd) + 16 * (largest + 1),
        _distance(convolution, padded, len(groups)),
        _instructions(convolution, table, work, gathered),
    )


def _instructions(convolution, table, work, gathered):
    """Returns an estimate, fitted to counts on an emulated Cortex-M4."""
    height, width, filters = convolution.output_shape
    blocks = height * -(-width // _PIXELS)
    groups, runs = table[1], (len(table) - 2 - 2 * table[1]) / 3
    pairs = (filters + groups) // 2 if groups > 1 else (filters + 1) // 2
    each = 150 + 79 * groups + 30 * runs + 10 * gathered + 80 * pairs + 13.8 * work
    loaded = height * convolution.padded_width * convolution.input_shape[2]
    return int(blocks * each + loaded)


def _groups(kept):
    """Returns [(first filter, filter behind the last)] with equal taps."""
    flat = kept.reshape(len(kept), -1)
    starts = [0, *(np.flatnonzero((flat[1:] != flat[:-1]).any(1)) + 1), len(kept)]
    return list(itertools.pairwise(starts))


def _runs(taps, may_overrun):
    """Returns the runs of a group: [(row, offset, pairs)], and the taps that are in their pairs.

    Args:
        taps: bool [height, width, channels].
        may_overrun: whether up to three bytes behind a row of the patch may be read.

    Returns:
        The runs, and int [pairs, 2]: the index of each byte's weight in the filter, or -1 for a
        weight of 0.
    """
    length = taps[0].size
    runs, pairs = [], []
    for row, bits in enumerate(taps.reshape(len(taps), -1)):
        done, left = 0, np.flatnonzero(bits)
        while len(left):
            at = left[0] if may_overrun else max(0, min(left[0], length - 4))
            numbers = np.arange(at, at + 4)
            used = (numbers < length) & (numbers >= done)
            used[used] &= bits[numbers[used]]
            last = runs[-1] if runs and runs[-1][0] == row else [row, -1, 1]
            if last[2] % 2 == 0 and last[1] + 2 * last[2] == at:
                runs[-1][2] += 2
            else:
                runs.append([row, at, 2])
            quad = np.where(used, row * length + numbers, -1)
            pairs += [quad[[0, 2]], quad[[1, 3]]]
            done = at + 4
            left = left[left >= done]
            if (pairs[-1] < 0).all():  # ends the run
                pairs.pop()
                runs[-1][2] -= 1
    if not runs:  # all pruned: something must be read
        runs, pairs = [[0, 0, 1]], [np.full(2, -1)]
    return runs, np.array(pairs)


def _order(weights, pairs):
    """Returns the weights of a group's filters in the order in which the kernel reads them."""
    flat = weights.reshape(len(weights), -1)
    taken = np.where(pairs < 0, 0, flat[:, np.maximum(pairs, 0)])  # [filters, pairs, 2]
    if len(taken) % 2:
        taken = np.concatenate([taken, np.zeros_like(taken[:1])])
    by_two = taken.reshape(len(taken) // 2, 2, -1)
    return by_two.transpose(0, 2, 1).ravel().astype(np.int8)


def _scratch_bytes(convolution, padded, odd):
    rows, part = 0, 0
    if padded:
        row = convolution.padded_width * convolution.input_shape[2]
        rows = convolution.weights.shape[1] * ((row + 7) // 4 * 4)
    _, width, filters = convolution.output_shape
    if width % _PIXELS or odd:
        part = (_PIXELS * (filters + odd) + 3) // 4 * 4
    return rows + part


def _distance(convolution, padded, groups):
    """Returns by how many bytes the output must precede the input."""
    _, width, filters = convolution.output_shape
    height, columns, channels = convolution.input_shape
    furthest = 0
    for row in range(convolution.output_shape[0]):
        if padded:
            first = row * convolution.stride[0] - convolution.padding[0]
            loaded = first + convolution.weights.shape[1]
            if loaded < height:
                written = (row + 1) * width * filters
                furthest = max(furthest, written - loaded * columns * channels)
            continue
        for start in range(0, width, _PIXELS):
            stop = min(start + _PIXELS, width)
            read = row * convolution.stride[0] * columns
            one_row = convolution.weights.shape[1] == 1
            if one_row:
                read += (start if groups > 1 else stop) * convolution.stride[1]
            furthest = max(furthest, (row * width + stop) * filters - read * channels)
    return furthest
