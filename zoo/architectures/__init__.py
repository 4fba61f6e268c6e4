"""The zoo's network architectures, and `build`, which makes any of them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfsparse import patterns
from tfsparse.errors import UsageError
from zoo.architectures.mobilenet_v2 import mobilenet_v2
from zoo.architectures.resnet import resnet8, resnet14, resnet18
from zoo.architectures.shufflenet import shufflenet
from zoo.architectures.vgg import vgg16

ARCHITECTURES: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (mobilenet_v2, resnet8, resnet14, resnet18, shufflenet, vgg16)
}


def build(
    arch: str,
    input_shape: Sequence[int],
    num_classes: int,
    width: int | None = None,
    pattern: patterns.Specification | None = None,
) -> keras.Model:
    """Returns a new, untrained network as a functional Keras model.

    Args:
        arch: one of "mobilenet_v2", "resnet8", "resnet14", "resnet18", "shufflenet" and "vgg16".
        input_shape: (height, width, channels) of an image.
        num_classes: number of logits.
        width: channels of the first stage, with which all others scale; None for the published
            width (resnet18 and vgg16 64, mobilenet_v2 32, resnet8 and resnet14 16, shufflenet 200).
        pattern: a pattern ("PS4_P4", "PSD1_P16", see `tfsparse.patterns.parse`) for all
            spatial convolutions but the first one; None for dense ones. 1x1 and depthwise
            convolutions stay as they are.

    Returns:
        keras.Model that takes float images [n, height, width, channels] in [0, 1], normalizes them
        itself, and returns logits [n, num_classes].

    Raises:
        UsageError: if an argument is out of range, or the network has no convolution to which
            the pattern applies.
    """
    if arch not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UsageError(f"Unknown architecture. Choose one of {known}. Received: {arch!r}")
    if len(input_shape) != 3 or any(size is None or size < 1 for size in input_shape):
        raise UsageError(f"input_shape is (height, width, channels). Received: {input_shape}")
    if not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
        raise UsageError(f"num_classes must be an int, at least 1. Received: {num_classes!r}")
    make = ARCHITECTURES[arch]
    if width is None:
        width = inspect.signature(make).parameters["width"].default
    if not isinstance(width, (int, np.integer)) or width < 1:
        raise UsageError(f"width must be an int, at least 1. Received: {width!r}")
    if pattern is not None:
        pattern = patterns.parse(pattern).config
    inputs = keras.Input(tuple(input_shape), name="image")
    # Maps [0, 1] to about zero mean and unit variance for natural images.
    x = keras.layers.Rescaling(4.0, -2.0, name="normalization")(inputs)
    x = make(x, width=width, pattern=pattern)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=arch)


def untrained(architecture, images=None):
    """Returns an untrained network whose files take as long to run as those of a trained one.

    Its biases and BatchNorm variables get random values, as training gives them. With their initial
    0 and 1, the converter would store many of them once and leave out multiplications.

    Args:
        architecture: arguments of `build`, a dict.
        images: float [n, height, width, channels], which set the statistics of BatchNorm, or None.
            Activations then have both signs, as in trained networks. LiteRT's kernels that branch
            on the sign take longer for these: without images, a ShuffleNet is 1.35 times as fast.
    """
    model = build(**architecture)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if len(variable.shape) == 1 and variable.name != "kernel":  # of a periodic layer
            low = -0.5 if variable.name in ("beta", "bias", "moving_mean") else 0.5
            variable.assign(rng.uniform(low, low + 1, variable.shape))
    if images is not None:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0
        model(images, training=True)
    return model


def build_for_training(architecture, dtype_policy, synchronized=False):
    """Returns a new network whose layers compute in `dtype_policy`, a name that Keras knows.

    Args:
        architecture: arguments of `build`, a dict.
        dtype_policy: such as "mixed_bfloat16".
        synchronized: whether BatchNormalization normalizes by the batch of all replicas.
    """
    keras.config.set_dtype_policy(dtype_policy)
    try:
        model = build(**architecture)
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized
    return model
