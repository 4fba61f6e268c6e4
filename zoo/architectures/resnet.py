"""Residual networks of two-convolution blocks, for small images.

ResNet18 is the CIFAR form (3x3 stem, no pooling before the stages) of He et al., "Deep Residual
Learning for Image Recognition", CVPR 2016. ResNet8 has the layers of MLPerf Tiny's (Banbury et al.,
2021): three stages of one block; the shortcuts have BatchNorm, and convolutions have no bias.
ResNet14 has two blocks in each of the same stages: it is He et al.'s CIFAR network of 6n + 2 layers
with n = 2.
"""

import keras

from zoo.architectures.blocks import conv, conv_norm_relu, norm


def resnet18(x, width=64, pattern=None):
    return _stages(x, [width, 2 * width, 4 * width, 8 * width], blocks=2, pattern=pattern)


def resnet8(x, width=16, pattern=None):
    return _stages(x, [width, 2 * width, 4 * width], blocks=1, pattern=pattern)


def resnet14(x, width=16, pattern=None):
    return _stages(x, [width, 2 * width, 4 * width], blocks=2, pattern=pattern)


def _stages(x, widths, blocks, pattern):
    x = conv_norm_relu(x, widths[0], 3, "stem")
    for stage, filters in enumerate(widths):
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _block(x, filters, strides, pattern, f"stage{stage + 1}_block{block + 1}")
    return x


def _block(x, filters, strides, pattern, name):
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = conv(x, filters, 1, f"{name}_shortcut_conv", strides)
        shortcut = norm(shortcut, f"{name}_shortcut_norm")
    x = conv_norm_relu(x, filters, 3, f"{name}_1", strides, pattern)
    x = conv(x, filters, 3, f"{name}_2_conv", pattern=pattern)
    x = norm(x, f"{name}_2_norm")
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)
