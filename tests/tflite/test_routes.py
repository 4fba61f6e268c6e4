"""Each form of sparsity takes its route, and the network computes what the model does."""

import keras
import numpy as np
import pytest

import zoo
from tflite.routes import find_route
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import DNRSchedule, Pruner


def model(pattern=None, width=8):
    keras.utils.set_random_seed(0)
    model = zoo.build("resnet8", (16, 16, 3), 10, width, pattern)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.linspace(0.5, 2, layer.moving_variance.shape[0]))
    return model


def pruned(**structure):
    network = model()
    Pruner(network, DNRSchedule(0.5, end_step=9, frequency=1), **structure).detach()
    return network


def assert_same(network, model):
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    outputs = [np.concatenate([each(image[None]) for image in images]) for each in (network, model)]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5 * np.abs(outputs[1]).max())


def test_dense():
    original = model()
    network, notes = find_route(original)
    assert notes == ["none"]
    assert network.count_params() == original.count_params()
    assert_same(network, original)


def test_channels_are_removed():
    original = pruned(structure="channel")
    network, notes = find_route(original)
    before, after = original.count_params(), network.count_params()
    assert after < 0.75 * before
    assert notes[0] == f"channels: removed; {after:,} of {before:,} parameters remain"
    assert_same(network, original)


def test_unstructured_zeros_stay():
    original = pruned()
    network, notes = find_route(original)
    assert network.count_params() == original.count_params()
    (note,) = notes
    # Half of the convolutions' weights; those of the classifier are all there.
    assert note == "unstructured: 49% of the kept weights are zero and stay"


@pytest.mark.parametrize("lowered", [True, False])
def test_periodic(lowered):
    original = model("PS4_P4_F1", width=64)
    network, notes = find_route(original, lowered=lowered)
    layers = sum(isinstance(layer, PeriodicConv2D) for layer in original.layers)
    assert not any(isinstance(layer, PeriodicConv2D) for layer in network.layers)
    small = layers if lowered else 0
    assert notes == [
        f"periodic: {small} layers as small convolutions, {layers - small} with their dense kernels"
    ]
    assert (network.count_params() < 1.2 * original.count_params()) == lowered
    assert_same(network, original)


def test_what_is_periodic_and_pruned_is_both():
    original = model("PS4_P4", width=16)
    Pruner(original, DNRSchedule(0.7, end_step=9, frequency=1)).detach()
    _, notes = find_route(original)
    assert notes[0].startswith("periodic: ")
    assert notes[1].startswith(("unstructured: 69%", "unstructured: 70%"))


class Doubled(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize("arithmetic", ["float", "int8"])
def test_a_model_that_cannot_be_copied_is_converted_as_it_is(arithmetic):
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Flatten()(PeriodicConv2D(64, 3, "PS1_P9_F1")(inputs))
    original = Doubled(inputs, outputs)
    network, notes = find_route(original, arithmetic)
    assert network is original
    first, second = notes
    assert first == "periodic: 0 layers as small convolutions, 1 with their dense kernels"
    assert second.startswith("not rewritten: Only functional and Sequential")


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """A residual block as a layer of one's own."""

    def __init__(self, kind=keras.layers.Conv2D, **arguments):
        super().__init__(**arguments)
        self.kind = kind
        self.convolution = kind(64, 3, padding="same", name="convolution")

    def build(self, shape):
        self.convolution.build(shape)

    def call(self, inputs):
        return inputs + self.convolution(inputs)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


class OwnPeriodic(PeriodicConv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


def with_blocks():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = PeriodicConv2D(64, 3, "PS1_P9_F1", padding="same")(inputs)
    x = Block(PeriodicConv2D, name="periodic")(Block(name="dense")(x))
    x = Block(name="zeros")(OwnPeriodic(64, 3, padding="same", name="own")(x))
    wrapped = keras.layers.TimeDistributed(PeriodicConv2D(8, 3, name="inner"), name="wrapper")
    x = wrapped(keras.layers.Reshape((1, 16, 16, 64))(x))
    logits = keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, logits)
    kernel = model.get_layer("zeros").convolution.kernel
    kernel.assign(np.where(np.arange(64) < 32, 0, keras.ops.convert_to_numpy(kernel)))
    return model


def test_sparse_layers_inside_others_are_named():
    original = with_blocks()
    network, notes = find_route(original)
    assert notes[0].startswith("periodic: ")
    assert notes[1] == (
        "not rewritten, since it is inside a layer of another kind: periodic/convolution "
        "(PeriodicConv2D), own (OwnPeriodic), zeros/convolution (Conv2D), wrapper/inner "
        "(PeriodicConv2D)"
    )
    assert notes[2].startswith("unstructured: ")
    assert len(notes) == 3
    assert_same(network, original)
