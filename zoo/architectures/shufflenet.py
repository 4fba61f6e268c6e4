"""ShuffleNet with two groups and the strides for small images.

Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices", CVPR 2018. For 32x32 images the stem is a 1x1 convolution without pooling.
"""

import keras

from tfsparse.errors import UsageError
from zoo.architectures.blocks import conv, conv_norm_relu, depthwise_norm, norm

_GROUPS = 2
_BLOCKS = [4, 8, 4]


def shufflenet(x, width=200, pattern=None):
    if pattern is not None:
        raise UsageError(
            "shufflenet has no spatial convolution that a pattern applies to: its convolutions are "
            f"1x1 or depthwise. Received: pattern={pattern!r}"
        )
    if width % (4 * _GROUPS) or width < 48:
        raise UsageError(
            f"The width of shufflenet must be a multiple of {4 * _GROUPS}, at least 48. "
            f"Received: {width}"
        )
    x = conv_norm_relu(x, 24, 1, "stem")
    for stage, blocks in enumerate(_BLOCKS, start=1):
        filters = width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            x = _block(x, filters, block == 1, f"stage{stage}_block{block}")
    return x


def _block(x, filters, downsample, name):
    inputs = x
    # In a block that halves the image the pooled input is concatenated, elsewhere it is added.
    outputs = filters - x.shape[-1] if downsample else filters
    # The stem's 24 channels are too few to be worth grouping.
    groups = 1 if x.shape[-1] == 24 else _GROUPS
    x = _grouped_conv_norm(x, filters // 4, groups, f"{name}_reduce")
    x = keras.layers.ReLU(name=f"{name}_reduce_relu")(x)
    x = _shuffle(x, groups, f"{name}_shuffle")
    x = depthwise_norm(x, 2 if downsample else 1, name)
    x = _grouped_conv_norm(x, outputs, _GROUPS, f"{name}_expand")
    if downsample:
        pooled = keras.layers.AveragePooling2D(3, 2, "same", name=f"{name}_pool")(inputs)
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([x, pooled])
    else:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _grouped_conv_norm(x, filters, groups, name):
    """1x1 convolution in groups and BatchNorm, as one of each for each group.

    TensorFlow has no gradient for grouped convolutions on the CPU without XLA, and every runtime
    can run this form. BatchNorm is of each channel, so it may come before the groups are joined;
    there it becomes part of a convolution in a `.tflite` file.
    """
    if groups == 1:
        return norm(conv(x, filters, 1, f"{name}_conv"), f"{name}_norm")
    # The gradient of a split is a concatenation, that of each slice a whole array of zeros.
    parts = [
        norm(conv(part, filters // groups, 1, f"{name}_conv{group}"), f"{name}_norm{group}")
        for group, part in enumerate(keras.ops.split(x, groups, axis=-1), start=1)
    ]
    return keras.layers.Concatenate(name=f"{name}_join")(parts)


def _shuffle(x, groups, name):
    """Interleaves the channels of the groups."""
    if groups == 1:
        return x
    rows, columns, channels = x.shape[1:]
    x = keras.layers.Reshape((rows, columns, groups, channels // groups), name=f"{name}_split")(x)
    x = keras.layers.Permute((1, 2, 4, 3), name=f"{name}_interleave")(x)
    return keras.layers.Reshape((rows, columns, channels), name=f"{name}_merge")(x)
