"""A periodic network as plain convolutions that mobile runtimes run fast.

`lower` takes a trained Keras model and returns one that computes the same with stock layers only:
each periodic convolution becomes, for each of its filter phases, the small dense convolution of
`tfsparse.lowering` over its shifted input. Only the kept weights are in it.

**Shifts.** Shifting each block of channels by its own offset is a depthwise convolution whose
kernels are 0 but for a single 1. Where blocks are narrow, one pass of it takes LiteRT less than the
slices and the concatenation that do the same, and its border is zeros, so that often no padding is
needed. A shift along columns and one along rows, of up to 3 taps each, take less than one of 3x3
taps, and filter phases that need the same shift along columns share it. All shifts of a model with
the same kernel share one constant. Where blocks are wide, slices are as fast.

**Concatenation.** BatchNorm and activation that follow a periodic convolution are applied to each
filter phase on its own, where the converter folds them into its convolution. Then the phases are
concatenated; XNNPACK takes at most five inputs, so more are nested.

**Choice.** Where that would be slower, the layer becomes one convolution with its dense kernel:
see `best_form`.
"""

import collections
import math
from typing import NamedTuple

import numpy as np

from tflite.quiet import quiet
from tfsparse.lowering import lower as small_convolutions

with quiet():
    import keras

from tfsparse import copying
from tfsparse.layers import PeriodicConv2D
from tfsparse.patterns import parse
from tfsparse.pruning.channel_removal import is_elementwise

MAX_CONCATENATED = 5

# What moving numbers costs in LiteRT (XNNPACK, x86, one thread), in multiply-accumulates of a dense
# 3x3 convolution of the same precision; measured on tensors of 32x32x64 to 4x4x512. Those for int8
# are of processors that sum four products of 8-bit integers in one instruction (AVX-512 VNNI; most
# phones since 2018 have asimddp). Convolutions take a quarter of the time there and copies as long,
# so what is chosen is faster than dense without that instruction, too.
_RUN = {"float": 190, "int8": 760}  # to copy a run of adjacent bytes: the larger of one run's
_BYTE = {"float": 4, "int8": 16}  # and its bytes' cost
# A number shifted by a depthwise convolution of up to so many taps; int8 has no kernel for 4.
_SHIFT = {
    "float": {3: 11, 4: 13, 9: 26, 25: 70, 49: 140},
    "int8": {3: 56, 9: 120, 25: 320, 49: 640},
}
_ITEM_BYTES = {"float": 4, "int8": 1}
_OPERATOR = 50_000  # one operator, however little it does
_FILTERS = 8  # a convolution computes a multiple of so many filters

_ACTIVATIONS = (keras.layers.ReLU, keras.layers.Activation)


def lower(model, arithmetic="float", choose=None):
    """Returns a model that computes what `model` does and has no periodic layers.

    Args:
        model: functional or Sequential Keras model with inputs of known size.
        arithmetic: "float" or "int8", for which it is to be fast.
        choose: function of a periodic layer, the shape of its input and `arithmetic` that returns
            the `Form` it takes, or None for one convolution with its dense kernel; `best_form` if
            not given.

    Returns:
        Functional Keras model for batches of one, with weights of its own. It is for conversion,
        not for training: BatchNorm that follows a periodic layer is folded into it.
    """
    # A Sequential model cannot be cloned with a function for its calls.
    model = keras.Model(_single(model.inputs), _single(model.outputs), name=model.name)
    followers = _followers(model)
    folded = {id(layer) for pair in followers.values() for layer in pair if layer}
    originals, shifts = {}, {}

    def clone(layer):
        if isinstance(layer, PeriodicConv2D) or id(layer) in folded:
            return layer
        if isinstance(layer, keras.Model):
            return lower(layer, arithmetic, choose)
        copy = copying.clone(layer)
        originals[id(copy)] = layer
        return copy

    def call(layer, *args, **kwargs):
        if isinstance(layer, PeriodicConv2D):
            form = (choose or best_form)(layer, args[0].shape, arithmetic)
            after = followers.get(id(layer), (None, None))
            return _periodic(layer, form, *after, args[0], shifts)
        if id(layer) in folded:
            return args[0]
        outputs = layer(*args, **kwargs)
        if getattr(originals.get(id(layer)), "weights", None):
            copying.carry_over(originals[id(layer)], layer)
        return outputs

    inputs = [keras.Input(batch_shape=(1, *tensor.shape[1:])) for tensor in model.inputs]
    inputs = _single(inputs)
    return keras.models.clone_model(model, inputs, clone_function=clone, call_function=call)


