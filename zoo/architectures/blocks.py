"""What the architectures share: convolution, BatchNorm and ReLU with names that stay."""

import keras

from tfsparse.layers import PeriodicConv2D


def conv(x, filters, kernel_size, name, strides=1, pattern=None):
    """Convolution without bias, padded to "same"; periodic if a pattern is given."""
    arguments = {
        "strides": strides,
        "padding": "same",
        "use_bias": False,
        "kernel_initializer": "he_normal",
        "name": name,
    }
    if pattern is None:
        return keras.layers.Conv2D(filters, kernel_size, **arguments)(x)
    return PeriodicConv2D(filters, kernel_size, pattern=pattern, **arguments)(x)


def depthwise_norm(x, strides, name):
    """3x3 depthwise convolution without bias, padded to "same", and BatchNorm."""
    x = keras.layers.DepthwiseConv2D(
        3,
        strides,
        "same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise_conv",
    )(x)
    return norm(x, f"{name}_depthwise_norm")


def norm(x, name):
    # With the default momentum of 0.99 the moving statistics lag for hundreds of steps, and the
    # attacks of training, which use them, would aim at another network.
    return keras.layers.BatchNormalization(momentum=0.9, name=name)(x)


def conv_norm_relu(x, filters, kernel_size, name, strides=1, pattern=None):
    x = conv(x, filters, kernel_size, f"{name}_conv", strides, pattern)
    x = norm(x, f"{name}_norm")
    return keras.layers.ReLU(name=f"{name}_relu")(x)
