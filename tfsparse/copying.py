"""Copies of functional and Sequential models, layer by layer, with some layers replaced."""

import keras

from tfsparse import graph
from tfsparse.errors import UsageError

_MOST_NAMES = 10_000  # higher numbers are not reached by the names that Keras gives


def check_model(model):
    """Raises a `UsageError` unless `model` and all models in it can be copied layer by layer."""
    if not graph.is_plain(model):
        raise UsageError(
            "Only functional and Sequential Keras models without a `call` of their own can be "
            "copied layer by layer. Received: "
            f"{getattr(model, 'name', model)!r} of class {type(model).__name__}"
        )
    if getattr(model, "inputs", None) is None:
        raise UsageError(
            f"Model {model.name} is not built. Let it start with keras.Input, or call "
            "model.build(input_shape)."
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            check_model(layer)


def copy_model(model, make, weights=lambda original, new: original.get_weights()):
    """Returns an uncompiled copy of `model` with variables of its own.

    A `Sequential` model, also a nested one, stays `Sequential` if all its layers are replaced with
    layers; it becomes functional if one is replaced with a function.

    Args:
        model: built functional or `Sequential` Keras model.
        make: function from a layer or operation of `model`, or of a model nested in it, to what is
            called in its place; invoked once for each. That is another layer or operation (`clone`
            makes an equal one), or a function of its inputs that applies layers. Such layers have
            their weights already: `weights` is not asked for them.
        weights: function from a layer and the layer in its place, built, to the list of arrays that
            the latter gets as its weights.

    Raises:
        UsageError: if the model is of another kind or not built, or a layer cannot take its
            weights.
    """
    check_model(model)
    _reserve_names(model)
    copies = {}

    def copy(operation):
        # What is called twice is copied once.
        if operation not in copies:
            is_model = isinstance(operation, keras.Model)
            copies[operation] = _copy_graph(operation, copy) if is_model else make(operation)
        return copies[operation]

    copy(model)
    # Backwards, since a model comes after its layers and sets their flags too.
    for original, new in reversed(copies.items()):
        if isinstance(original, keras.layers.Layer) and isinstance(new, keras.layers.Layer):
            carry_over(original, new, weights)
    return copies[model]


def _reserve_names(model):
    """Makes Keras give new layers and operations names that none in `model` has.

    Keras counts from 0 in each process: in a model that was loaded, "conv2d" may be there already.
    """
    for call in graph.calls(model):
        prefix, _, number = call.operation.name.rpartition("_")
        if not number.isdecimal():
            prefix, number = call.operation.name, 0
        while int(number) < _MOST_NAMES and keras.backend.get_uid(prefix) <= int(number):
            pass


def clone(operation, dtype=None):
    """Returns a new layer or operation with the configuration of `operation`.

    Args:
        operation: a layer or operation.
        dtype: of the new one, if it is a Lambda; by default that of `operation`.

    Raises:
        UsageError: if it cannot be made again from its configuration.
    """
    if type(operation) is keras.layers.Lambda:
        # Its configuration holds the function's byte code, without the names that it refers to.
        return keras.layers.Lambda(
            operation.function,
            operation._output_shape,
            operation.mask,
            operation.arguments,
            name=operation.name,
            dtype=dtype or operation.dtype_policy,
            trainable=operation.trainable,
        )
    return make_again(operation, type(operation).from_config)


def make_again(operation, make):
    """Returns `make(config)` of the configuration of a layer or operation.

    Raises:
        UsageError: if that fails.
    """
    try:
        return make(operation.get_config())
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"Layer {operation.name} of class {type(operation).__name__} cannot be made again from "
            "its get_config(). The constructor needs to accept all that is in there, and functions "
            "and classes of your own need keras.saving.register_keras_serializable."
        ) from error


def _copy_graph(model, copy):
    """Returns a model of the same graph with `copy(operation)` in place of each operation."""
    inputs = keras.tree.map_structure(
        lambda tensor: copy(graph.producer(tensor)).output, graph.inputs_of(model)
    )
    if isinstance(model, keras.Sequential):
        layers = [copy(layer) for layer in model.layers]
        if all(isinstance(layer, keras.layers.Layer) for layer in layers):
            return keras.Sequential([graph.producer(inputs), *layers], name=model.name)
    return keras.Model(inputs, graph.run(model, copy, inputs), name=model.name)


def carry_over(original, new, weights):
    """Gives `new`, which is built, the trainable flag and the weights of the layer `original`.

    Args:
        original, new: Keras layers, or models, of which only the flag is carried over.
        weights: as for `copy_model`.

    Raises:
        UsageError: if it cannot take them.
    """
    if new.trainable != original.trainable:
        new.trainable = original.trainable
    if isinstance(original, keras.Model):
        return  # its layers have a turn of their own
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