def _single(tensors):
    return tensors[0] if len(tensors) == 1 else tensors


def _followers(model):
    """Returns {id of a periodic layer: (BatchNorm or None, activation or None)} that follow it.

    Only layers that are called once and that alone read what they follow.
    """
    nodes = [node for level in model._nodes_by_depth.values() for node in level]
    calls = collections.Counter(id(node.operation) for node in nodes)
    readers = collections.defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            readers[id(tensor)].append(node)
    for tensor in model.outputs:
        readers[id(tensor)].append(None)

    def follower(node, kinds):
        following = readers[id(node.outputs[0])]
        if len(following) != 1 or following[0] is None:
            return None
        layer = following[0].operation
        return following[0] if isinstance(layer, kinds) and calls[id(layer)] == 1 else None

    found = {}
    for node in nodes:
        layer = node.operation
        if not isinstance(layer, PeriodicConv2D) or calls[id(layer)] > 1:
            continue
        if layer.activation is not keras.activations.linear:
            continue  # its own activation comes before what follows
        norm = follower(node, keras.layers.BatchNormalization)
        activation = follower(norm or node, _ACTIVATIONS)
        if activation and not is_elementwise(activation.operation):
            activation = None  # it needs all channels at once
        found[id(layer)] = tuple(each and each.operation for each in (norm, activation))
    return found


def _periodic(layer, form, norm, activation, inputs, shifts):
    """Returns the output of a periodic layer and of those folded into it."""
    kernel, bias = _fold(layer, norm)
    apart = activation is not None or is_elementwise(layer)

    def activate(x):
        if activation is None:
            return keras.layers.Activation(layer.activation)(x)
        config = {**activation.get_config(), "name": None}
        return activation.__class__.from_config(config)(x)

    if form is None:
        return activate(_convolve(inputs, kernel, bias, layer.strides, layer.padding))
    padded = inputs
    if any(map(any, form.padding)):
        padded = keras.layers.ZeroPadding2D(form.padding)(inputs)
    shifted, outputs = {(): padded}, []
    for phase in form.phases:
        filters = slice(*phase.filters)
        small = _small_kernel(kernel[..., filters], phase)
        if form.sliced:
            x = _slices(padded, form.strides, phase, layer.compute_output_shape(inputs.shape))
            small = np.concatenate([small[:, :, p.start : p.stop] for p in phase.pieces], 2)
        else:
            x = _shifted(shifted, phase.steps, shifts)
        y = _convolve(x, small, bias[filters], form.strides, "valid")
        for start, stop in phase.whole:
            part = kernel[:, :, start:stop, filters]
            part = _convolve(inputs[..., start:stop], part, None, layer.strides, layer.padding)
            y = keras.layers.Add()([y, part])
        outputs.append(activate(y) if apart else y)
    return _concatenate(outputs) if apart else activate(_concatenate(outputs))


# ---- forms of a layer and their costs ----


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
    whole: tuple  # (start, stop) of the channels of which the filters keep all taps


class Form(NamedTuple):
    """How a periodic layer runs as small convolutions."""

    padding: tuple  # (above, below), (left, right): zeros around the input
    strides: tuple  # of the convolutions over shifted inputs
    phases: list
    sliced: bool  # whether shifts are slices instead of depthwise convolutions


def best_form(layer, input_shape, arithmetic):
    """Returns the `Form` in which `layer` runs fastest on inputs of `input_shape`.

    None where that is one convolution with the dense kernel.
    """
    candidates = forms(layer, input_shape)
    costs = [form_cost(form, layer, input_shape, arithmetic) for form in candidates]
    if min(costs, default=math.inf) >= dense_cost(layer, input_shape):
        return None
    return candidates[int(np.argmin(costs))]


