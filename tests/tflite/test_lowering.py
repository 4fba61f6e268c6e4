"""A lowered network against the network it was made of, in each form of its layers."""

import itertools

import keras
import numpy as np
import pytest

from tflite.forms import forms
from tflite.lowering import lower
from tfsparse import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D

FORMS = {"one step": 0, "two steps": 1, "slices": 2}


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def lower_to(form, model):
    """Lowers a model with every layer in this form if it has forms."""

    def choose(layer, input_shape):
        found = forms(layer, input_shape)
        return found[FORMS[form]] if found else None

    return lower(model, choose)


def randomize(model):
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def assert_same(model, lowered, seed=0):
    shape = (1, *model.inputs[0].shape[1:])
    x = np.random.default_rng(seed).normal(size=shape).astype("float32")
    expected, actual = model(x), lowered(x)
    for ours, theirs in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


GEOMETRIES = [
    (3, 1, "same", (6, 5)),
    (3, 2, "same", (7, 5)),
    (3, 2, "same", (6, 8)),
    (3, 1, "valid", (6, 7)),
    (3, 3, "valid", (8, 9)),
    ((5, 3), (1, 2), "same", (7, 6)),
    ((2, 5), 1, "same", (5, 6)),
]


@pytest.mark.parametrize(
    ("pattern", "geometry"),
    [
        *itertools.product(["PS4_P4", "PS2_P6", "PSD2_P4_F1", "PS1_P3_F1"], GEOMETRIES),
        # Many phases take long; the second geometry is the strided one with uneven sizes.
        *itertools.product(["PS1_P9", "PSD1_P16", "PSD2_P6", "PS2_P6_F2"], GEOMETRIES[:2]),
    ],
)
def test_computes_the_same(form, pattern, geometry):
    kernel_size, strides, padding, size = geometry
    inputs = keras.Input((*size, 20))
    layer = PeriodicConv2D(18, kernel_size, pattern, strides, padding, "tanh")
    model = randomize(keras.Model(inputs, layer(inputs)))
    assert forms(layer, (1, *size, 20))
    lowered = lower_to(form, model)
    assert not any(isinstance(layer, PeriodicConv2D) for layer in leaf_layers(lowered))
    assert_same(model, lowered)


def test_norm_and_activation_are_folded(form):
    x = inputs = keras.Input((6, 6, 16))
    for index, activation in enumerate([keras.layers.ReLU(6.0), keras.layers.Activation("elu")]):
        x = PeriodicConv2D(16, 3, "PS2_P6", padding="same", use_bias=index == 1)(x)
        x = keras.layers.BatchNormalization(scale=index == 0, center=index == 1)(x)
        x = activation(x)
    model = randomize(keras.Model(inputs, x))
    lowered = lower_to(form, model)
    assert_same(model, lowered)
    kinds = [type(layer) for layer in lowered.layers]
    assert keras.layers.BatchNormalization not in kinds
    assert sum(kind is keras.layers.ReLU for kind in kinds) == 6, "one for each phase"


def test_activations_of_all_channels_at_once(form):
    """Softmax mixes channels, and PReLU has weights for each of them."""
    x = inputs = keras.Input((6, 6, 16))
    x = PeriodicConv2D(16, 3, "PS2_P6", padding="same", activation="softmax")(x)
    x = PeriodicConv2D(16, 3, "PS4_P4", padding="same")(x)
    x = keras.layers.Activation("softmax")(x)
    x = PeriodicConv2D(16, 3, "PS2_P6", padding="same")(x)
    model = keras.Model(inputs, keras.layers.PReLU()(x))
    assert_same(randomize(model), lower_to(form, model))


def test_layers_whose_state_is_not_in_their_weights(form):
    factor = 3.0
    normalize = keras.layers.Normalization()
    normalize.adapt(np.random.default_rng(0).uniform(2, 9, (50, 8, 8, 16)))
    inputs = keras.Input((8, 8, 16))
    x = keras.layers.Lambda(lambda x: x * factor)(normalize(inputs))
    model = keras.Model(inputs, PeriodicConv2D(16, 3, "PS4_P4")(x))
    assert_same(model, lower_to(form, model))


