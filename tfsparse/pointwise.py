"""Narrow 1x1 convolutions with strides during training, computed on the pixels that they read.

In the gradient of their kernel, oneDNN writes past the end of a buffer if there are fewer input
channels than numbers in a vector register (TensorFlow 2.21; 8 with AVX2, 16 with AVX-512), which
crashes or goes unnoticed. Shortcuts of narrow residual networks are such convolutions. Subsampling
their inputs first gives the same result with stride 1. The model itself does not change, only the
graph that is traced within `pixels_first`.
"""

import contextlib
import functools

import keras
from keras import ops

from tfsparse.graph import tracked_layers

REGISTER = 16  # float32 numbers in the widest vector register


@contextlib.contextmanager
def pixels_first(model):
    """Within the block, narrow strided 1x1 convolutions of `model` subsample their inputs first.

    They are `keras.layers.Conv2D` with fewer input channels than REGISTER. Outputs are the same.
    """
    layers = [layer for layer in tracked_layers(model) if _is_narrow(layer)]
    for layer in layers:
        layer.convolution_op = functools.partial(_convolve, layer.strides)
    try:
        yield
    finally:
        for layer in layers:
            del layer.convolution_op  # the instance's; the class has its own


def _is_narrow(layer):
    return (
        type(layer) is keras.layers.Conv2D
        and layer.kernel_size == (1, 1)
        and layer.strides != (1, 1)
        and layer.data_format == "channels_last"
        and layer.built
        and layer.kernel.shape[-2] < REGISTER
    )


def _convolve(strides, inputs, kernel):
    rows, columns = strides
    # Padding "same" or "valid" would be no difference: a kernel of one pixel needs none.
    return ops.conv(inputs[:, ::rows, ::columns], kernel, data_format="channels_last")
