"""What is pruned as one: single weights, or all weights of an input channel."""

import collections
import math

import keras
import numpy as np
from keras import ops

from tfsparse import graph
from tfsparse.cost import macs_per_weight
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning.policy import all_layers
from tfsparse.pruning.rewiring import LayerState

_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
STRUCTURES = ("unstructured", "channel")
BUDGETS = ("weights", "macs")


class Units:
    """The units of one weight variable.

    Args:
        layer: the layer that has `weight`.
        weight: Keras variable.
        structure: one of `STRUCTURES`.

    Attributes:
        count: number of units.
        size: weights in a unit.
        filters: int [count], the filter of each unit; None if a unit is of all filters.
        kernel_shape: (height, width, channels, filters) of the dense kernel.
    """

    def __init__(self, layer, weight, structure):
        self.shape = tuple(weight.shape)
        self.kernel_shape = getattr(layer, "dense_kernel_shape", self.shape)
        by_channel = structure == "channel"
        self._unit_of = _channels(layer, weight) if by_channel else None
        self.filters = None if by_channel else _filters(layer, weight)
        self.count = int(self._unit_of.max()) + 1 if by_channel else math.prod(self.shape)
        self.size = math.prod(self.shape) / self.count

    def spread(self, active):
        """Returns the mask of weights, float32, for the bool [count] `active`."""
        by_weight = active if self._unit_of is None else active[self._unit_of]
        return by_weight.reshape(self.shape).astype(np.float32)

    def active(self, mask):
        """Returns bool [count] for a mask of weights: the opposite of `spread`."""
        on = mask.ravel() > 0
        return on if self._unit_of is None else np.bincount(self._unit_of, on) > 0

    def state(self, mask, weight, weight_cost, momentum=None, gradient=None):
        """Returns the `LayerState` of arrays of the weight's shape; see there."""
        state = LayerState(
            active=self.active(mask),
            weight=self.norm(weight),
            unit_size=self.size,
            unit_cost=self.size * weight_cost,
            kernel_shape=self.kernel_shape,
        )
        if momentum is not None:
            state.momentum = self.norm(momentum)
            state.momentum_mean = float(np.mean(np.abs(momentum)[mask > 0]))
        if gradient is not None:
            state.gradient = self.norm(gradient)
        return state

    def norm(self, values):
        """Returns float [count], the Frobenius norm of each unit of `values`."""
        if self._unit_of is None:
            return np.abs(values).ravel()
        return np.sqrt(np.bincount(self._unit_of, np.square(values, dtype=np.float64).ravel()))


def prunable_by_channel(model, found):
    """Returns the (layer, weight) of `found` without layers that read an input of the model.

    Raises:
        UsageError: if none is left, or channels of a layer cannot be pruned as one.
    """
    for layer, weight in found:
        if len(weight.shape) < 2 and not isinstance(layer, PeriodicConv2D):
            raise UsageError(
                f"Layer {layer.name!r} has a prunable weight of shape {tuple(weight.shape)}, "
                "without channels; leave it out by a policy, or use structure 'unstructured'."
            )
    stems = _stems(model, found)
    found = [(layer, weight) for layer, weight in found if id(weight) not in stems]
    if not found:
        raise UsageError(
            "Pruning by channel needs a layer that can be pruned and reads no input of the model. "
            f"Received: {model.name!r}"
        )
    for layer, weight in found:
        if getattr(layer, "groups", 1) > 1:
            raise UsageError(
                f"Layer {layer.name!r} has {layer.groups} groups and cannot be pruned by channel; "
                "leave it out by a policy, or use structure 'unstructured'."
            )
        sizes = np.bincount(_channels(layer, weight))
        if len(set(sizes)) > 1:
            raise UsageError(
                f"Layer {layer.name!r} has between {sizes.min()} and {sizes.max()} weights per "
                "channel and cannot be pruned by channel; use another pattern, or structure "
                "'unstructured'."
            )
    return found


