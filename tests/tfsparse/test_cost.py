"""Costs against arithmetic by hand."""

import keras
import numpy as np

from tfsparse.cost import model_cost
from tfsparse.layers import PeriodicConv2D


def test_costs_by_hand():
    x = inputs = keras.Input((8, 10, 3))
    x = keras.layers.Conv2D(16, 3, 2, "same", name="conv")(x)  # 4 x 5 positions
    x = PeriodicConv2D(8, 3, "PS4_P4", padding="same", use_bias=False, name="periodic")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)  # 2 x 3 positions
    x = keras.layers.Conv2D(4, 1, groups=2, use_bias=False, name="grouped")(x)
    inner = keras.Sequential([keras.Input((2, 3, 4)), keras.layers.Flatten(name="f")])
    x = keras.layers.Dense(5, name="dense")(inner(x))
    model = keras.Model(inputs, x)
    kernel = model.get_layer("conv").kernel
    kernel.assign(kernel * (np.arange(27 * 16).reshape(3, 3, 3, 16) % 4 == 0))
    cost = model_cost(model)
    found = {
        layer.name: (layer.parameters, layer.nonzeros, layer.macs, layer.nonzero_macs)
        for layer in cost.layers
    }
    assert found == {
        "conv": (432, 108, 20 * 432, 20 * 108),
        "periodic": (16 * 8 * 4, 512, 20 * 512, 20 * 512),
        "depthwise": (9 * 8, 72, 6 * 72, 6 * 72),
        "grouped": (4 * 4, 16, 6 * 16, 6 * 16),
        "dense": (24 * 5, 120, 120, 120),
    }
    assert cost.parameters == model.count_params() == 432 + 16 + 512 + 72 + 16 + 120 + 5
    assert cost.nonzeros == cost.parameters - 324
    assert cost.conv_parameters == 432 + 512 + 72 + 16
    assert cost.macs == sum(layer.macs for layer in cost.layers)
    assert cost.macs - cost.nonzero_macs == 20 * 324
