"""What is pruned as one: single weights, or all weights of an input channel."""

import math

import numpy as np
import tensorflow as tf

from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning.policy import ConvolutionPolicy, prunable_layers

STRUCTURES = ("unstructured", "channel")


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

    def norm(self, values):
        """Returns float [count], the Frobenius norm of each unit of `values`."""
        if self._unit_of is None:
            return np.abs(values).ravel()
        return np.sqrt(np.bincount(self._unit_of, np.square(values, dtype=np.float64).ravel()))


def prunable_by_channel(model, found):
    """Returns the (layer, weight) of `found` without the model's first convolution.

    Raises:
        UsageError: if none is left, or channels of a layer cannot be pruned as one.
    """
    (stem, _), *_ = prunable_layers(model, ConvolutionPolicy())
    found = [(layer, weight) for layer, weight in found if layer is not stem]
    if not found:
        raise UsageError("Pruning by channel needs a second layer that can be pruned.")
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


def variable_beside(weight, value, role):
    """Returns a variable of the pruner's state, named after the weight that it belongs to."""
    name = f"{weight.path}/{role}".replace("/", "_")  # paths of one model's weights are unique
    return tf.Variable(tf.convert_to_tensor(value), trainable=False, name=name)


def _channels(layer, weight):
    """Returns the input channel of each weight, flattened."""
    if isinstance(layer, PeriodicConv2D):
        return layer.kernel_channels
    channel_axis = np.arange(weight.shape[-2])[:, None]
    return np.broadcast_to(channel_axis, tuple(weight.shape)).ravel()


def _filters(layer, weight):
    """Returns the filter of each weight, flattened."""
    if isinstance(layer, PeriodicConv2D):
        return layer.kernel_positions % layer.filters
    return np.arange(math.prod(weight.shape)) % weight.shape[-1]
