"""The forms in which a periodic layer can run as small convolutions, and what each of them costs.

Costs are counted in multiply-accumulates, from prices that were measured in LiteRT.
"""

import math
from typing import NamedTuple

import numpy as np

from tfsparse.lowering import lower as small_convolutions

MAX_CONCATENATED = 5  # more inputs than XNNPACK's operator takes are concatenated in turns

# What moving numbers costs in LiteRT (XNNPACK, x86, one thread), in multiply-accumulates of a dense
# 3x3 convolution of the same precision; measured on tensors of 32x32x64 to 4x4x512. Prices for int8
# are from processors that sum four products of 8-bit integers in one instruction (AVX-512 VNNI;
# most phones since 2018 have asimddp). Convolutions take a quarter of the time there and copies as
# long as elsewhere, so what is chosen is faster than dense without that instruction, too.
_RUN = {"float": 190, "int8": 760}  # copying a run of adjacent bytes costs this, or if that is more
_BYTE = {"float": 4, "int8": 16}  # this for each of its bytes
# A number shifted by a depthwise convolution of up to this many taps; int8 has no kernel for 4.
_SHIFT = {
    "float": {3: 11, 4: 13, 9: 26, 25: 70, 49: 140},
    "int8": {3: 56, 9: 120, 25: 320, 49: 640},
}
_ITEM_BYTES = {"float": 4, "int8": 1}
_OPERATOR = 50_000  # one operator, however little it does
_FILTERS = 8  # a convolution computes a multiple of this many filters


class Step(NamedTuple):
    """A shift: a depthwise convolution that reads one tap of each channel."""

    taps: tuple  # height and width of its kernels
    offsets: tuple  # (row, column) of the tap, for each channel
    strides: tuple
    padding: str


class Phase(NamedTuple):
    """What computes the filters of one phase."""

    filters: tuple  # first, last + 1
    window: tuple  # height and width of the kernels over the shifted input
    pieces: tuple  # of the input that these kernels read
    steps: tuple  # the shifts of the input, if not sliced
    whole: tuple  # (start, stop) of channels whose kernels keep all taps


class Form(NamedTuple):
    """How a periodic layer runs as small convolutions."""

    padding: tuple  # (above, below), (left, right): zeros around the input
    strides: tuple  # of the convolutions over shifted inputs
    phases: list
    sliced: bool  # whether shifts are slices instead of depthwise convolutions


def best_form(layer, input_shape, arithmetic="float"):
    """Returns the `Form` in which a layer runs fastest, or None for one dense convolution.

    Args:
        layer: a built `PeriodicConv2D`.
        input_shape: (1, height, width, channels).
        arithmetic: "float" or "int8", for which it is to be fast.
    """
    candidates = forms(layer, input_shape)
    costs = [form_cost(form, layer, input_shape, arithmetic) for form in candidates]
    if min(costs, default=math.inf) >= dense_cost(layer, input_shape):
        return None
    return candidates[int(np.argmin(costs))]


def forms(layer, input_shape):
    """Returns all `Form`s of a layer: shifts in one step, in two steps, and by slices.

    A layer has forms if its pattern is periodic and each kernel keeps all its taps or a window of
    the one size that all share.
    """
    phases = _phases(layer, input_shape[-1])
    if not phases:
        return []
    return [
        _form(layer, input_shape, phases, split=False),
        _form(layer, input_shape, phases, split=True),
        Form(_paddings(layer, input_shape), layer.strides, phases, sliced=True),
    ]


def dense_cost(layer, input_shape):
    """Returns what one convolution with the dense kernel costs, in multiply-accumulates."""
    taps = math.prod(layer.kernel_size)
    return _convolution_cost(layer, input_shape, taps * input_shape[-1], layer.filters)


