"""Fully connected layers as 1x1 convolutions, for files whose integers must be the same everywhere.

TFLM's operator FULLY_CONNECTED rounds numbers halfway between two integers differently from
LiteRT's reference kernel: about one output in 1,500 is one step off. Their CONV_2D operators give
the same bits.
"""

from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import copying


def as_convolutions(model):
    """Returns a copy of a Keras model whose `Dense` layers of vectors are 1x1 convolutions.

    Raises:
        UsageError: if the model cannot be copied layer by layer.
    """

    def make(operation):
        if type(operation) is keras.layers.Dense and len(operation.input.shape) == 2:
            return _on_pixel(operation)
        return copying.clone(operation)

    return copying.copy_model(model, make)


def _on_pixel(dense):
    """Returns a function of a vector that computes `dense` by a convolution."""

    def make(config):
        shared = {key: config[key] for key in ("name", "activation", "use_bias")}
        return keras.layers.Conv2D(dense.units, 1, **shared)

    def weights(dense, _):
        kernel, *bias = dense.get_weights()
        return [kernel[None, None], *bias]

    size = dense.input.shape[1]
    convolution = copying.make_again(dense, make)
    convolution.build((None, 1, 1, size))
    copying.carry_over(dense, convolution, weights)

    def call(vector):
        pixel = keras.layers.Reshape((1, 1, size))(vector)
        return keras.layers.Reshape((dense.units,))(convolution(pixel))

    return call
