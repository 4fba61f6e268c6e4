"""What a model costs: parameters, non-zero weights, multiply-accumulates (MACs), storage, traffic.

Only the kernels of 2D convolutions (grouped, depthwise, transposed and periodic ones included) and
of Dense layers are counted. `ModelCost.uncounted` names the other layers with weight matrices.
"""

import dataclasses
import math
from typing import NamedTuple

import keras
import numpy as np

from tfsparse import graph, storage
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D
from tfsparse.patterns import Pattern

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv2DTranspose,
    PeriodicConv2D,
)


class Traffic(NamedTuple):
    """What one inference moves between DRAM and chip, in bits."""

    weights: int
    activations: int

    @property
    def words(self) -> int:
        """The number of 32-bit words that it fills."""
        return -(-sum(self) // 32)


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of one layer's kernel, for one image.

    Attributes:
        name: of the layer.
        kind: name of its class, such as "Conv2D".
        is_convolution: false for Dense layers.
        kernel_shape: of the kernel; of a periodic layer, of its dense kernel.
        output_shape: of the first call, without the batch.
        calls: how often the model calls the layer.
        parameters: weights stored in the kernel; of a periodic layer, the kept ones.
        nonzeros: stored weights that are not zero.
        macs: multiply-accumulates with all stored weights, in all calls: positions x parameters.
            Taps on padding count; the zeros that a narrow periodic layer multiplies by do not.
        nonzero_macs: multiply-accumulates with weights that are not zero, in all calls.
        inputs: numbers in the inputs of all calls.
        outputs: numbers in the outputs of all calls.
        rows: output channels.
        period: of the pattern, or None if the layer has no periodic one.
    """

    name: str
    kind: str
    is_convolution: bool
    kernel_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    calls: int
    parameters: int
    nonzeros: int
    macs: int
    nonzero_macs: int
    inputs: int
    outputs: int
    rows: int
    period: int | None

    def storage(self, bits: int = 32) -> dict[str, int | None]:
        """Returns {format: bits} of the kernel for each of `tfsparse.storage.FORMATS`.

        "periodic" is None if the layer has no periodic pattern. `bits` is the size of a weight.
        """
        columns = math.prod(self.kernel_shape) // self.rows
        periodic = None
        if self.period:
            taps = math.prod(self.kernel_shape[:2])
            periodic = storage.periodic(self.parameters, self.period, taps, bits)
        return {
            "dense": storage.dense(self.rows, columns, bits),
            "csr": storage.csr(self.rows, columns, self.nonzeros, bits),
            "bitmap": storage.bitmap(self.rows, columns, self.nonzeros, bits),
            "periodic": periodic,
        }

    def dram_traffic(self, bits: int = 32) -> Traffic:
        """Returns the layer's `Traffic` with weights and activations of `bits` bits.

        The assumption: each call reads the kernel, in the smallest of its formats, and its input
        once, and writes its output once. Nothing stays on the chip from one call to the next, and
        what stands between (bias, normalization, activation, pooling, addition) is fused and free.
        """
        smallest = min(size for size in self.storage(bits).values() if size is not None)
        return Traffic(self.calls * smallest, bits * (self.inputs + self.outputs))


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """The cost of a model for one image; `layers` are those with a kernel.

    Attributes:
        layers: list of `LayerCost`, one for each layer, however often it is called.
        parameters: all parameters of the model, BatchNorm's statistics included.
        uncounted: names of other layers with weights of two or more dimensions, such as
            SeparableConv2D; of layers inside them, such as those of a wrapper or of a layer of
            one's own, as "outer/inner". They are in `parameters` and nowhere else.
    """

    layers: list[LayerCost]
    parameters: int
    uncounted: list[str]

    @property
    def nonzeros(self) -> int:
        """Parameters without the zeros in kernels."""
        return self.parameters - sum(layer.parameters - layer.nonzeros for layer in self.layers)

    @property
    def conv_parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers if layer.is_convolution)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def conv_macs(self) -> int:
        return sum(layer.macs for layer in self.layers if layer.is_convolution)

    @property
    def nonzero_macs(self) -> int:
        return sum(layer.nonzero_macs for layer in self.layers)

    def storage(self, bits: int = 32) -> dict[str, int | None]:
        """Returns {format: bits} of all kernels, each in that format.

        In "periodic" the layers without a periodic pattern are dense; it is None if no layer has
        one.
        """
        sizes = [layer.storage(bits) for layer in self.layers]
        totals = {
            name: sum(size[name] or 0 for size in sizes) for name in ("dense", "csr", "bitmap")
        }
        periodic = None
        if any(layer.period for layer in self.layers):
            periodic = sum(size["periodic"] or size["dense"] or 0 for size in sizes)
        return {**totals, "periodic": periodic}

    def dram_traffic(self, bits: int = 32) -> Traffic:
        """Returns the `Traffic` of all layers; see `LayerCost.dram_traffic`."""
        traffic = [layer.dram_traffic(bits) for layer in self.layers]
        return Traffic(sum(t.weights for t in traffic), sum(t.activations for t in traffic))


def model_cost(model: keras.Model) -> ModelCost:
    """Returns the `ModelCost` of a built functional or Sequential Keras model.

    A layer that is called several times has its parameters counted once and its MACs for each call,
    at the sizes of that call; in nested models too.

    Raises:
        UsageError: if the model, or one nested in it, is neither; or the size of its images is not
            known.
    """
    calls = _calls(model)
    layers = list(dict.fromkeys(graph.leaf_layers(model)))
    counted = [layer for layer in layers if isinstance(layer, (*CONVOLUTIONS, keras.layers.Dense))]
    uncounted = [
        name for layer in layers if layer not in counted for name in _with_matrices(layer, counted)
    ]
    return ModelCost(
        [_layer_cost(layer, calls[layer]) for layer in counted], model.count_params(), uncounted
    )


def macs_per_weight(model: keras.Model) -> dict[keras.layers.Layer, int]:
    """Returns {layer: MACs of each weight of its kernel for one image, in all calls}.

    Of all layers that `model_cost` counts, and with the same errors.
    """
    return {layer: _positions(layer, calls) for layer, calls in _calls(model).items()}


def _with_matrices(layer, counted):
    """Returns the names of `layer` and the layers inside it that own a weight matrix."""
    inside = [each for each in graph.tracked_layers(layer) if each not in counted]
    names = []
    for each in (layer, *inside):
        others = {id(weight) for sub in graph.tracked_layers(each) for weight in sub.weights}
        if any(len(weight.shape) > 1 and id(weight) not in others for weight in each.weights):
            names.append(layer.name if each is layer else f"{layer.name}/{each.name}")
    return names


def _calls(model):
    """Returns {layer: list of (input shape, output shape), one pair for each call}."""
    calls = {}

    def recorded(operation):
        def call(*args, **kwargs):
            inputs = keras.tree.flatten([args, kwargs])
            if isinstance(operation, keras.Model):
                return graph.run(operation, recorded, inputs)
            outputs = operation.compute_output_spec(*args, **kwargs)
            if isinstance(operation, (*CONVOLUTIONS, keras.layers.Dense)):
                shapes = inputs[0].shape[1:], outputs.shape[1:]
                calls.setdefault(operation, []).append(shapes)
            return outputs

        return call

    graph.run(model, recorded)
    return calls


def _positions(layer, calls):
    for shape in (shape for shapes in calls for shape in shapes):
        if None in shape:
            raise UsageError(
                "MACs can be counted for images of known size only. Received: layer "
                f"{layer.name} with a shape of {shape}. Build the model with a fixed input shape."
            )
    # In a transposed convolution, each input meets all weights of its channel; in the others, each
    # output meets all weights of its row.
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return sum(math.prod(before) for before, _ in calls) // layer.kernel.shape[-1]
    return sum(math.prod(after) for _, after in calls) // _matrix(layer)[1]


def _layer_cost(layer, calls):
    positions = _positions(layer, calls)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    shape, rows = _matrix(layer)
    nonzeros = int(np.count_nonzero(kernel))
    return LayerCost(
        name=layer.name,
        kind=type(layer).__name__,
        is_convolution=isinstance(layer, CONVOLUTIONS),
        kernel_shape=shape,
        output_shape=tuple(calls[0][1]),
        calls=len(calls),
        parameters=kernel.size,
        nonzeros=nonzeros,
        macs=positions * kernel.size,
        nonzero_macs=positions * nonzeros,
        inputs=sum(math.prod(before) for before, _ in calls),
        outputs=sum(math.prod(after) for _, after in calls),
        rows=rows,
        period=_period(layer),
    )


def _matrix(layer):
    """Returns the shape of the layer's dense kernel and the number of its output channels."""
    if isinstance(layer, PeriodicConv2D):
        return layer.dense_kernel_shape, layer.filters
    shape = tuple(layer.kernel.shape)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return shape, math.prod(shape[2:])
    return shape, shape[2 if isinstance(layer, keras.layers.Conv2DTranspose) else -1]


def _period(layer):
    pattern = layer.pattern if isinstance(layer, PeriodicConv2D) else None
    return pattern.period if isinstance(pattern, Pattern) else None
