"""PeriodicConv2D: a 2D convolution that stores only the weights its pattern keeps."""

import functools
import itertools

import keras
import numpy as np
from keras import ops

from tfsparse import lowering
from tfsparse._tfmot import PrunableLayer
from tfsparse.errors import UsageError
from tfsparse.patterns import Pattern

# Below this many input channels in the smallest block, the shifted slices cost more than the
# multiplications they save, and the layer runs as one convolution with its dense kernel instead.
# Blocks of 16 channels about break even on LiteRT and make a training step slower.
MIN_BLOCK_CHANNELS = 32


@keras.saving.register_keras_serializable(package="tfsparse")
class PeriodicConv2D(keras.layers.Layer, PrunableLayer):
    """2D convolution whose kernels keep a periodic pattern of taps, fixed before training.

    Equal to `keras.layers.Conv2D` with the kernel `dense_kernel()`, whose other taps are zero. The
    layer's only kernel variable is the vector of kept weights, so gradients, optimizer slots and
    files are smaller by the same factor. Layers with at least MIN_BLOCK_CHANNELS input channels in
    each phase also compute with the kept weights only; narrower ones run as a dense convolution.

    Args:
        filters: number of output channels.
        kernel_size: int or pair, taps of a kernel.
        pattern: name of a periodic pattern; see `tfsparse.patterns.Pattern`.
        strides: int or pair.
        padding: "valid" or "same".
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer: as in `keras.layers.Conv2D`. Initialisers that scale with the fan-in
            or fan-out count kept taps only. The regulariser sees the vector of kept weights.

    Input: [batch, height, width, channels] (channels last). Output: [batch, new height, new width,
    filters], sizes as in `keras.layers.Conv2D`.

    Raises:
        UsageError: where the pattern's name is unknown or it does not fit the kernel.

    Example:
        >>> layer = tfsparse.layers.PeriodicConv2D(128, 3, pattern="PS4_P4", padding="same")
        >>> layer(np.zeros((1, 32, 32, 64), "float32")).shape
        TensorShape([1, 32, 32, 128])

    Reference: Kundu et al., arXiv 2001.10710 (IEEE Trans. Computers 2020).
    """

    def __init__(
        self,
        filters,
        kernel_size=3,
        pattern="PS4_P4",
        strides=1,
        padding="valid",
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = _pair(kernel_size, "kernel_size")
        self.strides = _pair(strides, "strides")
        self._pattern = Pattern.parse(pattern)
        self._pattern.supports(self.kernel_size)
        self.pattern = self._pattern.name
        if padding not in ("valid", "same"):
            raise UsageError(f"padding must be 'valid' or 'same'. Received: {padding!r}")
        self.padding = padding
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise UsageError(
                f"The number of input channels must be known. Received: shape {input_shape}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        geometry = (self.kernel_size, channels, self.filters)
        self._convolutions = lowering.lower(self._pattern, *geometry)
        self._positions = lowering.kernel_positions(self._convolutions, *geometry)
        self._dense_shape = (*self.kernel_size, channels, self.filters)
        # Where each tap of the dense kernel finds its weight; one past the end is a zero. Gathering
        # folds into a constant in every TFLite file, scattering only at high densities.
        sources = np.full(np.prod(self._dense_shape), len(self._positions), np.int32)
        sources[self._positions] = np.arange(len(self._positions))
        self._sources = sources.reshape(self._dense_shape)
        # Slices need the size of their input; without it, or where blocks are too narrow to pay,
        # the equivalent dense convolution runs.
        self._runs_dense = (
            None in input_shape[1:3] or channels // self._pattern.period < MIN_BLOCK_CHANNELS
        )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(len(self._positions),),
            initializer=self._initialize_kernel,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def _initialize_kernel(self, shape, dtype=None):
        # The initialiser sees the dense shape it expects. A VarianceScaling initialiser has
        # variance proportional to 1 / fan, and each of its fans shrinks by the share of taps kept.
        dense = self.kernel_initializer(self._dense_shape, dtype=dtype)
        kernel = ops.take(ops.reshape(dense, (-1,)), self._positions)
        if isinstance(self.kernel_initializer, keras.initializers.VarianceScaling):
            kernel = kernel * float(np.sqrt(np.prod(self._dense_shape) / shape[0]))
        return kernel

    def call(self, inputs):
        outputs = self._dense_convolution(inputs) if self._runs_dense else self._lowered(inputs)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    def _dense_convolution(self, inputs):
        return ops.conv(
            inputs,
            self.dense_kernel(),
            strides=self.strides,
            padding=self.padding,
            data_format="channels_last",
        )

    def _lowered(self, inputs):
        padded, rows, columns = self._pad(inputs)
        sizes = [int(np.prod(convolution.kernel_shape)) for convolution in self._convolutions]
        kernels = [ops.convert_to_tensor(self.kernel)]
        if len(sizes) > 1:
            kernels = ops.split(kernels[0], np.cumsum(sizes)[:-1].tolist())
        by_filters = itertools.groupby(
            zip(self._convolutions, kernels, strict=True), lambda item: item[0].filters
        )
        return _concatenate(
            [
                functools.reduce(
                    ops.add,
                    [
                        self._convolve(padded, rows, columns, convolution, kernel)
                        for convolution, kernel in group
                    ],
                )
                for _, group in by_filters
            ]
        )

    def _pad(self, inputs):
        """Returns the inputs padded as `padding` asks, and the rows and columns of the output."""
        pads, outs = [], []
        for size, taps, stride in zip(
            inputs.shape[1:3], self.kernel_size, self.strides, strict=True
        ):
            if self.padding == "valid":
                pads.append((0, 0))
                outs.append((size - taps) // stride + 1)
            else:
                out = -(-size // stride)
                total = max((out - 1) * stride + taps - size, 0)
                pads.append((total // 2, total - total // 2))
                outs.append(out)
        if any(pad != (0, 0) for pad in pads):
            inputs = ops.pad(inputs, [(0, 0), *pads, (0, 0)])
        return inputs, *outs

    def _convolve(self, padded, rows, columns, convolution, kernel):
        height, width = convolution.kernel_shape[:2]
        last_row = (rows - 1) * self.strides[0] + height
        last_column = (columns - 1) * self.strides[1] + width
        slices = [
            padded[
                :,
                window.top : window.top + last_row,
                window.left : window.left + last_column,
                start:stop,
            ]
            for start, stop, window in convolution.pieces
        ]
        return ops.conv(
            _concatenate(slices),
            ops.reshape(kernel, convolution.kernel_shape),
            strides=self.strides,
            padding="valid",
            data_format="channels_last",
        )

    def dense_kernel(self):
        """Returns the equivalent kernel [height, width, channels, filters], zero where not kept."""
        kernel = ops.convert_to_tensor(self.kernel)
        padded = ops.concatenate([kernel, ops.zeros((1,), kernel.dtype)])
        return ops.take(padded, self._sources)

    @property
    def kernel_channels(self):
        """The input channel of each kept weight, int [number of kept weights]."""
        return np.unravel_index(self._positions, self._dense_shape)[2]

    def get_prunable_weights(self):
        """Returns the kept weights, as TF-MOT's `PrunableLayer` asks."""
        return [self.kernel]

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "pattern": self.pattern,
            "strides": self.strides,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }


def leaf_layers(model):
    """Yields the layers of `model` in order, those of models nested in it included."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def _concatenate(tensors):
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)


def _pair(value, name):
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(item, int) and item > 0 for item in pair):
        raise UsageError(f"{name} must be a positive int or a pair of them. Received: {value!r}")
    return pair
