"""How a conversion makes use of each form of sparsity.

- Channels that nothing reads are removed, which leaves a smaller dense network.
- Periodic layers become small dense convolutions if these are faster (tflite/lowering.py).
- Other zeros stay. In LiteRT only 1x1 convolutions on ARM are faster without them, in TFLM
  nothing is; they make the file smaller when it is compressed.

In int8, fully connected layers become 1x1 convolutions (tflite/fully_connected.py).

Each of these changes leaves alone what it does not know: models with a `call` of their own, and
layers inside layers, such as wrappers. The notes name those that are sparse.
"""

from typing import NamedTuple

import numpy as np

from tflite.forms import best_form
from tflite.fully_connected import as_convolutions
from tflite.lowering import lower
from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import graph, pruning
from tfsparse.errors import UsageError
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
    zeros, notes = _zeros(graph.tracked_layers(model)), []
    failures = []
    network = _attempt(pruning.remove_channels, model, failures)
    before, after = model.count_params(), network.count_params()
    if after < before:
        notes.append(f"channels: removed; {after:,} of {before:,} parameters remain")
    else:
        network = model
    periodic = {x for x in graph.leaf_layers(network) if isinstance(x, PeriodicConv2D)}
    if periodic:
        network, small = _without_periodic(network, arithmetic, lowered, failures)
        notes.append(
            f"periodic: {len(small)} layers as small convolutions, {len(periodic - small)} with "
            "their dense kernels"
        )
    hidden = _hidden(model)
    if hidden:
        notes.append(
            "not rewritten, since it is inside a layer of another kind: " + ", ".join(hidden)
        )
    # Channels that were removed were zeros, too.
    if zeros >= WORTH_MENTION and (periodic or not notes or hidden):
        notes.append(f"unstructured: {zeros:.0%} of the kept weights are zero and stay")
    if failures and (periodic or hidden or zeros >= WORTH_MENTION):
        notes.append(f"not rewritten: {failures[0]}")
    if arithmetic == "int8":
        network = _attempt(as_convolutions, network, failures)
    return Route(network, notes or ["none"])


def _attempt(change, model, failures):
    """Returns `change(model)`, or `model` if it cannot be copied, and adds why to `failures`."""
    try:
        return change(model)
    except UsageError as error:
        failures.append(str(error))
        return model


def _without_periodic(model, arithmetic, lowered, failures):
    """Returns a model without periodic layers, and the set of those that are small convolutions."""
    small = set()

    def choose(layer, input_shape):
        form = best_form(layer, input_shape, arithmetic) if lowered else None
        if form is not None:
            small.add(layer)
        return form

    network = _attempt(lambda model: lower(model, choose), model, failures)
    return network, small if network is not model else set()


def _hidden(model):
    """Returns the names of sparse layers that no change of the graph reaches, as "outer/inner"."""
    names = []
    for outer in dict.fromkeys(graph.leaf_layers(model)):
        if isinstance(outer, PeriodicConv2D) and type(outer) is not PeriodicConv2D:
            names.append(f"{outer.name} ({type(outer).__name__})")
        for inner in graph.tracked_layers(outer):
            if isinstance(inner, PeriodicConv2D) or _zeros([inner]) >= WORTH_MENTION:
                names.append(f"{outer.name}/{inner.name} ({type(inner).__name__})")
    return names


def _zeros(layers):
    """Returns the share of zeros among the stored weights of the kernels of `layers`."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense, PeriodicConv2D)
    found = {layer for layer in layers if isinstance(layer, kinds) and layer.built}
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in found]
    sizes = sum(kernel.size for kernel in kernels)
    return 1 - sum(np.count_nonzero(kernel) for kernel in kernels) / sizes if sizes else 0.0
