"""remove_channels: a copy of a model without the channels that nothing reads.

Every channel of every tensor gets a number. A layer that passes a channel on, such as BatchNorm,
gives it the same number; an addition, whose operands stand or fall together, makes two numbers one.
Whether a channel is read is then found from the outputs backwards.
"""

import math

import keras
import numpy as np

from tfsparse import copying
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D


def remove_channels(model):
    """Returns a copy of `model` that does not compute the channels that nothing reads.

    A channel is read by the outputs of the model, by a convolution or Dense layer that has a weight
    other than 0 for it in a filter that is read itself, and by every layer that is not named below.
    Filters of channels that are not read are removed, and with them whatever only they read. The
    copy has the same layer names, inputs and outputs, and computes the same in inference, up to
    rounding, with fewer parameters and multiply-accumulates. What `Pruner` zeroes with structure
    "channel" goes this way.

    Channels are followed through Conv2D, DepthwiseConv2D, Dense, BatchNormalization, Flatten, 2D
    pooling, padding, cropping and upsampling, dropout, activations of single numbers, additions and
    the other element-wise merging layers, Concatenate, arithmetic, slices and `keras.ops.split` of
    tensors, the common ones among `keras.ops`' activations, and nested models. Channels that are
    added are removed together, if none of them is read. All other layers keep their inputs and
    outputs whole, among them grouped, separable and transposed convolutions, reshapes, and layers
    with their channels first. Each tensor keeps a channel.

    A `PeriodicConv2D` that loses channels loses its pattern too, which depends on their positions,
    and becomes a `keras.layers.Conv2D`. Where that would have as many parameters or more, the layer
    keeps all its channels, and the layers before it go on computing them.

    Not carried over: the optimizer and whatever else `compile` set, and methods that a subclass
    adds. `model` stays as it is and shares no variable with the copy.

    Args:
        model: built functional or `Sequential` Keras model.

    Returns:
        keras.Model, functional or `Sequential`; an equal copy where all channels are read.

    Raises:
        UsageError: where the model is of another kind or not built; a layer cannot be made again
            from its configuration; or a nested model is called with other inputs than its own.

    Example:
        >>> pruner = Pruner(model, DNRSchedule(0.5, end_step=9, frequency=1), structure="channel")
        >>> small = tfsparse.pruning.remove_channels(model)
    """
    copying.check_model(model)
    layers, slices, splits = _keep(model)
    keys = {}

    def make(operation):
        if operation in layers:
            return _reduced(operation, *layers[operation])
        if operation in splits:
            return _split_again(operation, *splits[operation])
        new = copying.clone(operation)
        if operation in slices:
            keys[new] = _moved(*slices[operation])
        return new

    def weights(layer, new):
        return _kept_weights(layer, *layers[layer]) if layer in layers else layer.get_weights()

    def call(operation, *args, **kwargs):
        if operation in keys:
            args = (args[0], keys[operation])
        return operation(*args, **kwargs)

    return copying.copy_model(model, make, weights, call)


def _keep(model):
    """Returns which channels stay.

    Returns:
        {layer: (bool [input channels], bool [output channels])} of the layers that lose some,
        {operation: (key, bool [input channels])} of all slices, and
        {operation: (ends, bool [input channels])} of all splits.
    """
    whole = set()
    while True:
        channels = _Channels(model, whole)
        kept = channels.kept()
        layers = {
            layer: (kept[inputs], kept[outputs])
            for layer, (inputs, outputs) in channels.layers.items()
            if not (kept[inputs].all() and kept[outputs].all())
        }
        refused = {
            layer
            for layer, masks in layers.items()
            if isinstance(layer, PeriodicConv2D) and not _saves_as_dense(layer, *masks)
        }
        if not refused:
            slices = {op: (key, kept[inputs]) for op, (key, inputs) in channels.slices.items()}
            splits = {op: (ends, kept[inputs]) for op, (ends, inputs) in channels.splits.items()}
            return layers, slices, splits
        # What such a layer keeps, others may have to compute: find it all again.
        whole |= refused


def _saves_as_dense(layer, inputs, outputs):
    """Whether a periodic layer has fewer parameters as Conv2D with the channels that stay."""
    dense = math.prod(layer.kernel_size) * inputs.sum() * outputs.sum()
    return dense + layer.use_bias * outputs.sum() < layer.count_params()


class _Tensor:
    """A tensor in the model: its KerasTensor and the numbers of its channels, int [channels].

    Where the last axis has no known size there are no numbers.
    """

    def __init__(self, spec, channels):
        self.spec = spec
        self.rank = len(spec.shape)
        self.channels = channels


