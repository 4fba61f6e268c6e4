"""VGG16 for small images: 13 convolutions with BatchNorm and one linear classifier.

Configuration D of Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015. Five poolings leave 1x1 of a 32x32 image; larger images are averaged.
"""

import keras

from zoo.architectures.blocks import conv_norm_relu

_STAGES = [(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)]  # width multiple, convolutions


def vgg16(x, width=64, pattern=None):
    for stage, (multiple, convolutions) in enumerate(_STAGES, start=1):
        for index in range(1, convolutions + 1):
            first = stage == index == 1
            name = f"stage{stage}_{index}"
            x = conv_norm_relu(x, multiple * width, 3, name, pattern=None if first else pattern)
        # "same" lets images smaller than 32 pass through all five poolings.
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
    return x
