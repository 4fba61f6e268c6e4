"""sparsify against the original model with masked kernels."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

from tests.tfsparse.networks import outputs, randomize
from tfsparse import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.patterns import parse
from tfsparse.sparsification import sparsify

SUPPORTS = {"supports": [[[0, 0], [2, 2]], [[0, 2], [1, 1], [2, 0]]], "filter_phases": 1}


def graph():
    """Two images, two outputs; a nested, frozen model; a shared layer; all kinds of layers."""
    nested = keras.Sequential(
        [
            keras.Input((None, None, 8)),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="nested_conv"),
            layers.BatchNormalization(name="nested_norm"),
        ],
        name="nested",
    )
    nested.trainable = False
    shared = layers.Conv2D(8, (5, 3), padding="same", activation="relu", name="shared")
    stem = layers.Conv2D(8, 3, padding="same", name="stem")
    first, second = keras.Input((10, 9, 3), name="first"), keras.Input((10, 9, 3), name="second")
    x = shared(nested(stem(first), training=False))
    y = shared(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(stem(second)))
    x = layers.Concatenate()([x, layers.Conv2D(8, 1, name="pointwise")(y)])
    x = layers.Conv2D(8, 3, padding="same", groups=4, name="grouped")(keras.ops.tanh(x) + 1.0)
    x = layers.Add()([layers.Conv2D(8, 3, padding="same", name="residual", trainable=False)(x), x])
    x = layers.Conv2D(
        6,
        3,
        strides=2,
        name="regular",
        kernel_regularizer=keras.regularizers.L2(0.1),
        kernel_constraint=keras.constraints.MaxNorm(3),
        bias_initializer="ones",
        dtype=keras.DTypePolicy("mixed_bfloat16"),
    )(x)
    outputs = {"scores": layers.Dense(3, name="scores")(layers.Flatten()(x)), "map": y}
    return keras.Model({"first": first, "second": second}, outputs, name="graph")


def sequential():
    """A model whose shape was told by `build`, with a functional model in it."""
    inputs = keras.Input((8, 8, 6))
    nested = keras.Model(inputs, layers.Conv2D(5, 3, name="nested_conv")(inputs), name="nested")
    plain_subclass = type("OwnConv2D", (layers.Conv2D,), {"greeting": "hello"})
    model = keras.Sequential(
        [
            layers.Conv2D(6, 3, padding="same", name="stem"),
            nested,
            layers.BatchNormalization(),
            plain_subclass(7, 3, padding="same", name="subclass"),
            layers.GlobalAveragePooling2D(),
        ],
        name="sequential",
    )
    model.build((None, 8, 8, 3))
    return model


CONVERTED = {
    graph: {"nested_conv", "shared", "residual", "regular"},
    sequential: {"nested_conv", "subclass"},
}


def assert_equal_outputs(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert np.std(theirs) > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def periodic_names(model):
    return {layer.name for layer in leaf_layers(model) if isinstance(layer, PeriodicConv2D)}


def mask_kernels(model, pattern, names):
    """Sets the taps of the named layers to zero that `pattern` drops; returns their number."""
    dropped = 0
    for layer in leaf_layers(model):
        if layer.name in names:
            kernel = to_numpy(layer.kernel)
            mask = parse(pattern).mask(kernel.shape[:2], *kernel.shape[2:])
            layer.kernel.assign(kernel * mask)
            dropped += np.sum(~mask)
    return dropped


@pytest.mark.parametrize("pattern", ["PS4_P4", "PSD1_P3", "pSC4_S7", SUPPORTS, "PS9_P1"])
@pytest.mark.parametrize("build", CONVERTED)
def test_equals_the_model_with_masked_kernels(build, pattern):
    model = build()
    randomize(model)
    sparse = sparsify(model, pattern)
    assert type(sparse) is type(model)
    assert periodic_names(sparse) == CONVERTED[build]
    unmasked = outputs(model)
    dropped = mask_kernels(model, pattern, CONVERTED[build])
    assert sparse.count_params() == model.count_params() - dropped
    assert_equal_outputs(outputs(sparse), outputs(model))
    if pattern == "PS9_P1" and build is sequential:  # its kernels are 3x3
        assert_equal_outputs(outputs(sparse), unmasked)


def has_room_for_four_taps(layer):
    return np.prod(layer.kernel_size) >= 4  # all but 1x3 and 3x1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "pattern", "filter", "first"),
    [
        ("ResNet50", 32, "PS4_P4", None, "conv1_conv"),
        ("VGG16", 32, "PSD1_P16", None, "block1_conv1"),
        ("DenseNet121", 32, "PS2_P4_F1", None, "conv1_conv"),
        ("InceptionV3", 75, "PS4_P4", has_room_for_four_taps, None),
    ],
)
def test_networks_of_keras_applications(name, size, pattern, filter, first):
    network = getattr(keras.applications, name)
    model = network(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg")
    spatial = [
        layer
        for layer in model.layers
        if type(layer) is layers.Conv2D and layer.kernel_size != (1, 1)
    ]
    first = first or spatial[0].name  # InceptionV3 does not name its layers
    expected = {
        layer.name for layer in spatial if layer.name != first and (filter is None or filter(layer))
    }
    sparse = sparsify(model, pattern, filter)
    assert periodic_names(sparse) == expected
    assert sparse.count_params() == model.count_params() - mask_kernels(model, pattern, expected)
    assert_equal_outputs(outputs(sparse), outputs(model))


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0"])
def test_networks_with_depthwise_spatial_convolutions_only_are_named(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3))
    with pytest.raises(UsageError, match=f"{model.name} has no layer to convert"):
        sparsify(model, "PS4_P4")


def test_a_kernel_that_the_pattern_does_not_fit_is_named():
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.Conv2D(4, 3, name="square")(x)
    model = keras.Model(inputs, layers.Conv2D(4, (1, 3), name="flat")(x))
    with pytest.raises(UsageError, match=r"Layer flat has a kernel of 1x3.*`filter`"):
        sparsify(model, "PS4_P4")
    seen = []
    sparse = sparsify(model, "PS4_P4", lambda layer: seen.append(layer.name) or "sq" in layer.name)
    assert seen == ["square", "flat"]
    assert periodic_names(sparse) == {"square"}


@pytest.mark.parametrize("build", CONVERTED)
def test_arguments_are_kept(build):
    model = build()
    sparse = sparsify(model, "PS4_P4")
    assert sparse.name == model.name
    pairs = list(zip(leaf_layers(model), leaf_layers(sparse), strict=True))
    for layer, new in pairs:
        config, new_config = layer.get_config(), new.get_config()
        if layer.name in CONVERTED[build]:
            assert new_config.pop("pattern") == "PS4_P4"
            for key in ("data_format", "dilation_rate", "groups"):
                del config[key]
            config["kernel_size"] = tuple(config["kernel_size"])
        else:
            assert type(new) is type(layer)
        assert {key: config[key] for key in new_config} == new_config
        assert [v.trainable for v in new.weights] == [v.trainable for v in layer.weights]
    for layer, new in zip(model.layers, sparse.layers, strict=True):
        assert (layer.name, layer.trainable) == (new.name, new.trainable)


def test_frozen_models_stay_frozen():
    model = sequential()
    model.trainable = False
    model.get_layer("nested").trainable = True
    sparse = sparsify(model, "PS4_P4")
    assert not sparse.trainable
    assert sparse.get_layer("nested").trainable
    assert not sparse.get_layer("subclass").trainable


@pytest.mark.parametrize("build", CONVERTED)
def test_the_original_is_left_as_it_is(build):
    model = build()
    model.compile("sgd", loss=lambda labels, scores: 0.0)
    config, weights = model.get_config(), model.get_weights()
    calls = [len(layer._inbound_nodes) for layer in leaf_layers(model)]
    sparse = sparsify(model, "PS1_P4")
    assert not sparse.compiled
    assert model.compiled
    for variable in sparse.variables:
        variable.assign(variable + 1)
    assert model.get_config() == config
    assert calls == [len(layer._inbound_nodes) for layer in leaf_layers(model)]
    for after, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(after, before)


def test_shared_layers_stay_shared():
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    nested_inputs, inputs = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    nested = keras.Model(nested_inputs, shared(nested_inputs))
    x = shared(nested(shared(layers.Conv2D(3, 3, padding="same")(inputs))))
    model = keras.Model(inputs, x)
    sparse = sparsify(model, "PS4_P4")
    found = [layer for layer in leaf_layers(sparse) if layer.name == "shared"]
    assert len(found) == 2
    assert found[0] is found[1]
    mask_kernels(model, "PS4_P4", {"shared"})
    assert_equal_outputs(outputs(sparse), outputs(model))


@pytest.mark.parametrize("build", CONVERTED)
def test_file_round_trip(build, tmp_path):
    model = build()
    if build is sequential:  # its own class is in no registry
        model = keras.Sequential([keras.Input((8, 8, 3)), *model.layers[:3]])
    randomize(model)
    sparse = sparsify(model, SUPPORTS)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert periodic_names(loaded) == periodic_names(sparse)
    for ours, theirs in zip(outputs(loaded), outputs(sparse), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_whose_state_is_not_in_their_weights():
    factor = 3.0
    normalize = layers.Normalization()
    normalize.adapt(np.random.default_rng(0).uniform(2, 9, (50, 8, 8, 3)))
    inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: x * factor)(normalize(inputs))
    x = layers.Conv2D(4, 3)(x)
    x = layers.Conv2D(4, 3, activation=layers.PReLU(alpha_initializer="random_normal"))(x)
    model = keras.Model(inputs, x)
    outputs(model)  # Keras builds an activation that is a layer at its first call
    assert_equal_outputs(outputs(sparsify(model, "PS9_P1")), outputs(model))


class OwnCall(layers.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


class OwnOperation(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return 2 * super().convolution_op(inputs, kernel)


class OwnKernel(layers.Conv2D):
    @property
    def kernel(self):
        return 2 * super().kernel


@pytest.mark.parametrize(
    "other",
    [
        *(OwnCall, OwnOperation, OwnKernel),
        lambda *arguments, **names: layers.TimeDistributed(layers.Conv2D(*arguments), **names),
        lambda *arguments, **names: layers.SeparableConv2D(*arguments, **names),
        lambda *arguments, **names: layers.Conv2DTranspose(*arguments, **names),
    ],
)
def test_layers_that_compute_something_else_are_left_alone(other):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="plain")(layers.Conv2D(4, 3, name="stem")(inputs))
    wrapped = isinstance(other, type(lambda: 0)) and "TimeDistributed" in other.__code__.co_names
    x = other(5, 3, name="other")(x[:, None] if wrapped else x)
    model = randomize(keras.Model(inputs, layers.Conv2D(2, 1)(x[:, 0] if wrapped else x)))
    sparse = sparsify(model, "PS4_P4")
    assert periodic_names(sparse) == {"plain"}
    assert type(sparse.get_layer("other")) is type(model.get_layer("other"))
    mask_kernels(model, "PS4_P4", {"plain"})
    assert_equal_outputs(outputs(sparse), outputs(model))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Conv2D(4, 3), layers.Conv2D(4, 3)

    def call(self, inputs):
        return self.second(self.first(inputs))


class OwnTrainStep(keras.Model):
    def train_step(self, data):
        return {}


def test_a_functional_model_of_an_own_class_becomes_a_plain_one():
    inputs = keras.Input((8, 8, 3))
    model = OwnTrainStep(inputs, layers.Conv2D(4, 3)(layers.Conv2D(4, 3, name="stem")(inputs)))
    sparse = sparsify(model, "PS9_P1")
    assert type(sparse) is type(graph())
    assert_equal_outputs(outputs(sparse), outputs(model))


class DoubledOutputs(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


def two_convolutions(**arguments):
    first = layers.Conv2D(4, 3)
    return keras.Sequential([keras.Input((8, 8, 3)), first, layers.Conv2D(4, 3, **arguments)])


def with_own_call():
    inputs = keras.Input((8, 8, 3))
    return DoubledOutputs(inputs, layers.Conv2D(4, 3)(layers.Conv2D(4, 3)(inputs)))


def with_channels_first():
    return two_convolutions(name="other", data_format="channels_first")


def with_unknown_function():
    def own(x):
        return x

    return two_convolutions(name="own", activation=own)


def with_lora():
    model = two_convolutions(name="lora")
    model.layers[1].enable_lora(2)
    return model


@pytest.mark.parametrize(
    ("build", "pattern", "received"),
    [
        (two_convolutions, "PS44P4", "PS44P4"),
        (Subclassed, "PS4_P4", "of class Subclassed"),
        (with_own_call, "PS4_P4", "of class DoubledOutputs"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), Subclassed()]), "PS4_P4", "Subclassed"),
        (lambda: layers.Conv2D(4, 3), "PS4_P4", "of class Conv2D"),
        (lambda: "model.keras", "PS4_P4", "'model.keras' of class str"),
        (lambda: keras.Sequential([layers.Conv2D(4, 3)], name="raw"), "PS4_P4", "raw is not built"),
        (lambda: sparsify(two_convolutions(), "PS4_P4"), "PS4_P4", "no layer to convert"),
        (lambda: two_convolutions(name="far", dilation_rate=2), "PS4_P4", r"far is .* \(2, 2\)"),
        (with_channels_first, "PS4_P4", "Layer other has data format channels_first"),
        (with_unknown_function, "PS4_P4", "Layer own"),
        (with_lora, "PS4_P4", "Layer lora"),
    ],
)
def test_what_cannot_be_converted_is_named(build, pattern, received):
    with pytest.raises(UsageError, match=received):
        sparsify(build(), pattern)
