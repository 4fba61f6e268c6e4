"""Fully connected layers as 1x1 convolutions, for files whose integers must be the same everywhere.

TFLM's operator FULLY_CONNECTED rounds what lies in the middle between two integers in another way
than LiteRT's reference kernel: about one output in 1,500 is one step off. Their CONV_2D give the
same bits.
"""

from tflite.quiet import quiet

with quiet():
    import keras

from tfsparse import copying


def as_convolutions(model):
    """Returns a copy of a Keras model whose `Dense` layers are 1x1 convolutions.

    Those that do not follow a vector, and those in a Sequential model within it, stay.

    Args:
        model: functional or Sequential Keras model with one input and one output.

    Raises:
        UsageError: where the model cannot be copied layer by layer.
    """
    copying.check_model(model)
    replaced = {id(layer) for layer in _dense_layers(model)}
    # A Sequential model cannot be copied with a function for its calls.
    (image,), (logits,) = model.inputs, model.outputs
    model = keras.Model(image, logits, name=model.name)
    made = set()

    def make(operation):
        if id(operation) not in replaced:
            return copying.clone(operation)
        config = {key: operation.get_config()[key] for key in ("name", "activation", "use_bias")}
        layer = keras.layers.Conv2D(operation.units, 1, **config)
        made.add(id(layer))
        return layer

    def call(operation, *args, **kwargs):
        if id(operation) not in made:
            return operation(*args, **kwargs)
        pixel = keras.layers.Reshape((1, 1, args[0].shape[-1]))(args[0])
        return keras.layers.Reshape((operation.filters,))(operation(pixel))

    def weights(original, new):
        arrays = original.get_weights()
        if id(new) in made:
            arrays[0] = arrays[0][None, None]
        return arrays

    return copying.copy_model(model, make, weights, call)


def _dense_layers(model, nested=False):
    """Yields the `Dense` layers that follow a vector, but those of nested Sequential models."""
    if nested and isinstance(model, keras.Sequential):
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _dense_layers(layer, nested=True)
        elif type(layer) is keras.layers.Dense and len(layer.input.shape) == 2:
            yield layer
