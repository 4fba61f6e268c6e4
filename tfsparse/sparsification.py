"""sparsify: a copy of a Keras model whose spatial convolutions are periodic."""

import keras

from tfsparse import patterns
from tfsparse.cost import CONVOLUTIONS
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D, leaf_layers

_ALL_CONVOLUTIONS = (
    *CONVOLUTIONS,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
)
# What `PeriodicConv2D` has in common with `keras.layers.Conv2D`.
_SHARED_ARGUMENTS = (
    "name",
    "trainable",
    "dtype",
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "activation",
    "use_bias",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


def sparsify(model, pattern, filter=None):
    """Returns a copy of `model` whose spatial convolutions are `PeriodicConv2D` layers.

    Converted is each `keras.layers.Conv2D` with a kernel larger than 1x1 and one group, in nested
    models too, but for the first convolution of the network, which reads the image. All other
    layers stay as they are, among them 1x1, depthwise, grouped and transposed convolutions, those
    inside wrappers such as `TimeDistributed`, and subclasses of `Conv2D` that compute otherwise.
    The first convolution is the one that stands first in `model.layers`, which Keras sorts from
    the inputs to the outputs.

    Weights are carried over where they are kept, as they are: nothing is rescaled, so a trained
    model needs further training. Not carried over: the optimizer and whatever else `compile` set,
    and methods that a subclass adds, since the copy and the models nested in it are plain
    functional or `Sequential` models. `model` stays as it is and shares no variable with the copy.

    Args:
        model: built functional or `Sequential` Keras model.
        pattern: such as "PS4_P4"; see `tfsparse.patterns.parse`.
        filter: function that is called with each layer that would be converted and returns whether
            it is; None converts all of them.

    Returns:
        keras.Model with the same inputs, outputs and layer names.

    Raises:
        UsageError: where the model is of another kind or not built; the pattern is unknown or does
            not fit the kernel of a layer; a layer to convert is dilated or has its channels first;
            a layer cannot be made again from its configuration; or there is none to convert.

    Example:
        >>> model = keras.applications.ResNet50(weights=None)
        >>> sparse = tfsparse.sparsify(model, "PS4_P4")

    Reference: Kundu et al., arXiv 2001.10710 (IEEE Trans. Computers 2020).
    """
    pattern = patterns.parse(pattern)
    _check_model(model)
    chosen = _choose(model, pattern, filter)
    copies = {}

    def copy(operation):
        # What is called twice is copied once.
        if operation not in copies:
            if isinstance(operation, keras.Model):
                copies[operation] = _copy_model(operation, copy)
            elif operation in chosen:
                copies[operation] = _periodic(operation, pattern)
            else:
                copies[operation] = _clone(operation)
        return copies[operation]

    copy(model)
    # Backwards, since a model comes after its layers and sets their flags too.
    for original, new in reversed(copies.items()):
        if isinstance(original, keras.layers.Layer):
            _carry_over(original, new)
    return copies[model]


def _check_model(model):
    """Raises a `UsageError` unless `model` and all models in it can be copied layer by layer."""
    if isinstance(model, keras.Sequential):
        if getattr(model, "inputs", None) is None:
            raise UsageError(
                f"Model {model.name} is not built. Let it start with keras.Input, or call "
                "model.build(input_shape)."
            )
        plain = keras.Sequential
    elif isinstance(model, keras.Model) and isinstance(model, keras.Function):
        plain = type(keras.Model(model.input, model.output))  # Keras has no public name for it
    else:
        plain = None
    if plain is None or type(model).call is not plain.call:
        raise UsageError(
            "Only functional and Sequential Keras models without a `call` of their own can be made "
            f"periodic. Received: {getattr(model, 'name', model)!r} of class {type(model).__name__}"
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _check_model(layer)


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


def _copy_model(model, copy):
    def copy_input(tensor):
        return copy(tensor._keras_history.operation)

    if isinstance(model, keras.Sequential):
        layers = [copy_input(model.inputs[0]), *map(copy, model.layers)]
        return keras.Sequential(layers, name=model.name)
    # `clone_model` compiles the clone of a compiled model; a new model of the same graph is not.
    graph = keras.Model(model.input, model.output, name=model.name)
    inputs = keras.tree.map_structure(lambda tensor: copy_input(tensor).output, model.input)
    return keras.models.clone_model(graph, inputs, clone_function=copy)


def _periodic(layer, pattern):
    def make(config):
        shared = {name: config[name] for name in _SHARED_ARGUMENTS}
        return PeriodicConv2D.from_config({**shared, "pattern": pattern.config})

    return _make_again(layer, make)


def _clone(operation):
    if type(operation) is keras.layers.Lambda:
        # Its configuration holds the function's byte code, without the names that it refers to.
        return keras.layers.Lambda(
            operation.function,
            operation._output_shape,
            operation.mask,
            operation.arguments,
            name=operation.name,
            dtype=operation.dtype_policy,
            trainable=operation.trainable,
        )
    return _make_again(operation, type(operation).from_config)


def _make_again(operation, make):
    """Returns `make(config)` of the configuration of a layer or operation."""
    try:
        return make(operation.get_config())
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"Layer {operation.name} of class {type(operation).__name__} cannot be made again from "
            "its get_config(). The constructor needs to accept all that is in there, and functions "
            "and classes of your own need keras.saving.register_keras_serializable."
        ) from error


def _carry_over(original, new):
    """Gives `new` the trainable flag and the weights of the layer or model `original`."""
    if new.trainable != original.trainable:
        new.trainable = original.trainable
    if isinstance(original, keras.Model):
        return  # its layers have a turn of their own
    weights = original.get_weights()
    if isinstance(new, PeriodicConv2D) and not isinstance(original, PeriodicConv2D):
        new.assign_dense_kernel(weights[0])
        weights[0] = new.get_weights()[0]
    try:
        new.set_weights(weights)
    except ValueError as error:
        raise UsageError(
            f"Layer {original.name} has weights that a copy of it lacks, as after enable_lora(). "
            "Merge them into its kernel first."
        ) from error
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()  # it computes with what it derives from its weights
