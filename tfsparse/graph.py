"""The graphs of Keras models: the one module that uses Keras' private graph attributes."""

import collections
import functools
from typing import NamedTuple

import keras

from tfsparse.errors import UsageError


class Call(NamedTuple):
    """One call of a layer or operation: a node of the graph."""

    operation: object
    inputs: list  # of KerasTensors
    outputs: list
    others: list  # of its arguments besides tensors, without None: constants, flags, ...


def leaf_layers(model):
    """Yields the layers of `model` in order, including those of models nested in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def is_plain(model):
    """Whether `model` is a functional or `Sequential` model without a `call` of its own."""
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call
    is_functional = isinstance(model, keras.Model) and isinstance(model, keras.Function)
    return is_functional and type(model).call is _functional().call


def inputs_of(model):
    """Returns the input tensors of a built functional or `Sequential` model, in their structure."""
    # For the `input` of a Sequential model, Keras gives what it is called with in another model.
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def run(model, function, inputs=None):
    """Computes the outputs of a model with a function in place of each operation.

    Unlike `layer.output`, this sees every call of a layer that is called several times, and the
    shapes with which a nested model is called.

    Args:
        model: built functional or `Sequential` Keras model.
        function: takes an operation (a layer, a nested model, ...) and returns what is called in
            its place, with the arguments of the call; invoked for each call, in graph order.
        inputs: what takes the place of the model's input tensors, in their structure or as a list;
            by default these tensors themselves.

    Returns:
        What takes the place of the model's outputs, in their structure.

    Raises:
        UsageError: if the model is of another kind, or not built.
    """
    graph = _graph(model)
    return graph._run_through_graph(graph.inputs if inputs is None else inputs, function)


def calls(model):
    """Returns the `Call`s in a built model, also of and in the models nested in it."""
    _graph(model)  # which raises an error if this is none
    graphs = [_graph(each) for each in _models(model)]
    nodes = (node for each in graphs for level in each._nodes_by_depth.values() for node in level)
    return [Call(node.operation, node.input_tensors, node.outputs, _others(node)) for node in nodes]


def readers(model):
    """Returns {id of a tensor: list of the `Call`s that read it}, for the same tensors.

    An output of a model is also read by the model's caller, for which there is None.
    """
    found = collections.defaultdict(list)
    for call in calls(model):
        for tensor in call.inputs:
            found[id(tensor)].append(call)
    for tensor in (tensor for each in _models(model) for tensor in each.outputs):
        found[id(tensor)].append(None)
    return found


def tracked_layers(model):
    """Yields all layers in a model or layer that Keras tracks, at any depth, each once."""
    yield from model._flatten_layers(include_self=False)


def producer(tensor):
    """Returns the layer or operation of which a KerasTensor is an output."""
    return tensor._keras_history.operation


def _others(node):
    leaves = keras.tree.flatten([node.arguments.args, node.arguments.kwargs])
    return [leaf for leaf in leaves if not isinstance(leaf, keras.KerasTensor) and leaf is not None]


def _models(model):
    """Returns the set of `model` and the models nested in it."""
    nested = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return {model}.union(*map(_models, nested))


@functools.cache
def _functional():
    """Returns the class of functional models, for which Keras has no public name."""
    inputs = keras.Input(())
    return type(keras.Model(inputs, keras.layers.Identity()(inputs)))


def _graph(model):
    """Returns the functional graph of a model; a `Sequential` one has it inside."""
    graph = getattr(model, "_functional", model)
    if not hasattr(graph, "_run_through_graph"):
        name = getattr(model, "name", repr(model))
        raise UsageError(
            "Only a built functional or Sequential model can be followed layer by layer. Received: "
            f"{name}, a {type(model).__name__}. Build it from a keras.Input."
        )
    return graph
