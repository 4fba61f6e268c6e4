"""Which layers of a model are pruned: found anywhere in it, and chosen by the policy alone."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import UsageError
from tfsparse._tfmot import PrunableLayer, PruningPolicy
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import ConvolutionPolicy, DNRSchedule, Pruner, UpdatePruningStep


class Residual(layers.Layer):
    """A residual block as a layer of its own."""

    def __init__(self, filters, **arguments):
        super().__init__(**arguments)
        self.first = layers.Conv2D(filters, 3, padding="same", name="first")
        self.norm = layers.BatchNormalization()
        self.second = PeriodicConv2D(filters, 3, "PS4_P4", padding="same", name="second")
        self.shortcut = layers.Conv2D(filters, 1, name="shortcut")
        self.unused = layers.Conv2D(filters, 1)

    def build(self, shape):
        inner = (*shape[:-1], self.first.filters)
        for layer, each in (
            (self.first, shape),
            (self.norm, inner),
            (self.second, inner),
            (self.shortcut, shape),
        ):
            layer.build(each)

    def call(self, x, training=False):
        y = keras.activations.relu(self.norm(self.first(x), training=training))
        return self.second(y) + self.shortcut(x)


def of(*chain, shape=(8, 8, 3)):
    inputs = x = keras.Input(shape)
    for layer in chain:
        x = layer(x)
    return keras.Model(inputs, x)


def pruned(model, structure="unstructured", policy=None):
    return Pruner(model, DNRSchedule(0.5, 9, 3), policy, structure).layer_names


def test_convolutions_inside_layers_and_wrappers_are_found():
    model = of(
        layers.Conv2D(8, 3, name="stem"),
        Residual(8, name="a"),
        Residual(8, name="b"),
        layers.Reshape((2, 3, 6, 8)),
        layers.TimeDistributed(layers.Conv2D(4, 3, name="inside"), name="wrapper"),
        layers.Flatten(),
        layers.Dense(10),
    )
    names = ["first", "second", "shortcut"]
    expected = ["stem", *(f"{block}/{name}" for block in "ab" for name in names), "inside"]
    assert [name.removeprefix(f"{model.name}/") for name in pruned(model)] == expected


def test_residual_blocks_as_layers_are_as_sparse_as_is_said(fashion_mnist):
    images, labels = fashion_mnist
    keras.utils.set_random_seed(0)
    model = of(
        layers.Conv2D(8, 3, 3, name="stem"),
        Residual(8),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10),
        shape=(28, 28, 1),
    )
    pruner = Pruner(model, DNRSchedule(0.75, 5, 2))
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(images[:64], labels[:64], 32, 3, verbose=0, callbacks=[UpdatePruningStep(pruner)])
    pruner.detach()
    kernels = [to_numpy(v) for v in model.trainable_variables if v.name == "kernel"][:-1]
    assert len(kernels) == 4
    nonzero, total = sum(map(np.count_nonzero, kernels)), sum(kernel.size for kernel in kernels)
    assert nonzero / total == pytest.approx(0.25, abs=0.03)
    assert pruner.density == pytest.approx(0.25, abs=1e-3)


class Everything(PruningPolicy):
    """Allows all layers with a kernel of the given kinds."""

    def __init__(self, *kinds):
        self.kinds = kinds

    def allow_pruning(self, layer):
        return isinstance(layer, self.kinds)

    def ensure_model_supports_pruning(self, model):
        pass


def test_by_channel_a_frozen_stem_leaves_no_second_layer_out():
    model = of(layers.Conv2D(8, 3, name="a"), layers.Conv2D(8, 3, name="b"))
    model.get_layer("a").trainable = False
    assert pruned(model, "channel") == ["b"]


def test_by_channel_each_layer_that_reads_an_input_is_left_out():
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="left")(layers.Rescaling(2.0)(left))
    padded = keras.ops.pad(right, [(0, 0), (1, 1), (1, 1), (0, 0)])
    y = layers.Conv2D(4, 3, name="right")(layers.BatchNormalization()(padded))
    y = layers.Conv2D(4, 3, name="second")(y)
    both = layers.Concatenate()([left, right])
    z = layers.Conv2D(4, 3, name="both")(both)
    z = layers.Conv2D(4, 1, name="last")(layers.Add()([x, y, z]))
    assert pruned(keras.Model([left, right], z), "channel") == ["second", "last"]


def test_by_channel_in_nested_models():
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(3, 1, name="reads"),
            layers.Conv2D(3, 1, name="follows"),
        ]
    )
    model = of(layers.ZeroPadding2D(0), inner, layers.Conv2D(4, 1, name="outside"))
    assert pruned(model, "channel") == ["follows", "outside"]
    model = of(layers.Conv2D(3, 1, name="before"), keras.models.clone_model(inner))
    assert pruned(model, "channel") == ["reads", "follows"]


def test_by_channel_inside_a_layer_that_reads_the_image():
    model = of(Residual(8, name="a"), Residual(8, name="b"))
    names = [name.removeprefix(f"{model.name}/") for name in pruned(model, "channel")]
    assert names == ["a/second", "first", "b/second", "shortcut"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = layers.Conv2D(4, 3, name="a"), layers.Conv2D(4, 3, name="b")

    def call(self, x):
        return self.b(self.a(x))


def test_by_channel_in_a_subclassed_model():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3)))
    assert pruned(model, "channel") == ["b"]


@pytest.mark.parametrize(
    ("kind", "shape", "chain"),
    [
        (layers.Dense, (6,), [layers.Dense(8, name=name) for name in "abc"]),
        (layers.Dense, (2, 3), [layers.Flatten(), *(layers.Dense(8, name=n) for n in "abc")]),
        (layers.Conv1D, (16, 2), [layers.Conv1D(8, 3, name=name) for name in "abc"]),
        (
            layers.Conv2DTranspose,
            (4, 4, 2),
            [
                layers.Conv2DTranspose(count, 3, name=n)
                for n, count in zip("abc", (6, 8, 4), strict=True)
            ],
        ),
    ],
)
def test_by_channel_under_a_policy_of_ones_own(kind, shape, chain):
    """A channel that is pruned no longer matters: the layers' own outputs are the oracle."""
    model = of(*chain, shape=shape)
    pruner = Pruner(model, DNRSchedule(0.5, 9, 3), Everything(kind), "channel")
    assert pruner.layer_names == ["b", "c"]
    layer = model.get_layer("b")
    outputs = []
    for seed in (0, 1):
        x = np.random.default_rng(0).normal(size=(1, *layer.input.shape[1:])).astype("float32")
        noise = np.random.default_rng(seed).normal(size=x.shape[-1])
        transposed = isinstance(layer, layers.Conv2DTranspose)
        kernel = np.moveaxis(pruner.masks[0].numpy(), -1 if transposed else -2, 0)
        active = kernel.reshape(len(kernel), -1).any(1)
        assert active.sum() == len(active) // 2
        outputs.append(to_numpy(layer(np.where(active, x, noise).astype("float32"))))
    np.testing.assert_allclose(*outputs, atol=1e-6)


class Scale(layers.Layer, PrunableLayer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x * self.scale

    def get_prunable_weights(self):
        return [self.scale]


def test_what_cannot_be_pruned_is_said_in_a_line():
    with pytest.raises(UsageError, match=r"'scale' has .* of shape \(4,\), without channels"):
        pruned(of(layers.Conv2D(4, 3), Scale(name="scale")), "channel")
    assert pruned(of(layers.Conv2D(4, 3, name="conv"), Scale(name="scale"))) == ["conv", "scale"]
    with pytest.raises(UsageError, match=r"'norm' has no kernel .* Leave it out of Everything"):
        pruned(of(layers.BatchNormalization(name="norm")), policy=Everything(layers.Layer))
    with pytest.raises(UsageError, match=r"no layer that can be pruned.*Received: policy=Convol"):
        pruned(of(layers.Dense(4)), policy=ConvolutionPolicy())
    with pytest.raises(UsageError, match="reads no input of the model"):
        pruned(of(layers.Conv2D(4, 3)), "channel")
