"""sparsify: a copy of a Keras model whose spatial convolutions are periodic."""

from collections.abc import Callable

import keras

from tfsparse import copying, patterns
from tfsparse.cost import CONVOLUTIONS
from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.patterns import Specification

_ALL_CONVOLUTIONS = (*CONVOLUTIONS, keras.layers.SeparableConv2D)


def sparsify(
    model: keras.Model,
    pattern: Specification,
    filter: Callable[[keras.layers.Layer], bool] | None = None,
) -> keras.Model:
    """Returns a copy of `model` whose spatial convolutions are `PeriodicConv2D` layers.

    It converts each `keras.layers.Conv2D` with a kernel larger than 1x1 and one group, in nested
    models too, except the network's first convolution, which reads the image: the one that comes
    first in `model.layers`, which Keras sorts from the inputs to the outputs. All other layers stay
    as they are, including 1x1, depthwise, grouped and transposed convolutions, those inside
    wrappers such as `TimeDistributed`, and subclasses of `Conv2D` that override how it is built or
    what it computes.

    Kept weights are carried over unchanged: nothing is rescaled, so a trained model needs further
    training. What `compile` set, such as the optimizer, and methods that a subclass adds are not
    carried over: the copy and the models nested in it are plain functional or `Sequential` models.
    `model` stays as it is and shares no variable with the copy.

    Args:
        model: built functional or `Sequential` Keras model.
        pattern: such as "PS4_P4"; see `tfsparse.patterns.parse`.
        filter: function from a layer that would be converted to whether it is; None converts all
            of them.

    Returns:
        keras.Model with the same inputs, outputs and layer names.

    Raises:
        UsageError: if the model is of another kind or not built; the pattern is unknown or does
            not fit the kernel of a layer; a layer to convert is dilated or has its channels first;
            a layer cannot be made again from its configuration; or there is none to convert.

    Examples:
        >>> model = keras.applications.ResNet50(weights=None)
        >>> sparse = tfsparse.sparsify(model, "PS4_P4")

    Reference: Kundu et al., arXiv 2001.10710 (IEEE Trans. Computers 2020).
    """
    pattern = patterns.parse(pattern)
    copying.check_model(model)
    chosen = _choose(model, pattern, filter)

    def make(operation):
        return _periodic(operation, pattern) if operation in chosen else copying.clone(operation)

    def weights(layer, new):
        arrays = layer.get_weights()
        if layer in chosen:
            arrays[0] = arrays[0].ravel()[new.kernel_positions]
        return arrays

    return copying.copy_model(model, make, weights)


def _choose(model, pattern, filter):
    """Returns the set of layers to convert."""
    convolutions = [layer for layer in leaf_layers(model) if isinstance(layer, _ALL_CONVOLUTIONS)]
    candidates = dict.fromkeys(layer for layer in convolutions if _is_spatial(layer))
    candidates.pop(next(iter(convolutions), None), None)
    chosen = {layer for layer in candidates if filter is None or filter(layer)}
    if not chosen:
        raise UsageError(
            f"Model {model.name} has no layer to convert: a Conv2D with a kernel larger than 1x1 "
            "and one group that is not the first convolution"
            + (" and that `filter` lets pass." if candidates else ".")
        )
    for layer in candidates:
        if layer in chosen:
            _check_layer(layer, pattern)
    return chosen


def _is_spatial(layer):
    """Whether `layer` computes what Conv2D does, with a kernel that a pattern can thin out."""
    return (
        isinstance(layer, keras.layers.Conv2D)
        and all(
            getattr(type(layer), name) is getattr(keras.layers.Conv2D, name)
            for name in ("build", "kernel", "convolution_op", "call")
        )
        and layer.kernel_size != (1, 1)
        and layer.groups == 1
    )


def _check_layer(layer, pattern):
    rest = "Leave it alone with `filter`."
    if layer.dilation_rate != (1, 1):
        raise UsageError(f"Layer {layer.name} is dilated by {layer.dilation_rate}. {rest}")
    if layer.data_format != "channels_last":
        raise UsageError(f"Layer {layer.name} has data format {layer.data_format}. {rest}")
    try:
        pattern.mask(layer.kernel_size, 1, 1)
    except UsageError as error:
        rows, columns = layer.kernel_size
        raise UsageError(
            f"Layer {layer.name} has a kernel of {rows}x{columns}: {error} Or leave it alone with "
            "`filter`."
        ) from error


def _periodic(layer, pattern):
    def make(_):
        config = keras.layers.Conv2D.get_config(layer)  # without what a subclass adds
        for name in ("data_format", "dilation_rate", "groups"):
            del config[name]
        return PeriodicConv2D.from_config({**config, "pattern": pattern})

    return copying.make_again(layer, make)
