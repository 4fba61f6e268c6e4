"""Which channels of a model are the same, and which of them are read."""

import keras
import numpy as np

from tfsparse import graph
from tfsparse.channels import rules
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D


class Tensor:
    """A tensor in the model: its KerasTensor and the numbers of its channels, int [channels].

    If the size of the last axis is unknown, there are no numbers.
    """

    def __init__(self, spec, channels):
        self.spec = spec
        self.rank = len(spec.shape)
        self.channels = channels


class Trace:
    """The channels of all tensors of a model, by number.

    Args:
        model: the model.
        whole: set of layers that keep all channels of their inputs and outputs.

    Attributes:
        layers: {layer: (input channels, output channels)} of the layers whose weights or
            configuration follow their channels; int arrays.
        cuts: {operation: (function, input channels)} of slices and splits of channels; the function
            takes which input channels stay and returns what is called in place of the operation.
        read: list of arrays of channels that are read in any case.
    """

    def __init__(self, model, whole=()):
        self.layers, self.cuts, self.read = {}, {}, []
        self._whole = whole
        self._tensors = []  # the channels of each
        self._same = []  # for each number, one that stands for the same channels, or itself
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
            (_reads(layer), roots[inputs], roots[outputs])
            for layer, (inputs, outputs) in self.layers.items()
            if isinstance(layer, rules.FILTERS)
        ]
        while True:
            _add_what_is_read(kept, readers)
            empty = [c for c in self._tensors if c.size and not kept[roots[c]].any()]
            if not empty:
                return kept[roots]
            # A channel that stays because its tensor needs one computes what it did, from what it
            # reads: another value might be infinite, and that times 0 is no longer 0.
            kept[roots[empty[-1][0]]] = True

    def new(self, count):
        """Returns the numbers of `count` channels that nothing else has."""
        self._same.extend(range(len(self._same), len(self._same) + count))
        return np.arange(len(self._same) - count, len(self._same))

    def unite(self, first, second):
        """Notes that the channels of two arrays of one length stay or go together."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            self._same[self._root(a)] = self._root(b)

    def _root(self, number):
        while self._same[number] != number:
            self._same[number] = number = self._same[self._same[number]]
        return number

    def _tensor(self, spec, channels):
        self._tensors.append(channels)
        return Tensor(spec, channels)

    def _unknown(self, spec):
        """Returns the tensor of an input, or of a layer that is not followed."""
        channels = self.new((spec.shape[-1] if spec.shape else None) or 0)
        self.read.append(channels)
        return self._tensor(spec, channels)

    def _record(self, layer, inputs, outputs):
        """Notes what a layer reads and writes; it has the same channels in all its calls."""
        if layer in self.layers:
            for before, now in zip(self.layers[layer], (inputs, outputs), strict=True):
                self.unite(before, now)
        self.layers[layer] = (inputs, outputs)

    def _follow(self, model, tensors):
        """Returns the outputs of a model, in their structure."""
        if [x.rank for x in tensors] != [len(x.shape) for x in model.inputs]:
            raise UsageError(
                f"Model {model.name} is called with other inputs than it was built with. Call it "
                "with all of them, at their rank."
            )
        for tensor, reference in zip(tensors, model.inputs, strict=True):
            self._record(graph.producer(reference), tensor.channels, tensor.channels)
        return graph.run(model, self._followed, tensors)

    def _followed(self, operation):
        def call(*args, **kwargs):
            leaves = keras.tree.flatten([args, kwargs])
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            if isinstance(operation, keras.Model):
                return self._follow(operation, tensors)
            specs = keras.tree.map_structure(
                lambda leaf: leaf.spec if isinstance(leaf, Tensor) else leaf, (args, kwargs)
            )
            outputs = operation.compute_output_spec(*specs[0], **specs[1])
            others = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
            channels = self._passed_on(operation, tensors, others)
            if channels is None:
                self.read.extend(tensor.channels for tensor in tensors)
                return keras.tree.map_structure(self._unknown, outputs)
            if isinstance(operation, keras.layers.Layer) and operation.weights:
                self._record(operation, tensors[0].channels, channels)
            return keras.tree.map_structure(self._tensor, outputs, channels)

        return call

    def _passed_on(self, operation, tensors, others):
        """Returns the channels of the outputs, in their structure; None if not followed."""
        rule = rules.find(operation)
        unknown = any(tensor.channels.size == 0 for tensor in tensors)
        if rule is None or unknown or operation in self._whole:
            return None
        return rule(self, operation, tensors, others)


def dense_kernel(layer):
    """Returns the kernel [..., input channels, output channels] of a layer in `rules.FILTERS`."""
    periodic = isinstance(layer, PeriodicConv2D)
    return keras.ops.convert_to_numpy(layer.dense_kernel() if periodic else layer.kernel)


def _reads(layer):
    """Returns which inputs the filters of a layer read, bool [inputs, outputs]."""
    kernel = dense_kernel(layer)
    return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))


def _add_what_is_read(kept, readers):
    """Adds to the channels in `kept` those that they are computed from, until nothing changes."""
    count = -1
    while count != kept.sum():
        count = kept.sum()
        for reads, inputs, outputs in reversed(readers):
            kept[inputs[reads[:, kept[outputs]].any(axis=1)]] = True
