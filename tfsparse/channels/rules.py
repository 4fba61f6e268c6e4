"""How each layer and operation passes the channels of its inputs on: a rule for each class.

A rule is a function from the `Trace`, an operation, the `Tensor`s among its arguments and its other
arguments to the channels of its output; None stands for "not followed".
"""

import functools
import math

import keras
import numpy as np

from tfsparse.layers import PeriodicConv2D

FILTERS = (keras.layers.Conv2D, keras.layers.Dense, PeriodicConv2D)  # they make new channels


def _named(module, names):
    return [getattr(module, name) for name in names.split()]


# Activations that take each number by itself.
_ACTIVATIONS = _named(
    keras.activations,
    "elu exponential gelu hard_sigmoid hard_silu leaky_relu linear mish relu relu6 selu sigmoid "
    "silu softplus softsign tanh",
)


def find(operation):
    """Returns the rule of an operation, or None if it is not followed."""
    if not _is_plain(operation):
        return None
    kind = type(operation)
    if kind in _RULES:
        return _RULES[kind]
    is_operator = kind.__module__.startswith("keras.src.ops.")
    return _OPERATOR_RULES.get(kind.__name__) if is_operator else None


def is_elementwise(operation):
    """Whether an operation has no activation that mixes channels, such as softmax."""
    return getattr(operation, "activation", None) in (None, *_ACTIVATIONS)


def _is_plain(operation):
    """Whether no argument of an operation makes the rule of its class invalid."""
    return (
        getattr(operation, "data_format", "channels_last") == "channels_last"
        and getattr(operation, "groups", 1) == 1
        and getattr(operation, "noise_shape", None) is None
        and not getattr(operation, "lora_enabled", False)
        and getattr(operation, "quantization_mode", None) is None
    )


def _is_last(axis, tensor):
    return axis in (-1, tensor.rank - 1)


def _pass(trace, operation, tensors, others):
    return tensors[0].channels if is_elementwise(operation) and len(tensors) == 1 else None


def _normalize(trace, operation, tensors, others):
    followed = _is_last(operation.axis, tensors[0]) and len(tensors) == 1
    return tensors[0].channels if followed else None


def _flatten(trace, operation, tensors, others):
    _, *positions, _ = tensors[0].spec.shape
    return None if None in positions else np.tile(tensors[0].channels, math.prod(positions))


def _convolve_depthwise(trace, operation, tensors, others):
    repeated = np.repeat(tensors[0].channels, operation.depth_multiplier)
    return repeated if is_elementwise(operation) else None


def _filter(trace, operation, tensors, others):
    if isinstance(operation.activation, keras.layers.Layer):
        return None  # it may have weights
    is_dense = isinstance(operation, keras.layers.Dense)
    outputs = trace.new(operation.units if is_dense else operation.filters)
    if not is_elementwise(operation):
        trace.read.append(outputs)
    return outputs


def _merge(trace, operation, tensors, others):
    """Element-wise: channel c of the output comes from channel c of all tensors."""
    first, *rest = tensors
    shapes = {(tensor.rank, len(tensor.channels)) for tensor in tensors}
    if len(shapes) > 1 or not all(isinstance(other, (int, float)) for other in others):
        return None  # something is broadcast along the channels
    for tensor in rest:
        trace.unite(first.channels, tensor.channels)
    return first.channels


def _concatenate(trace, operation, tensors, others):
    if _is_last(operation.axis, tensors[0]):
        return np.concatenate([tensor.channels for tensor in tensors])
    return _merge(trace, operation, tensors, [])


def _slice(trace, operation, tensors, others):
    # `others` is the key: `keras.tree.flatten` took it apart.
    if len(tensors) > 1 or not all(item is Ellipsis or isinstance(item, slice) for item in others):
        return None
    key = others if Ellipsis in others else [*others, Ellipsis]
    gap = key.index(Ellipsis)
    axes = [slice(None)] * (tensors[0].rank - len(key) + 1)
    key = (*key[:gap], *axes, *key[gap + 1 :])
    if key[-1].step not in (None, 1):
        return None
    trace.cuts[operation] = (functools.partial(_slice_again, key), tensors[0].channels)
    return tensors[0].channels[key[-1]]


def _slice_again(key, kept):
    start, stop, _ = key[-1].indices(len(kept))
    key = (*key[:-1], slice(int(kept[:start].sum()), int(kept[:stop].sum())))
    return lambda tensor, _: tensor[key]


def _split(trace, operation, tensors, others):
    if not _is_last(operation.axis, tensors[0]):
        return None
    parts = np.split(tensors[0].channels, operation.indices_or_sections)
    if any(part.size == 0 for part in parts):
        return None
    ends = np.cumsum([len(part) for part in parts])
    trace.cuts[operation] = (functools.partial(_split_again, ends), tensors[0].channels)
    return parts


def _split_again(ends, kept):
    ends = [int(kept[:end].sum()) for end in ends]
    # Equal parts are split by their number: not every runtime has an operator for other splits.
    equal = len(set(np.diff([0, *ends]).tolist())) == 1
    parts = len(ends) if equal else ends[:-1]
    return lambda tensor: keras.ops.split(tensor, parts, axis=-1)


_RULES = {
    **dict.fromkeys(FILTERS, _filter),
    keras.layers.DepthwiseConv2D: _convolve_depthwise,
    keras.layers.BatchNormalization: _normalize,
    keras.layers.Flatten: _flatten,
    keras.layers.Concatenate: _concatenate,
    **dict.fromkeys(_named(keras.layers, "Add Average Maximum Minimum Multiply Subtract"), _merge),
    **dict.fromkeys(
        _named(
            keras.layers,
            "Activation AveragePooling2D Cropping2D Dropout ELU GaussianDropout GaussianNoise "
            "GlobalAveragePooling2D GlobalMaxPooling2D Identity LeakyReLU MaxPooling2D ReLU "
            "SpatialDropout2D UpSampling2D ZeroPadding2D",
        ),
        _pass,
    ),
}
# What `x + y`, `keras.ops.relu(x)` and `x[..., :8]` put into a model; the classes are not public.
_OPERATOR_RULES = {
    "Concatenate": _concatenate,
    "GetItem": _slice,
    "Split": _split,
    **dict.fromkeys(("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract"), _merge),
    **dict.fromkeys(("Gelu", "Relu", "Relu6", "Sigmoid", "Silu", "Tanh"), _pass),
}
