"""What a network costs beside its dense form."""

from tfsparse.cost import model_cost
from zoo.architectures import untrained


def costs(model, architecture):
    """Returns what a Keras model and its dense network cost, as `tfsparse.cost` counts it.

    Args:
        model: a keras.Model.
        architecture: arguments of `zoo.build` for it, a dict.
    """
    spent, dense = model_cost(model), model_cost(untrained(architecture | {"pattern": None}))
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
