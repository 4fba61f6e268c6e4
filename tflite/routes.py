"""By which route each form of sparsity is cashed in, or why it is not.

- Channels that nothing reads are removed: a smaller dense network.
- Periodic layers become small dense convolutions where these are faster (tflite/lowering.py).
- Other zeros stay. LiteRT has no kernel that is faster without them but for 1x1 convolutions on
  ARM, and TFLM none at all; they make the file smaller when it is compressed.

In int8, fully connected layers become 1x1 convolutions (tflite/fully_connected.py).
"""

from typing import NamedTuple

import numpy as np

from tflite.fully_connected import as_convolutions
from tflite.lowering import best_form, lower
from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import pruning
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D, leaf_layers

WORTH_MENTION = 0.05  # share of zeros; fewer come about by chance


class Route(NamedTuple):
    """How a model is converted.

    Attributes:
        network: keras.Model that computes the same and is to be converted.
        notes: a line for each form of sparsity that was found, for the user.
    """

    network: object
    notes: list


def find_route(model, arithmetic="float", lowered=True):
    """Returns the `Route` of a Keras model.

    Args:
        model: functional or Sequential Keras model; others are taken as they are.
        arithmetic: "float" or "int8", for which it is to be fast.
        lowered: whether periodic layers may become small convolutions; else they become single
            ones with their dense kernels, whose file is larger and slower and needs less RAM.
    """
    zeros = _zeros(model)
    network, notes = _without_channels(model)
    small = []

    def choose(layer, input_shape, arithmetic):
        form = best_form(layer, input_shape, arithmetic) if lowered else None
        small.append(form is not None)
        return form

    periodic = any(isinstance(layer, PeriodicConv2D) for layer in leaf_layers(network))
    if periodic:
        network = lower(network, arithmetic, choose)
        notes.append(
            f"periodic: {sum(small)} layers as small convolutions, {len(small) - sum(small)} with "
            "their dense kernels"
        )
    # Channels that were removed were zeros, too.
    if zeros >= WORTH_MENTION and (periodic or not notes):
        notes.append(f"irregular: {zeros:.0%} of the kept weights are zero and stay")
    if arithmetic == "int8":
        network = _without_fully_connected(network)
    return Route(network, notes or ["none"])


def _without_fully_connected(model):
    try:
        return as_convolutions(model)
    except UsageError:  # a subclass, or layers that cannot be copied
        return model


def _without_channels(model):
    try:
        smaller = pruning.remove_channels(model)
    except UsageError:  # a subclass, or layers that cannot be copied
        return model, []
    before, after = model.count_params(), smaller.count_params()
    if before == after:
        return model, []
    return smaller, [f"channels: removed; {after:,} of {before:,} parameters are left"]


def _zeros(model):
    """Returns the share of zeros among the kernels' weights, the kept ones of periodic layers."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense, PeriodicConv2D)
    layers = [layer for layer in leaf_layers(model) if isinstance(layer, kinds)]
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    sizes = sum(kernel.size for kernel in kernels)
    return 1 - sum(np.count_nonzero(kernel) for kernel in kernels) / sizes if sizes else 0.0
