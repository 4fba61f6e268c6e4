"""What a network costs beside its dense form."""

import functools

from tfsparse.cost import model_cost
from zoo.architectures import build


def costs(model, architecture):
    """Returns what a Keras model and its dense network cost, as `tfsparse.cost` counts it.

    Args:
        model: a keras.Model.
        architecture: arguments of `zoo.build` for it, a dict.
    """
    size, classes = tuple(architecture["input_shape"]), architecture["num_classes"]
    dense = _cost_of_dense(architecture["arch"], size, classes, architecture["width"])
    spent = model_cost(model)
    nonzeros = sum(layer.nonzeros for layer in spent.layers if layer.is_convolution)
    return {
        "density": nonzeros / spent.conv_parameters,  # of the weights stored in convolutions
        "dense_parameters": dense.parameters,
        "dense_macs": dense.macs,
        "parameters": spent.parameters,
        "nonzero_parameters": spent.nonzeros,
        "macs": spent.macs,
        "nonzero_macs": spent.nonzero_macs,
    }


@functools.cache
def _cost_of_dense(arch, input_shape, num_classes, width):
    return model_cost(build(arch, input_shape, num_classes, width))
