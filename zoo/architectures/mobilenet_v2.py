"""MobileNetV2 with the strides for small images.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. For 32x32
images the stem and the second stage keep their resolution. Activations are ReLU without the limit
of 6, and the first block has its 1x1 expansion too. Numbers of channels are multiples of 8, at the
published widths those of the paper's own implementation, with one exception: the last convolution
narrows with the others, where the paper keeps 1280 channels below the published width. At a width
of 8 these would take nearly half of all weights.
"""

import keras

from tfsparse.errors import UsageError
from zoo.architectures.blocks import conv, conv_norm_relu, depthwise_norm, norm

# expansion, channels at the published stem width of 32, blocks, stride of the first block
_STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
_MULTIPLE = 8  # vector registers are left part empty by other numbers of channels


def mobilenet_v2(x, width=32, pattern=None):
    if pattern is not None:
        raise UsageError(
            "mobilenet_v2 has no spatial convolution that a pattern applies to: all but the first "
            f"are 1x1 or depthwise. Received: pattern={pattern!r}"
        )

    if width % _MULTIPLE:
        raise UsageError(
            f"The width of mobilenet_v2 must be a multiple of {_MULTIPLE}. Received: {width}"
        )

    def scaled(channels):
        # Rounded, but by no more than a tenth downwards.
        wanted = channels * width / 32
        nearest = max(_MULTIPLE, int(wanted + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE)
        return nearest if nearest >= 0.9 * wanted else nearest + _MULTIPLE

    x = conv_norm_relu(x, width, 3, "stem")
    for stage, (expansion, channels, blocks, stride) in enumerate(_STAGES, start=1):
        for block in range(1, blocks + 1):
            strides = stride if block == 1 else 1
            x = _block(x, expansion, scaled(channels), strides, f"stage{stage}_block{block}")
    return conv_norm_relu(x, scaled(1280), 1, "head")


def _block(x, expansion, filters, strides, name):
    inputs = x
    x = conv_norm_relu(x, expansion * x.shape[-1], 1, f"{name}_expand")
    x = depthwise_norm(x, strides, name)
    x = keras.layers.ReLU(name=f"{name}_depthwise_relu")(x)
    x = conv(x, filters, 1, f"{name}_project_conv")
    x = norm(x, f"{name}_project_norm")
    if strides == 1 and inputs.shape[-1] == filters:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return x