def test_what_others_read_is_not_folded(form):
    """A layer's output that is used twice, that is an output, or of a layer that is shared."""
    inputs = keras.Input((6, 6, 16))
    shared = PeriodicConv2D(16, 3, "PS4_P4", padding="same")
    norm = keras.layers.BatchNormalization()
    first = shared(inputs)
    x = keras.layers.ReLU()(norm(first))
    x = keras.layers.Add()([norm(shared(x)), first])
    second = PeriodicConv2D(8, 3, "PS1_P4", padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(second)
    third = PeriodicConv2D(8, 3, "PS1_P4", padding="same")(x)
    model = randomize(keras.Model(inputs, [second, third, keras.layers.ReLU()(third)]))
    assert_same(model, lower_to(form, model))


def test_nested_and_sequential_models(form):
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 16)),
            PeriodicConv2D(16, 3, "PS4_P4", padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    )
    inputs = keras.Input((6, 6, 16))
    model = randomize(keras.Model(inputs, keras.layers.Flatten()(inner(inner(inputs)))))
    assert_same(model, lower_to(form, model))
    assert_same(inner, lower_to(form, inner))


def test_stored_weights_are_the_kept_ones(form):
    inputs = keras.Input((6, 6, 36))
    layer = PeriodicConv2D(72, 3, "PS1_P9", padding="same", use_bias=False)
    lowered = lower_to(form, randomize(keras.Model(inputs, layer(inputs))))
    convolutions = [each for each in lowered.layers if type(each) is keras.layers.Conv2D]
    assert len(convolutions) == 9
    assert sum(each.kernel.shape.num_elements() for each in convolutions) == 36 * 72
    shifts = [each for each in lowered.layers if type(each) is keras.layers.DepthwiseConv2D]
    assert len(shifts) == {"one step": 9, "two steps": 3 + 9, "slices": 0}[form]
    for shift in shifts:  # a shift reads one tap of each channel as it is
        kernel = keras.ops.convert_to_numpy(shift.kernel)
        assert set(np.unique(kernel)) == {0.0, 1.0}
        np.testing.assert_array_equal(kernel.sum(axis=(0, 1, 3)), 1)


def test_patterns_without_a_form_become_dense():
    for pattern in ("pSC4", "PS5_P3", "PS9_P2"):
        inputs = keras.Input((6, 6, 16))
        layer = PeriodicConv2D(16, 3, pattern, padding="same")
        model = randomize(keras.Model(inputs, layer(inputs)))
        assert forms(layer, (1, 6, 6, 16)) == []
        assert_same(model, lower(model))


def test_a_layer_of_a_nested_model_that_is_also_called_outside_is_not_folded(form):
    norm = keras.layers.BatchNormalization()
    nested_inputs, inputs = keras.Input((6, 6, 16)), keras.Input((6, 6, 16))
    x = norm(PeriodicConv2D(16, 3, "PS4_P4", padding="same")(nested_inputs))
    nested = keras.Model(nested_inputs, x)
    model = randomize(keras.Model(inputs, norm(nested(inputs), training=False)))
    assert_same(model, lower_to(form, model))


class Doubled(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_a_model_with_a_call_of_its_own_is_refused():
    inputs = keras.Input((6, 6, 16))
    with pytest.raises(UsageError, match="of class Doubled"):
        lower(Doubled(inputs, PeriodicConv2D(16, 3)(inputs)))


def test_names_that_keras_gave_in_another_process(form):
    """A saved model has the names that Keras counts from the start in a new process."""
    keras.utils.clear_session()
    layers = keras.layers
    inputs = keras.Input((6, 6, 4))
    x = layers.DepthwiseConv2D(3, padding="same")(layers.ZeroPadding2D(1)(inputs))
    x = layers.Add()([layers.Conv2D(4, 3, padding="same")(x), x[..., ::-1]])
    x = layers.Activation("relu")(layers.Concatenate()([x, 2.0 * x]))
    x = PeriodicConv2D(8, 3, pattern="PS2_P6", padding="same", activation="relu")(x)
    model = randomize(keras.Model(inputs, layers.Reshape((-1,))(layers.Conv2D(3, 1)(x))))
    keras.utils.clear_session()
    assert_same(model, lower_to(form, model))
