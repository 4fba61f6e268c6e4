"""Copies of functional and Sequential models, layer by layer, with some layers made anew."""

import keras

from tfsparse.errors import UsageError


def check_model(model):
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
            "Only functional and Sequential Keras models without a `call` of their own can be "
            "copied layer by layer. Received: "
            f"{getattr(model, 'name', model)!r} of class {type(model).__name__}"
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            check_model(layer)


def copy_model(model, make, weights, call=None):
    """Returns a copy of `model`, which has passed `check_model`, with variables of its own.

    Args:
        model: built functional or `Sequential` Keras model.
        make: function from a layer or operation of `model`, or of a model nested in it, to the one
            that takes its place; called once for each. `clone` makes an equal one.
        weights: function from a layer and the one in its place, built, to the list of arrays that
            the latter gets as its weights.
        call: function that is called with each new layer or operation of a functional model and
            the arguments of its call, and returns its outputs; None calls it.

    Raises:
        UsageError: where a layer cannot take its weights.
    """
    copies = {}

    def copy(operation):
        # What is called twice is copied once.
        if operation not in copies:
            is_model = isinstance(operation, keras.Model)
            copies[operation] = _copy_graph(operation, copy, call) if is_model else make(operation)
        return copies[operation]

    copy(model)
    # Backwards, since a model comes after its layers and sets their flags too.
    for original, new in reversed(copies.items()):
        if isinstance(original, keras.layers.Layer):
            carry_over(original, new, weights)
    return copies[model]


def clone(operation):
    """Returns a new layer or operation with the configuration of `operation`.

    Raises:
        UsageError: where it cannot be made again from its configuration.
    """
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
    return make_again(operation, type(operation).from_config)


def make_again(operation, make):
    """Returns `make(config)` of the configuration of a layer or operation.

    Raises:
        UsageError: where that fails.
    """
    try:
        return make(operation.get_config())
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"Layer {operation.name} of class {type(operation).__name__} cannot be made again from "
            "its get_config(). The constructor needs to accept all that is in there, and functions "
            "and classes of your own need keras.saving.register_keras_serializable."
        ) from error


def _copy_graph(model, copy, call):
    def copy_input(tensor):
        return copy(tensor._keras_history.operation)

    if isinstance(model, keras.Sequential):
        layers = [copy_input(model.inputs[0]), *map(copy, model.layers)]
        return keras.Sequential(layers, name=model.name)
    # `clone_model` compiles the clone of a compiled model; a new model of the same graph is not.
    graph = keras.Model(model.input, model.output, name=model.name)
    inputs = keras.tree.map_structure(lambda tensor: copy_input(tensor).output, model.input)
    return keras.models.clone_model(graph, inputs, clone_function=copy, call_function=call)


def carry_over(original, new, weights=lambda original, new: original.get_weights()):
    """Gives `new`, which is built, the trainable flag and the weights of the layer `original`.

    Args:
        original, new: Keras layers, or models, whose layers have a turn of their own.
        weights: function of both that returns the list of arrays that `new` gets.

    Raises:
        UsageError: where it cannot take them.
    """
    if new.trainable != original.trainable:
        new.trainable = original.trainable
    if isinstance(original, keras.Model):
        return
    arrays = weights(original, new)
    try:
        new.set_weights(arrays)
    except ValueError as error:
        raise UsageError(
            f"Layer {original.name} has weights that a copy of it lacks, as after enable_lora(). "
            "Merge them into its kernel first."
        ) from error
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()  # it computes with what it derives from its weights
