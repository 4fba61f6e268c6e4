"""remove_channels: a copy of a model without the channels that nothing reads."""

import math
from collections.abc import Callable

import keras

from tfsparse import copying
from tfsparse.channels.explaining import what_stays
from tfsparse.channels.rules import FILTERS
from tfsparse.channels.tracing import Trace, dense_kernel
from tfsparse.layers import PeriodicConv2D


def remove_channels(
    model: keras.Model, print_fn: Callable[[str], object] | None = None
) -> keras.Model:
    """Returns a copy of `model` that does not compute the channels that nothing reads.

    A channel is read by the outputs of the model, by a convolution or Dense layer that has a
    non-zero weight for it in a filter that is itself read, and by every layer not named below.
    Filters of channels that are not read are removed, and with them whatever only they read. The
    copy has the same layer names, inputs and outputs, and computes the same in inference, up to
    rounding, with fewer parameters and multiply-accumulates. It removes what `Pruner` zeroes with
    structure "channel".

    Channels are followed through Conv2D, DepthwiseConv2D, Dense, BatchNormalization, Flatten, 2D
    pooling, padding, cropping and upsampling, dropout, element-wise activations, additions and the
    other element-wise merging layers, Concatenate, arithmetic, slices and `keras.ops.split` of
    tensors, the common activations in `keras.ops`, and nested models. Channels that are added are
    removed together, if none of them is read. All other layers keep their inputs and outputs whole,
    including grouped, separable and transposed convolutions, reshapes, layers with channels first,
    subclasses of those named, and operations with constant arrays. Each tensor keeps at least one
    channel.

    A `PeriodicConv2D` that loses channels also loses its pattern, which depends on their positions,
    and becomes a `keras.layers.Conv2D`. If that had as many parameters or more, the layer keeps all
    its channels, and the layers before it go on computing them.

    What `compile` set, such as the optimizer, and methods that a subclass adds are not carried
    over. `model` stays as it is and shares no variable with the copy.

    Args:
        model: built functional or `Sequential` Keras model.
        print_fn: function of a str, such as `print`, called with a line for each layer whose input
            channels or filters without weights stay: how many, and what reads them.

    Returns:
        keras.Model, functional or `Sequential`; an equal copy if all channels are read.

    Raises:
        UsageError: if the model is of another kind or not built; a layer cannot be made again from
            its configuration; or a nested model is called with other inputs than its own.

    Examples:
        >>> pruner = Pruner(model, DNRSchedule(0.5, end_step=9, frequency=1), structure="channel")
        >>> small = tfsparse.pruning.remove_channels(model)
    """
    copying.check_model(model)
    layers, cuts, lines = _keep(model)
    if print_fn:
        for line in lines:
            print_fn(line)

    def make(operation):
        if operation in layers:
            return _reduced(operation, *layers[operation])
        return cuts[operation] if operation in cuts else copying.clone(operation)

    def weights(layer, new):
        return _kept_weights(layer, *layers[layer]) if layer in layers else layer.get_weights()

    return copying.copy_model(model, make, weights)


def _keep(model):
    """Returns which channels stay.

    Returns:
        {layer: (bool [input channels], bool [output channels])} of the layers that lose some,
        {operation: what is called in its place} of all slices and splits of channels, and an
        iterator of the lines that say what stays without weights.
    """
    whole = set()
    while True:
        trace = Trace(model, whole)
        kept = trace.kept()
        layers = {
            layer: (kept[inputs], kept[outputs])
            for layer, (inputs, outputs) in trace.layers.items()
            if not (kept[inputs].all() and kept[outputs].all())
        }
        refused = {
            layer
            for layer, masks in layers.items()
            if isinstance(layer, PeriodicConv2D) and not _saves_as_dense(layer, *masks)
        }
        if not refused:
            cuts = {op: cut(kept[inputs]) for op, (cut, inputs) in trace.cuts.items()}
            return layers, cuts, what_stays(model, trace, kept, whole)
        # Other layers may have to compute what such a layer keeps: trace it all again.
        whole |= refused


def _saves_as_dense(layer, inputs, outputs):
    """Whether a periodic layer has fewer parameters as Conv2D with the channels that stay."""
    dense = math.prod(layer.kernel_size) * inputs.sum() * outputs.sum()
    return dense + layer.use_bias * outputs.sum() < layer.count_params()


def _reduced(layer, inputs, outputs):
    """Returns a new layer like `layer` with the channels that stay."""

    def make(config):
        kind = type(layer)
        if kind is keras.layers.InputLayer:
            config["batch_shape"] = (*config["batch_shape"][:-1], int(inputs.sum()))
        elif kind in FILTERS:
            size = "units" if kind is keras.layers.Dense else "filters"
            config[size] = int(outputs.sum())
        if kind is PeriodicConv2D:
            del config["pattern"]  # all the rest is Conv2D's too
            kind = keras.layers.Conv2D
        return kind.from_config(config)

    return copying.make_again(layer, make)


def _kept_weights(layer, inputs, outputs):
    """Returns the weights of the channels that stay, a list of arrays."""
    arrays = layer.get_weights()
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel, *vectors = arrays
        return [kernel[:, :, inputs], *(vector[outputs] for vector in vectors)]
    if isinstance(layer, FILTERS):
        kernel = dense_kernel(layer)[..., inputs, :][..., outputs]
        return [kernel, *(vector[outputs] for vector in arrays[1:])]
    return [vector[outputs] for vector in arrays]  # BatchNormalization's; InputLayer has none