def form_cost(form, layer, input_shape, arithmetic):
    """Returns what the operators of a form cost, in multiply-accumulates."""
    height, width, channels = input_shape[1:]
    rows, columns = layer.compute_output_shape(input_shape)[1:3]

    def copy(runs, numbers):
        return runs * max(_RUN[arithmetic], _BYTE[arithmetic] * _ITEM_BYTES[arithmetic] * numbers)

    def shift(step):
        taps, prices = math.prod(step.taps), _SHIFT[arithmetic].items()
        price = next((cost for most, cost in prices if most >= taps), math.inf)
        return _OPERATOR + price * height * width * channels / math.prod(step.strides)

    cost = 0
    if any(map(any, form.padding)):
        cost += _OPERATOR + copy(height, width * channels)
    prefixes = {phase.steps[: i + 1] for phase in form.phases for i in range(len(phase.steps))}
    cost += sum(shift(steps[-1]) for steps in prefixes)
    for phase in form.phases:
        filters = phase.filters[1] - phase.filters[0]
        reads = channels
        if form.sliced:
            widths = [piece.stop - piece.start for piece in phase.pieces]
            reads, passes = sum(widths), 2 + (len(widths) > MAX_CONCATENATED)
            cost += passes * sum(copy(height * width, count) for count in widths)
            cost += _OPERATOR * (len(widths) + math.ceil(len(widths) / MAX_CONCATENATED))
        cost += _convolution_cost(layer, input_shape, math.prod(phase.window) * reads, filters)
        for start, stop in phase.whole:
            taps = math.prod(layer.kernel_size) * (stop - start)
            cost += _convolution_cost(layer, input_shape, taps, filters) + 2 * _OPERATOR
            cost += copy(height * width, stop - start) + copy(rows, columns * filters)
        if len(form.phases) > 1:
            nested = len(form.phases) > MAX_CONCATENATED
            cost += (1 + nested) * (copy(rows * columns, filters) + _OPERATOR / MAX_CONCATENATED)
    return cost


def _convolution_cost(layer, input_shape, taps, filters):
    outputs = math.prod(layer.compute_output_shape(input_shape)[1:3])
    return _OPERATOR + outputs * taps * -(-filters // _FILTERS) * _FILTERS


def _phases(layer, channels):
    """Returns the phases of a layer without their shifts, or [] if it has no form."""
    geometry = (layer.kernel_size, channels, layer.filters)
    convolutions = small_convolutions(layer.pattern, *geometry) or ()
    phases = {}
    for convolution in convolutions:
        window, filters = convolution.kernel_shape[:2], convolution.filters
        phase = phases.get(filters, Phase(filters, None, (), (), ()))
        if window == layer.kernel_size:
            whole = tuple((piece.start, piece.stop) for piece in convolution.pieces)
            phases[filters] = phase._replace(whole=whole)
        elif phase.window is None:
            phases[filters] = phase._replace(window=window, pieces=convolution.pieces)
        else:
            return []
    windows = {phase.window for phase in phases.values()}
    return list(phases.values()) if len(windows) == 1 and None not in windows else []


def _form(layer, input_shape, phases, split):
    """Returns a `Form`; with `split`, columns and rows are shifted one after the other."""
    window = phases[0].window
    taps = tuple(k - w + 1 for k, w in zip(layer.kernel_size, window, strict=True))
    # With windows of one tap, strides skip pixels, which need not be shifted either.
    strided = not split and window == (1, 1) and layer.strides[0] == layer.strides[1] > 1
    pads = _paddings(layer, input_shape)
    # Whether the zeros are those that a depthwise convolution adds by itself.
    own = [
        before == after == (count - 1) / 2
        for (before, after), count in zip(pads, taps, strict=True)
    ]
    if not split:
        own = [strided or all(own)] * 2
    kinds = ["same" if each else "valid" for each in own]
    if strided:
        kinds = [layer.padding] * 2

    def steps(phase):
        offsets = np.zeros((2, input_shape[-1]), int)
        for start, stop, top, left in phase.pieces:
            offsets[:, start:stop] = [[top], [left]]
        if not split:
            pairs = tuple(zip(*offsets.tolist(), strict=True))
            return (Step(taps, pairs, layer.strides if strided else (1, 1), kinds[0]),)
        rows, columns = offsets.tolist()
        return (
            Step((1, taps[1]), tuple((0, column) for column in columns), (1, 1), kinds[1]),
            Step((taps[0], 1), tuple((row, 0) for row in rows), (1, 1), kinds[0]),
        )

    return Form(
        tuple((0, 0) if each else pad for each, pad in zip(own, pads, strict=True)),
        (1, 1) if strided else layer.strides,
        [phase._replace(steps=steps(phase)) for phase in phases],
        sliced=False,
    )


def _paddings(layer, input_shape):
    """Returns the zeros ((above, below), (left, right)) that a layer puts around its input."""
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    pads = []
    for size, taps, stride in zip(input_shape[1:3], layer.kernel_size, layer.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)