class _Channels:
    """The channels of all tensors of a model, by number.

    Args:
        model: the model.
        whole: set of layers that keep all channels of their inputs and outputs.

    Attributes:
        layers: {layer: (input channels, output channels)} of layers whose weights or configuration
            follow their channels; int arrays.
        slices: {operation: (key, input channels)}.
        splits: {operation: (where its parts end, input channels)}.
        read: list of arrays of channels that are read in any case.
    """

    def __init__(self, model, whole):
        self.layers, self.slices, self.splits, self.read = {}, {}, {}, []
        self._whole = whole
        self._tensors = []  # the channels of each
        self._same = []  # of each number one that stands for the same channels, or itself
        inputs = [self._unknown(spec) for spec in model.inputs]
        for output in keras.tree.flatten(self._follow(model, inputs)):
            self.read.append(output.channels)

    def kept(self):
        """Returns whether channels stay, a bool for each number."""
        roots = np.array([self._root(number) for number in range(len(self._same))], int)
        kept = np.zeros(len(roots), bool)
        for channels in self.read:
            kept[roots[channels]] = True
        readers = [
            (_uses(layer), roots[inputs], roots[outputs])
            for layer, (inputs, outputs) in self.layers.items()
            if isinstance(layer, _FILTERS)
        ]
        while True:
            _add_what_is_read(kept, readers)
            empty = [c for c in self._tensors if c.size and not kept[roots[c]].any()]
            if not empty:
                return kept[roots]
            # A channel that stays for its tensor's sake computes what it did, from what it reads:
            # another value might be infinite, and that times 0 is no longer 0.
            kept[roots[empty[-1][0]]] = True

    def new(self, count):
        """Returns the numbers of `count` channels that nothing else has."""
        self._same.extend(range(len(self._same), len(self._same) + count))
        return np.arange(len(self._same) - count, len(self._same))

    def unite(self, first, second):
        """Notes that the channels of two arrays of one length go or stay together."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            self._same[self._root(a)] = self._root(b)

    def _root(self, number):
        while self._same[number] != number:
            self._same[number] = number = self._same[self._same[number]]
        return number

    def _tensor(self, spec, channels):
        self._tensors.append(channels)
        return _Tensor(spec, channels)

    def _unknown(self, spec):
        """Returns the tensor of an input or of a layer that is not followed."""
        channels = self.new(_size(spec))
        self.read.append(channels)
        return self._tensor(spec, channels)

    def _record(self, layer, inputs, outputs):
        """Notes what a layer reads and writes; in all its calls it has the same channels."""
        if layer in self.layers:
            for before, now in zip(self.layers[layer], (inputs, outputs), strict=True):
                self.unite(before, now)
        self.layers[layer] = (inputs, outputs)

    def _follow(self, model, tensors):
        """Returns the outputs of a model, in their structure."""
        graph = getattr(model, "_functional", model)  # what a Sequential model has inside
        if [x.rank for x in tensors] != [len(x.shape) for x in graph.inputs]:
            raise UsageError(
                f"Model {model.name} is called with other inputs than it was built with. Call it "
                "with all of them, at their rank."
            )
        for tensor, reference in zip(tensors, graph.inputs, strict=True):
            channels = tensor.channels
            self._record(reference._keras_history.operation, channels, channels)
        # Keras' own way through the graph, which knows each of several calls of a layer.
        return graph._run_through_graph(tensors, operation_fn=self._followed)

    def _followed(self, operation):
        def call(*args, **kwargs):
            leaves = keras.tree.flatten([args, kwargs])
            tensors = [leaf for leaf in leaves if isinstance(leaf, _Tensor)]
            if isinstance(operation, keras.Model):
                return self._follow(operation, tensors)
            specs = keras.tree.map_structure(
                lambda leaf: leaf.spec if isinstance(leaf, _Tensor) else leaf, (args, kwargs)
            )
            outputs = operation.compute_output_spec(*specs[0], **specs[1])
            channels = self._passed_on(operation, leaves, tensors)
            if channels is None:
                self.read.extend(tensor.channels for tensor in tensors)
                return keras.tree.map_structure(self._unknown, outputs)
            if isinstance(operation, keras.layers.Layer) and operation.weights:
                self._record(operation, tensors[0].channels, channels)
            return keras.tree.map_structure(self._tensor, outputs, channels)

        return call

    def _passed_on(self, operation, leaves, tensors):
        """Returns the channels of the output, those of several in their structure.

        None where the operation is not followed.
        """
        rule = _rule(operation)
        if rule is None or operation in self._whole or not _is_plain(operation):
            return None
        if any(tensor.channels.size == 0 for tensor in tensors):
            return None
        others = [leaf for leaf in leaves if not isinstance(leaf, _Tensor)]
        return rule(self, operation, tensors, others)


def _add_what_is_read(kept, readers):
    """Adds to the channels in `kept` those that they are computed from, until nothing changes."""
    count = -1
    while count != kept.sum():
        count = kept.sum()
        for uses, inputs, outputs in reversed(readers):
            kept[inputs[uses[:, kept[outputs]].any(axis=1)]] = True


# Rules: functions from the _Channels, an operation, the tensors among its arguments and its other
# arguments to the channels of the output. None stands for "not followed".


def _pass(channels, operation, tensors, others):
    return tensors[0].channels if is_elementwise(operation) and len(tensors) == 1 else None


def _normalize(channels, operation, tensors, others):
    is_last = operation.axis in (-1, tensors[0].rank - 1)
    return tensors[0].channels if is_last and len(tensors) == 1 else None


def _flatten(channels, operation, tensors, others):
    _, *positions, _ = tensors[0].spec.shape
    return None if None in positions else np.tile(tensors[0].channels, math.prod(positions))


def _convolve_depthwise(channels, operation, tensors, others):
    repeated = np.repeat(tensors[0].channels, operation.depth_multiplier)
    return repeated if is_elementwise(operation) else None


def _filter(channels, operation, tensors, others):
    if isinstance(operation.activation, keras.layers.Layer):
        return None  # it may have weights
    outputs = channels.new(operation.units if _is_dense(operation) else operation.filters)
    if not is_elementwise(operation):
        channels.read.append(outputs)
    return outputs


def _merge(channels, operation, tensors, others):
    """Element-wise: channel c of the output comes from channel c of all tensors."""
    first, *rest = tensors
    shapes = {(tensor.rank, len(tensor.channels)) for tensor in tensors}
    if len(shapes) > 1 or not all(isinstance(other, (int, float)) for other in others):
        return None  # something is broadcast along the channels
    for tensor in rest:
        channels.unite(first.channels, tensor.channels)
    return first.channels


def _concatenate(channels, operation, tensors, others):
    if operation.axis in (-1, tensors[0].rank - 1):
        return np.concatenate([tensor.channels for tensor in tensors])
    return _merge(channels, operation, tensors, [])


def _slice(channels, operation, tensors, others):
    # `others` is the key: `keras.tree.flatten` took it apart.
    if len(tensors) > 1 or not all(item is Ellipsis or isinstance(item, slice) for item in others):
        return None
    key = others if Ellipsis in others else [*others, Ellipsis]
    gap = key.index(Ellipsis)
    axes = [slice(None)] * (tensors[0].rank - len(key) + 1)
    key = (*key[:gap], *axes, *key[gap + 1 :])
    if key[-1].step not in (None, 1):
        return None
    channels.slices[operation] = (key, tensors[0].channels)
    return tensors[0].channels[key[-1]]


def _split(channels, operation, tensors, others):
    if operation.axis not in (-1, tensors[0].rank - 1):
        return None
    parts = np.split(tensors[0].channels, operation.indices_or_sections)
    if any(part.size == 0 for part in parts):
        return None
    channels.splits[operation] = (np.cumsum([len(part) for part in parts]), tensors[0].channels)
    return parts


_FILTERS = (keras.layers.Conv2D, keras.layers.Dense, PeriodicConv2D)
_RULES = {
    **dict.fromkeys(_FILTERS, _filter),
    keras.layers.DepthwiseConv2D: _convolve_depthwise,
    keras.layers.BatchNormalization: _normalize,
    keras.layers.Flatten: _flatten,
    keras.layers.Concatenate: _concatenate,
    **dict.fromkeys(
        (
            keras.layers.Add,
            keras.layers.Average,
            keras.layers.Maximum,
            keras.layers.Minimum,
            keras.layers.Multiply,
            keras.layers.Subtract,
        ),
        _merge,
    ),
    **dict.fromkeys(
        (
            keras.layers.Activation,
            keras.layers.AveragePooling2D,
            keras.layers.Cropping2D,
            keras.layers.Dropout,
            keras.layers.ELU,
            keras.layers.GaussianDropout,
            keras.layers.GaussianNoise,
            keras.layers.GlobalAveragePooling2D,
            keras.layers.GlobalMaxPooling2D,
            keras.layers.Identity,
            keras.layers.LeakyReLU,
            keras.layers.MaxPooling2D,
            keras.layers.ReLU,
            keras.layers.SpatialDropout2D,
            keras.layers.UpSampling2D,
            keras.layers.ZeroPadding2D,
        ),
        _pass,
    ),
}
# What `x + y`, `keras.ops.relu(x)` and `x[..., :8]` put into a model; the classes are not public.
_OPERATION_RULES = {
    "Concatenate": _concatenate,
    "GetItem": _slice,
    "Split": _split,
    **dict.fromkeys(("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract"), _merge),
    **dict.fromkeys(("Gelu", "Relu", "Relu6", "Sigmoid", "Silu", "Tanh"), _pass),
}
# Activations that take each number by itself.
_ACTIVATIONS = (
    keras.activations.elu,
    keras.activations.exponential,
    keras.activations.gelu,
    keras.activations.hard_sigmoid,
    keras.activations.hard_silu,
    keras.activations.leaky_relu,
    keras.activations.linear,
    keras.activations.mish,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.selu,
    keras.activations.sigmoid,
    keras.activations.silu,
    keras.activations.softplus,
    keras.activations.softsign,
    keras.activations.tanh,
)


def _rule(operation):
    kind = type(operation)
    if kind in _RULES:
        return _RULES[kind]
    is_operator = kind.__module__.startswith("keras.src.ops.")
    return _OPERATION_RULES.get(kind.__name__) if is_operator else None


def _is_plain(operation):
    """Whether the arguments of an operation leave it to the rule of its class."""
    return (
        getattr(operation, "data_format", "channels_last") == "channels_last"
        and getattr(operation, "groups", 1) == 1
        and getattr(operation, "noise_shape", None) is None
        and not getattr(operation, "lora_enabled", False)
        and getattr(operation, "quantization_mode", None) is None
    )


def is_elementwise(operation):
    """Whether an operation has no activation that mixes channels, such as softmax."""
    return getattr(operation, "activation", None) in (None, *_ACTIVATIONS)


def _is_dense(layer):
    return isinstance(layer, keras.layers.Dense)


def _size(spec):
    """Returns the size of the last axis, 0 where it is not known."""
    return (spec.shape[-1] if spec.shape else None) or 0


def _kernel(layer):
    """Returns the kernel [..., input channels, output channels] of a layer in `_FILTERS`."""
    periodic = isinstance(layer, PeriodicConv2D)
    return keras.ops.convert_to_numpy(layer.dense_kernel() if periodic else layer.kernel)


def _uses(layer):
    """Returns which inputs the filters of a layer in `_FILTERS` read, bool [inputs, outputs]."""
    kernel = _kernel(layer)
    return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))


def _reduced(layer, inputs, outputs):
    """Returns a new layer like `layer` with the channels that stay."""

    def make(config):
        kind = type(layer)
        if kind is keras.layers.InputLayer:
            config["batch_shape"] = (*config["batch_shape"][:-1], int(inputs.sum()))
        elif kind in _FILTERS:
            config["units" if _is_dense(layer) else "filters"] = int(outputs.sum())
        if kind is PeriodicConv2D:
            del config["pattern"]  # all the rest is Conv2D's too
            kind = keras.layers.Conv2D
        return kind.from_config(config)

    return copying.make_again(layer, make)


def _kept_weights(layer, inputs, outputs):
    """Returns the weights of the channels that stay, a list of arrays."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel, *bias = layer.get_weights()
        return [kernel[:, :, inputs], *(b[outputs] for b in bias)]
    if isinstance(layer, _FILTERS):
        _, *bias = layer.get_weights()
        return [_kernel(layer)[..., inputs, :][..., outputs], *(b[outputs] for b in bias)]
    return [
        weight[outputs] for weight in layer.get_weights()
    ]  # BatchNormalization's; no InputLayer


def _moved(key, inputs):
    """Returns the key of a slice of channels, counted in those that stay."""
    start, stop, _ = key[-1].indices(len(inputs))
    return (*key[:-1], slice(int(inputs[:start].sum()), int(inputs[:stop].sum())))


def _split_again(operation, ends, inputs):
    """Returns a split like `operation` into what stays of its parts."""
    ends = [int(inputs[:end].sum()) for end in ends]
    sizes = set(np.diff([0, *ends]).tolist())
    # Equal parts by their number: not every runtime has an operator for others.
    parts = len(ends) if len(sizes) == 1 else ends[:-1]
    kind = type(operation)
    return copying.make_again(
        operation, lambda config: kind.from_config({**config, "indices_or_sections": parts})
    )