def weight_costs(model, found, budget):
    """Returns what each weight of a (layer, weight) of `found` takes of a budget, a list of ints.

    Raises:
        UsageError: if `budget` is unknown, or is "macs" and those of a layer cannot be counted.
    """
    if budget not in BUDGETS:
        raise UsageError(f"budget must be one of {BUDGETS}. Received: {budget!r}")
    if budget == "weights":
        return [1] * len(found)
    macs = macs_per_weight(model)
    for layer, weight in found:
        if layer not in macs:
            raise UsageError(
                "budget='macs' counts those of 2D convolutions and Dense layers. Received: "
                f"{weight.path!r} of a {type(layer).__name__}. Leave it out by a policy."
            )
    return [macs[layer] for layer, _ in found]


def names_of(layers):
    """Returns the names of layers; the paths of those whose names are not unique."""
    layers = list(layers)
    counts = collections.Counter(layer.name for layer in layers)
    return [layer.name if counts[layer.name] == 1 else layer.path for layer in layers]


def variable_beside(weight, value, role):
    """Returns a variable of the pruner's state, named after the weight that it belongs to."""
    name = f"{weight.path}/{role}".replace("/", "_")  # paths of one model's weights are unique
    value = ops.copy(ops.convert_to_tensor(value))  # JAX would share it with `weight`
    return keras.Variable(value, dtype=value.dtype, trainable=False, autocast=False, name=name)


def counter():
    """Returns a variable for the number of a step, none as yet: int32 [1], -1."""
    return keras.Variable(np.array([-1], np.int32), dtype="int32", trainable=False)


def _channels(layer, weight):
    """Returns the input channel of each weight, flattened."""
    if isinstance(layer, PeriodicConv2D):
        return layer.kernel_channels
    return _indices(weight, -1 if isinstance(layer, _TRANSPOSED) else -2)


def _filters(layer, weight):
    """Returns the filter of each weight, flattened."""
    if isinstance(layer, PeriodicConv2D):
        return layer.kernel_positions % layer.filters
    return _indices(weight, -2 if isinstance(layer, _TRANSPOSED) else -1)


def _indices(weight, axis):
    """Returns the index of each weight along an axis, flattened."""
    shape = [1] * len(weight.shape)
    shape[axis] = weight.shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(shape), tuple(weight.shape)).ravel()


def _stems(model, found):
    """Returns the ids of the weights in `found` whose channels are those of an input of `model`.

    Of layers inside a layer that reads an input, these are the ones with as many channels. In a
    model with a `call` of its own, or with such a model in it, the first layer is the one.
    """
    stems = set()
    try:
        readers = _readers_of_inputs(model)
    except UsageError:
        innermost = (each for each in all_layers(model) if not any(graph.tracked_layers(each)))
        readers = {next(filter(_mixes, innermost)): set()}
    for operation, sizes in readers.items():
        inside = list(graph.tracked_layers(operation))
        for layer, weight in found:
            channels = int(_channels(layer, weight).max()) + 1
            if layer is operation or (layer in inside and channels in sizes):
                stems.add(id(weight))
    return stems


def _readers_of_inputs(model):
    """Returns {layer: set of numbers of channels}: what layers with weights read of the inputs.

    Layers and operations without a matrix of weights, such as padding or BatchNorm, pass inputs
    on, also several of them as one.
    """
    calls, reached, readers = graph.calls(model), {id(x) for x in model.inputs}, {}
    before = None
    while before != len(reached):
        before = len(reached)
        for operation, inputs, outputs, _ in calls:
            found = [x for x in inputs if id(x) in reached]
            if isinstance(operation, keras.Model):
                pairs = zip(inputs, operation.inputs, strict=False)
                reached |= {id(inner) for outer, inner in pairs if id(outer) in reached}
                pairs = zip(operation.outputs, outputs, strict=True)
                reached |= {id(outer) for inner, outer in pairs if id(inner) in reached}
            elif _mixes(operation):
                readers.setdefault(operation, set()).update(x.shape[-1] for x in found)
            elif found and len(found) == len(inputs):
                reached |= {id(x) for x in outputs}
    return {operation: sizes for operation, sizes in readers.items() if sizes}


def _mixes(operation):
    """Whether the output channels are other ones than the input channels."""
    matrices = [each for each in getattr(operation, "weights", ()) if len(each.shape) > 1]
    return bool(matrices) or isinstance(operation, PeriodicConv2D)