def forms(layer, input_shape):
    """Returns all `Form`s of a layer: shifts in one step, in two steps, and by slices.

    There is none unless the pattern is periodic and all kernels keep a window of one size or all
    taps.
    """
    phases = _phases(layer, input_shape[-1])
    if not phases:
        return []
    return [
        _form(layer, input_shape, phases, split=False),
        _form(layer, input_shape, phases, split=True),
        _sliced_form(layer, input_shape, phases),
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
        price = next(cost for most, cost in _SHIFT[arithmetic].items() if most >= _taps(step))
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


def _taps(step):
    return math.prod(step.taps)


def _convolution_cost(layer, input_shape, taps, filters):
    outputs = math.prod(layer.compute_output_shape(input_shape)[1:3])
    return _OPERATOR + outputs * taps * -(-filters // _FILTERS) * _FILTERS


def _phases(layer, channels):
    """Returns the phases of a layer without their shifts, or [] where it has no form."""
    pattern = parse(layer.pattern)
    convolutions = small_convolutions(pattern, layer.kernel_size, channels, layer.filters) or ()
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
    # Of windows of one tap, a stride leaves out pixels, which need not be shifted either.
    strided = not split and window == (1, 1) and layer.strides[0] == layer.strides[1] > 1
    pads = [
        _padding(*each, layer.padding)
        for each in zip(input_shape[1:3], layer.kernel_size, layer.strides, strict=True)
    ]
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


def _sliced_form(layer, input_shape, phases):
    pads = [
        _padding(*each, layer.padding)
        for each in zip(input_shape[1:3], layer.kernel_size, layer.strides, strict=True)
    ]
    return Form(tuple(pads), layer.strides, phases, sliced=True)


def _padding(size, taps, stride, padding):
    """Returns the zeros (before, after) that a convolution puts around `size` pixels."""
    if padding == "valid":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2


# ---- the layers of a form ----


def _fold(layer, norm):
    """Returns the dense kernel and the bias of a periodic layer with BatchNorm folded in."""
    to_numpy = keras.ops.convert_to_numpy
    kernel = to_numpy(layer.dense_kernel())
    bias = to_numpy(layer.bias) if layer.use_bias else np.zeros(layer.filters, kernel.dtype)
    if norm is None:
        return kernel, bias
    scale = 1 / np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * to_numpy(norm.gamma)
    offset = (bias - to_numpy(norm.moving_mean)) * scale
    if norm.center:
        offset = offset + to_numpy(norm.beta)
    return kernel * scale, offset


def _shifted(done, steps, shifts):
    """Applies `steps` one after the other; `done` holds what phases before this one shifted."""
    for count in range(1, len(steps) + 1):
        if steps[:count] not in done:
            done[steps[:count]] = _shift(done[steps[: count - 1]], steps[count - 1], shifts)
    return done[steps]


def _slices(padded, strides, phase, output_shape):
    """Returns the channels that a phase reads, each block from its own offset, by slices."""
    rows, columns = (
        (count - 1) * stride + window
        for count, stride, window in zip(output_shape[1:3], strides, phase.window, strict=True)
    )
    return _concatenate(
        [
            padded[:, top : top + rows, left : left + columns, start:stop]
            for start, stop, top, left in phase.pieces
        ]
    )


def _shift(inputs, step, shifts):
    """Applies a `Step`; layers with the same kernel, in `shifts`, are one and have one constant."""
    if step not in shifts:
        layer = keras.layers.DepthwiseConv2D(step.taps, step.strides, step.padding, use_bias=False)
        layer.build(inputs.shape)
        rows, columns = zip(*step.offsets, strict=True)
        kernel = np.zeros(layer.kernel.shape)
        kernel[rows, columns, np.arange(len(rows)), 0] = 1
        layer.set_weights([kernel])
        shifts[step] = layer
    return shifts[step](inputs)


def _small_kernel(kernel, phase):
    """Returns the kernel over the shifted input, zero for channels that `phase.pieces` leave."""
    height, width = phase.window
    small = np.zeros((height, width, *kernel.shape[2:]), kernel.dtype)
    for start, stop, top, left in phase.pieces:
        small[:, :, start:stop] = kernel[top : top + height, left : left + width, start:stop]
    return small


def _convolve(inputs, kernel, bias, strides, padding):
    height, width, _, filters = kernel.shape
    layer = keras.layers.Conv2D(
        filters, (height, width), strides, padding, use_bias=bias is not None
    )
    outputs = layer(inputs)
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return outputs


def _concatenate(tensors):
    """Concatenates along the channels, at most MAX_CONCATENATED at once, copying as few twice."""
    while len(tensors) > MAX_CONCATENATED:
        excess, merged, rest = len(tensors) - MAX_CONCATENATED, [], tensors
        while excess > 0 and len(rest) > 1:
            size = min(MAX_CONCATENATED, excess + 1)
            merged.append(keras.layers.Concatenate()(rest[:size]))
            rest, excess = rest[size:], excess - (size - 1)
        tensors = merged + rest
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate()(tensors)
