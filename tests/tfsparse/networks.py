"""What the tests of copies share: random weights, layers with silent channels, outputs."""

import keras
import numpy as np
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import graph
from tfsparse.layers import PeriodicConv2D

PRUNABLE = (layers.Conv2D, layers.Dense)


def randomize(model, seed=0):
    """Gives all weights random values that keep activations at about the same size."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            inputs = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:-1])
            value = rng.normal(0, np.sqrt(2 / inputs), weight.shape)
        elif "variance" in weight.path or "gamma" in weight.path:
            value = rng.uniform(0.5, 1.5, weight.shape)
        else:
            value = rng.normal(0, 0.3, weight.shape)
        weight.assign(value)
    return model


def silence(layer, *channels):
    """Sets the weights of a layer for the given input channels to 0."""
    kernel = to_numpy(layer.kernel).copy()
    if isinstance(layer, PeriodicConv2D):
        kernel[np.isin(layer.kernel_channels, channels)] = 0
    else:
        kernel[..., list(channels), :] = 0
    layer.kernel.assign(kernel)


def prune(model, density, seed=0):
    """Silences random channels of all layers but the first; each keeps one."""
    rng = np.random.default_rng(seed)
    readers = [x for x in graph.leaf_layers(model) if isinstance(x, (*PRUNABLE, PeriodicConv2D))]
    for layer in readers[1:]:
        periodic = isinstance(layer, PeriodicConv2D)
        count = layer.dense_kernel_shape[2] if periodic else layer.kernel.shape[-2]
        order = rng.permutation(count)
        silence(layer, *order[max(1, round(density * count)) :])
    return model


def outputs(model):
    """Returns all outputs for random images, as a list of float32 arrays."""
    rng = np.random.default_rng(1)
    images = keras.tree.map_structure(
        lambda x: rng.normal(size=(2, *x.shape[1:])).astype("float32"), graph.inputs_of(model)
    )
    return [to_numpy(keras.ops.cast(x, "float32")) for x in keras.tree.flatten(model(images))]


def assert_equal_outputs(small, model):
    for ours, theirs in zip(outputs(small), outputs(model), strict=True):
        assert np.std(theirs) > 0.01
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


def assert_is_smaller_form(small, model):
    """Checks what holds of all models, but for the outputs."""
    assert [x.name for x in graph.leaf_layers(small)] == [x.name for x in graph.leaf_layers(model)]
    assert (small.name, small.input_shape, small.output_shape) == (
        model.name,
        model.input_shape,
        model.output_shape,
    )
    assert not {id(x) for x in small.variables} & {id(x) for x in model.variables}


def channels(model, *names):
    """Returns the output channels of the named layers."""
    return [model.get_layer(name).output.shape[-1] for name in names]


def filters_of(layer, model):
    """Returns which filters of the Conv2D layer in `model` its namesake `layer` has."""
    kernel = to_numpy(model.get_layer(layer.name).bias)
    return [int(np.flatnonzero(kernel == value)[0]) for value in to_numpy(layer.bias)]


def conv(filters, name, size=3, **arguments):
    return layers.Conv2D(filters, size, padding="same", name=name, **arguments)


def everything():
    """Two images, two outputs, and all kinds of layers that channels are followed through."""
    first, second = keras.Input((9, 8, 3), name="one"), keras.Input((9, 8, 3), name="two")
    x = conv(8, "left")(first)
    x = layers.MaxPooling2D(2, padding="same")(layers.LeakyReLU()(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise")(
        layers.ZeroPadding2D(1)(x)
    )
    y = layers.Dropout(0.2)(conv(6, "right", strides=2)(second))
    z = layers.Concatenate(name="both")([x, y])
    z = keras.ops.relu(layers.BatchNormalization(name="norm")(z))
    a, b = z[..., :12], z[:, :, :, 12:]
    a = layers.Activation("tanh")(conv(6, "part_a")(a))
    b = layers.AveragePooling2D(1)(conv(6, "part_b", 1, activation="sigmoid")(b))
    z = layers.Multiply(name="product")([a + b, layers.Maximum()([a, 0.5 * y])])
    up = layers.Cropping2D(1)(layers.UpSampling2D(2)(z))
    z = layers.Concatenate(axis=1, name="stacked")([z, up[:, :, 1:5]])
    scores = layers.Dense(5, activation="relu", name="hidden")(layers.Flatten()(z))
    scores = layers.Dense(2, activation="softmax", name="scores")(scores)
    return keras.Model([first, second], [scores, conv(2, "map")(up)], name="everything")
