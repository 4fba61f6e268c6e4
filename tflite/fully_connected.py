"""Fully connected layers as 1x1 convolutions, for files whose integers must be the same everywhere.

TFLM's operator FULLY_CONNECTED rounds numbers halfway between two integers differently from
LiteRT's reference kernel: about one output in 1,500 is one step off. Their CONV_2D operators give
the same bits.
"""

import collections

from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import copying, graph


def as_convolutions(model):
    """Returns a copy of a Keras model whose `Dense` layers of vectors are 1x1 convolutions.

    These are layers whose class is `Dense` itself, whose calls all take one tensor of rank 2 and
    nothing else, whose activation is a function, and that have no LoRA and no quantized kernel. All
    other layers are copied.

    Raises:
        UsageError: if the model cannot be copied layer by layer.
    """
    copying.check_model(model)
    calls = collections.defaultdict(list)
    for call in graph.calls(model):
        calls[call.operation].append(call)

    def make(operation):
        if _is_plain(operation) and all(map(_is_of_a_vector, calls[operation])):
            return _on_pixel(operation)
        return copying.clone(operation)

    return copying.copy_model(model, make)


def _is_plain(operation):
    return (
        type(operation) is keras.layers.Dense
        and not isinstance(operation.activation, keras.layers.Layer)
        and not operation.lora_enabled
        and operation.quantization_mode is None
    )


def _is_of_a_vector(call):
    return not call.others and [len(tensor.shape) for tensor in call.inputs] == [2]


def _on_pixel(dense):
    """Returns a function of vectors that computes `dense` by a convolution."""
    size, dtype = dense.input_spec.axes[-1], dense.dtype_policy

    def make(config):
        shared = {key: config[key] for key in ("name", "activation", "use_bias", "dtype")}
        return keras.layers.Conv2D(dense.units, 1, **shared)

    def weights(dense, _):
        kernel, *bias = dense.get_weights()
        return [kernel[None, None], *bias]

    convolution = copying.make_again(dense, make)
    convolution.build((None, 1, 1, size))
    copying.carry_over(dense, convolution, weights)

    def call(inputs):  # named as in Dense, which may be called by that name
        pixel = keras.layers.Reshape((1, 1, size), dtype=dtype)(inputs)
        return keras.layers.Reshape((dense.units,), dtype=dtype)(convolution(pixel))

    return call
