"""A periodic network as plain convolutions that mobile runtimes run fast.

`lower` takes a trained Keras model and returns one that computes the same with stock layers only:
each periodic convolution becomes, for each of its filter phases, the small dense convolution of
`tfsparse.lowering` over its shifted input. It contains the kept weights only.

**Shifts.** A depthwise convolution whose kernels are 0 but for a single 1 shifts each block of
channels by its own offset. If blocks are narrow, one pass of it takes LiteRT less time than the
slices and the concatenation that do the same, and its border is zeros, so that often no padding is
needed. A shift along columns and one along rows, of up to 3 taps each, take less time than one of
3x3 taps, and filter phases that need the same shift along columns share it. All shifts of a model
with the same kernel share one constant. If blocks are wide, slices are as fast.

**Concatenation.** BatchNorm and activation that follow a periodic convolution are applied to each
filter phase on its own, where the converter folds them into its convolution. Then the phases are
concatenated; XNNPACK takes at most five inputs, so more are nested.

**Choice.** If all of that would be slower, the layer becomes one convolution with its dense kernel;
see `tflite.forms`.
"""

import collections

import numpy as np

from tflite.forms import MAX_CONCATENATED, best_form
from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import copying, graph
from tfsparse.channels.rules import is_elementwise
from tfsparse.layers import PeriodicConv2D

_ACTIVATIONS = (keras.layers.ReLU, keras.layers.Activation)


def lower(model, choose=best_form):
    """Returns a model that computes what `model` does and has no periodic layers.

    Args:
        model: functional or Sequential Keras model with inputs of known size.
        choose: function from a periodic layer and the shape of its input to the `tflite.forms.Form`
            it takes, or None for one convolution with its dense kernel.

    Returns:
        Keras model for batches of one, with weights of its own. It is for conversion, not for
        training: BatchNorm that follows a periodic layer is folded into it.

    Raises:
        UsageError: if the model cannot be copied layer by layer.
    """
    copying.check_model(model)
    followers, shifts = _followers(model), {}
    folded = {layer for pair in followers.values() for layer in pair}

    def make(operation):
        if isinstance(operation, keras.layers.InputLayer):
            return keras.layers.InputLayer(batch_shape=(1, *operation.batch_shape[1:]))
        if isinstance(operation, PeriodicConv2D):
            after = followers.get(operation, (None, None))
            return lambda x: _periodic(operation, choose(operation, x.shape), *after, x, shifts)
        if operation in folded:
            return lambda x, **_: x
        return copying.clone(operation)

    return copying.copy_model(model, make)


def _followers(model):
    """Returns {periodic layer: (BatchNorm or None, activation or None)} that follow it.

    Only layers that are called once and that alone read what they follow.
    """
    calls, readers = graph.calls(model), graph.readers(model)
    counts = collections.Counter(call.operation for call in calls)

    def follower(call, kinds):
        following = readers[id(call.outputs[0])]
        if len(following) != 1 or following[0] is None:
            return None
        layer = following[0].operation
        return following[0] if isinstance(layer, kinds) and counts[layer] == 1 else None

    found = {}
    for call in calls:
        layer = call.operation
        if not isinstance(layer, PeriodicConv2D) or counts[layer] > 1:
            continue
        if layer.activation is not keras.activations.linear:
            continue  # its own activation comes before what follows
        norm = follower(call, keras.layers.BatchNormalization)
        activation = follower(norm or call, _ACTIVATIONS)
        if activation and not is_elementwise(activation.operation):
            activation = None  # it needs all channels at once
        found[layer] = tuple(each and each.operation for each in (norm, activation))
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
    """Applies `steps` one after the other; `done` holds what earlier phases shifted."""
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
    """Returns the kernel over the shifted input, zero for channels without a piece."""
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
    """Concatenates channels, MAX_CONCATENATED tensors at a time, copying few of them twice."""
    while len(tensors) > MAX_CONCATENATED:
        excess, merged, rest = len(tensors) - MAX_CONCATENATED, [], tensors
        while excess > 0 and len(rest) > 1:
            size = min(MAX_CONCATENATED, excess + 1)
            merged.append(keras.layers.Concatenate()(rest[:size]))
            rest, excess = rest[size:], excess - (size - 1)
        tensors = merged + rest
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate()(tensors)
