"""What a model costs: parameters, non-zero weights and multiply-accumulates (MACs)."""

import dataclasses
import math

import keras
import numpy as np

from tfsparse.layers import PeriodicConv2D, leaf_layers

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, PeriodicConv2D)


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of one layer's kernel, for one image.

    Attributes:
        name: of the layer.
        is_convolution: false for the classifier.
        parameters: weights stored in the kernel; of a periodic layer, the kept ones.
        nonzeros: those that are not zero.
        macs: multiply-accumulates with all stored weights: positions x parameters. Taps that fall
            on padding count; zeros that a narrow periodic layer multiplies with do not.
        nonzero_macs: those with a weight that is not zero.
    """

    name: str
    is_convolution: bool
    parameters: int
    nonzeros: int
    macs: int
    nonzero_macs: int


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """The cost of a model for one image; `layers` are those with a kernel.

    Attributes:
        layers: list of `LayerCost`.
        parameters: all parameters of the model, BatchNorm's statistics included.
    """

    layers: list
    parameters: int

    @property
    def nonzeros(self):
        """Parameters without the zeros in kernels."""
        return self.parameters - sum(layer.parameters - layer.nonzeros for layer in self.layers)

    @property
    def conv_parameters(self):
        return sum(layer.parameters for layer in self.layers if layer.is_convolution)

    @property
    def macs(self):
        return sum(layer.macs for layer in self.layers)

    @property
    def nonzero_macs(self):
        return sum(layer.nonzero_macs for layer in self.layers)


def model_cost(model):
    """Returns the `ModelCost` of a built functional or Sequential Keras model."""
    layers = [
        _layer_cost(layer)
        for layer in leaf_layers(model)
        if isinstance(layer, (*CONVOLUTIONS, keras.layers.Dense))
    ]
    return ModelCost(layers, model.count_params())


def _layer_cost(layer):
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    positions = math.prod(layer.output.shape[1:-1])
    nonzeros = int(np.count_nonzero(kernel))
    return LayerCost(
        name=layer.name,
        is_convolution=isinstance(layer, CONVOLUTIONS),
        parameters=kernel.size,
        nonzeros=nonzeros,
        macs=positions * kernel.size,
        nonzero_macs=positions * nonzeros,
    )
