"""Which weights of a file were kept, by the pattern that its metadata name.

Zeros alone do not tell: rounding to int8 adds some, which would hide the period. A weight of 0 that
a pattern keeps can still be skipped, since that is exact; each kernel decides by what it costs.
"""

import dataclasses

from tflite.codegen.packing import Convolution
from tfsparse import patterns
from tfsparse.errors import UsageError


def with_supports(network, facts):
    """Sets `kept` of the periodic convolutions of a `Network`.

    A convolution is periodic if it has no weight outside the supports of one of the patterns.

    Args:
        network: the `tflite.codegen.network.Network`, which is changed.
        facts: the metadata of its file, a dict; see tflite/file_metadata.py.

    Raises:
        UsageError: if the metadata name something that is no pattern.
    """
    named = facts.get("pattern") or []
    found = [patterns.parse(each) for each in (named if isinstance(named, list) else [named])]
    for layer in network.layers:
        made = layer.operation
        if isinstance(made, Convolution) and not made.depthwise and made.kept is None:
            masks = (_mask(pattern, made.weights) for pattern in found)
            fitting = (each for each in masks if each is not None and not made.weights[~each].any())
            kept = next(fitting, None)
            layer.operation = dataclasses.replace(made, kept=kept)


def _mask(pattern, weights):
    """Returns the weights [filters, height, width, channels] that a pattern keeps, or None."""
    filters, height, width, channels = weights.shape
    try:
        return pattern.mask((height, width), channels, filters).transpose(3, 0, 1, 2)
    except UsageError:  # it does not fit such kernels
        return None
