"""How a conversion makes use of each form of sparsity.

- Channels that nothing reads are removed, which leaves a smaller dense network.
- Periodic layers become small dense convolutions if these are faster (tflite/lowering.py).
- Other zeros stay. In LiteRT only 1x1 convolutions on ARM are faster without them, in TFLM
  nothing is; they make the file smaller when it is compressed.

In int8, fully connected layers become 1x1 convolutions (tflite/fully_connected.py).
"""

from typing import NamedTuple

import numpy as np

from tflite.forms import best_form
from tflite.fully_connected import as_convolutions
from tflite.lowering import lower
from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import pruning
from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.precision import float32_policy

WORTH_MENTION = 0.05  # share of zeros; fewer come about by chance


class Route(NamedTuple):
    """How a model is converted.

    Attributes:
        network: keras.Model that computes the same and is to be converted.
        notes: a line for the user on each form of sparsity that was found.
    """

    network: object
    notes: list


@float32_policy()
def find_route(model, arithmetic="float", lowered=True):
    """Returns the `Route` of a Keras model.

    Args:
        model: Keras model; one that cannot be copied layer by layer is converted as it is.
        arithmetic: "float" or "int8", for which it is to be fast.
        lowered: whether periodic layers may become small convolutions; otherwise they become single
            ones with their dense kernels, whose file is larger and slower and needs less RAM.
    """
    zeros, notes = _zeros(model), []
    network = _attempt(pruning.remove_channels, model)
    before, after = model.count_params(), network.count_params()
    if after < before:
        notes.append(f"channels: removed; {after:,} of {before:,} parameters remain")
    else:
        network = model
    periodic = {layer for layer in leaf_layers(network) if isinstance(layer, PeriodicConv2D)}
    if periodic:
        network, small = _without_periodic(network, arithmetic, lowered)
        notes.append(
            f"periodic: {len(small)} layers as small convolutions, {len(periodic - small)} with "
            "their dense kernels"
        )
    # Channels that were removed were zeros, too.
    if zeros >= WORTH_MENTION and (periodic or not notes):
        notes.append(f"unstructured: {zeros:.0%} of the kept weights are zero and stay")
    if arithmetic == "int8":
        network = _attempt(as_convolutions, network)
    return Route(network, notes or ["none"])


def _attempt(change, model):
    try:
        return change(model)
    except UsageError:  # a subclass, or layers that cannot be copied
        return model


def _without_periodic(model, arithmetic, lowered):
    """Returns a model without periodic layers, and the set of those that are small convolutions."""
    small = set()

    def choose(layer, input_shape):
        form = best_form(layer, input_shape, arithmetic) if lowered else None
        if form is not None:
            small.add(layer)
        return form

    network = _attempt(lambda model: lower(model, choose), model)
    return network, small if network is not model else set()


def _zeros(model):
    """Returns the share of zeros among the stored weights of all kernels."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense, PeriodicConv2D)
    layers = [layer for layer in leaf_layers(model) if isinstance(layer, kinds)]
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    sizes = sum(kernel.size for kernel in kernels)
    return 1 - sum(np.count_nonzero(kernel) for kernel in kernels) / sizes if sizes else 0.0
