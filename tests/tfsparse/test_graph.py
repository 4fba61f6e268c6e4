"""Graphs of Keras models, and copies of them with functions in place of layers."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.tfsparse.networks import outputs, randomize
from tfsparse import UsageError, copying, graph


def model():
    """shared -> nested (norm, shared) -> shared, and the sum of its first and last output."""
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    nested = keras.Sequential(
        [keras.Input((None, None, 3)), layers.BatchNormalization(name="norm"), shared],
        name="nested",
    )
    inputs = keras.Input((6, 5, 3), name="inputs")
    first = shared(inputs)
    total = layers.Add(name="sum")([first, shared(nested(first))])
    return keras.Model(inputs, {"first": first, "sum": total}, name="outer")


def test_run_sees_each_call_at_its_shape_and_keeps_the_structure():
    seen = []

    def spec(operation):
        def call(*args, **kwargs):
            if isinstance(operation, keras.Model):
                return graph.run(operation, spec, args)
            seen.append((operation.name, keras.tree.flatten(args)[0].shape[1:3]))
            return operation.compute_output_spec(*args, **kwargs)

        return call

    found = graph.run(model(), spec)
    names = ["shared", "norm", "shared", "shared", "sum"]
    assert seen == [(name, (6, 5)) for name in names]
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "first": (None, 6, 5, 3),
        "sum": (None, 6, 5, 3),
    }


def test_run_computes_what_the_model_does():
    network = randomize(model())
    images = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
    found = graph.run(network, lambda operation: operation, images)
    for name, expected in network(images).items():
        np.testing.assert_array_equal(found[name], expected)


def test_calls_and_readers_include_those_in_nested_models():
    network = model()
    names = [call.operation.name for call in graph.calls(network)]
    assert sorted(name for name in names if "input" not in name) == sorted(
        ["shared", "nested", "norm", "shared", "shared", "sum"]
    )
    readers = graph.readers(network)
    first = network.output["first"]
    assert graph.producer(first) is network.get_layer("shared")
    assert {call and call.operation.name for call in readers[id(first)]} == {"nested", "sum", None}
    (inside,) = network.get_layer("nested").outputs
    assert readers[id(inside)] == [None]


class Own(keras.Model):
    def call(self, inputs):
        return inputs


class OwnFunctional(keras.Model):
    call = Own.call


class WithMethod(keras.Model):
    def train_step(self, data):
        return {}


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (model, True),
        (lambda: keras.Sequential([layers.Dense(2)]), True),
        (lambda: WithMethod(x := keras.Input((3,)), layers.ReLU()(x)), True),
        (lambda: OwnFunctional(x := keras.Input((3,)), layers.ReLU()(x)), False),
        (Own, False),
        (lambda: type("OwnSequential", (keras.Sequential,), {"call": Own.call})(), False),
        (lambda: layers.Dense(2), False),
        (lambda: "model.keras", False),
    ],
)
def test_is_plain(make, plain):
    assert graph.is_plain(make()) is plain


@pytest.mark.parametrize("make", [Own, lambda: keras.Sequential([layers.Dense(2)])])
def test_what_has_no_graph_is_named(make):
    unbuilt = make()
    with pytest.raises(UsageError, match=f"Received: {unbuilt.name}, a {type(unbuilt).__name__}"):
        graph.run(unbuilt, lambda operation: operation)


def test_layers_are_copied_to_functions_in_nested_sequential_models_too():
    network = randomize(model())
    factors = []

    def make(operation):
        if operation.name == "norm":
            factors.append(3.0)
            return lambda x, **_: 3.0 * layers.BatchNormalization(name="norm")(x)
        return copying.clone(operation)

    copy = copying.copy_model(network, make)
    assert factors == [3.0]
    assert not isinstance(copy.get_layer("nested"), keras.Sequential)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in network.layers]
    norm = network.get_layer("nested").get_layer("norm")
    size = norm.gamma.shape[0]
    norm.set_weights([3 * np.ones(size), np.zeros(size), np.zeros(size), np.ones(size)])
    for ours, theirs in zip(outputs(copy), outputs(network), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_new_layers_have_names_that_the_model_does_not():
    keras.utils.clear_session()
    inputs = keras.Input((4,))
    x = layers.Dense(4)(layers.Dense(4)(inputs))
    x = layers.Dense(4, name="dense_987654321")(layers.Dense(4, name="dense_3")(x))
    network = keras.Model(inputs, x)
    keras.utils.clear_session()

    def make(operation):
        if operation.name.startswith("dense"):
            return lambda x: layers.Dense(4)(operation(x))
        return operation

    names = [layer.name for layer in copying.copy_model(network, make).layers[1:]]
    assert len(set(names)) == 8
    assert {"dense", "dense_1", "dense_3", "dense_987654321"} < set(names)


def test_copies_are_equal_and_share_no_variable():
    network = randomize(model())
    network.get_layer("nested").trainable = False
    network.compile("sgd")
    copy = copying.copy_model(network, copying.clone)
    assert isinstance(copy.get_layer("nested"), keras.Sequential)
    assert not copy.compiled
    assert not copy.get_layer("nested").trainable
    assert not {id(x) for x in copy.variables} & {id(x) for x in network.variables}
    for ours, theirs in zip(outputs(copy), outputs(network), strict=True):
        np.testing.assert_array_equal(ours, theirs)
