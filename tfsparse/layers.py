"""PeriodicConv2D: a 2D convolution that stores only the weights its pattern keeps."""

import functools
import itertools
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfsparse import backend, blocks, lowering, patterns, shifts
from tfsparse._tfmot import PrunableLayer
from tfsparse.errors import UsageError

# The rule of `runs_dense`, a row for each kind of device: how many multiplications have to be saved
# for each number that a shift copies, by a depthwise convolution (True) or by slices (False).
# Measured by `python -m studies layer_speed`. On an H200, ResNet18 with PSD1_P16 took 3.9 times as
# long as small convolutions (docs/training.md); TPUs, not measured, are taken to be like that.
NEVER = float("inf")
MIN_SAVED_PER_COPY: dict[str, dict[bool, float]] = {
    "cpu": {True: 50, False: 110},
    "gpu": {True: NEVER, False: NEVER},
    "tpu": {True: NEVER, False: NEVER},
}
# Slices narrower than this are copied only a few numbers at a time.
MIN_BLOCK_CHANNELS = 4


class _OfDense(keras.regularizers.Regularizer):
    """A regularizer of the dense kernel, for the kept weights of a periodic layer."""

    def __init__(self, layer, regularizer):
        self.layer, self.regularizer = layer, regularizer

    def __call__(self, kernel):
        return self.regularizer(self.layer._expand(kernel))


class _KeepsDense(keras.constraints.Constraint):
    """A constraint of the dense kernel, for the kept weights of a periodic layer."""

    def __init__(self, layer, constraint):
        self.layer, self.constraint = layer, constraint

    def __call__(self, kernel):
        dense = self.constraint(self.layer._expand(ops.convert_to_tensor(kernel)))
        return ops.take(ops.reshape(dense, (-1,)), self.layer.kernel_positions)


@keras.saving.register_keras_serializable(package="tfsparse")
class PeriodicConv2D(keras.layers.Layer, PrunableLayer):
    """2D convolution whose kernels keep a pattern of taps, fixed before training.

    Equal to `keras.layers.Conv2D` with the kernel `dense_kernel()`, whose other taps are zero. The
    layer's only kernel variable is the vector of kept weights, so gradients, optimizer slots and
    files are smaller by the same factor. If that is faster, the layer also computes with the kept
    weights only, as small dense convolutions over shifted slices of its input; otherwise it runs as
    one convolution with its dense kernel.

    Args:
        filters: number of output channels.
        kernel_size: int or pair, taps of a kernel.
        pattern: such as "PS4_P4"; see `tfsparse.patterns.parse`, whose result the attribute
            `pattern` is.
        strides: int or pair.
        padding: "valid" or "same".
        activation, use_bias, bias_initializer, bias_regularizer: as in `keras.layers.Conv2D`.
        activity_regularizer, bias_constraint: likewise.
        kernel_initializer: likewise; one that scales with the fan-in or fan-out counts kept taps
            only.
        kernel_regularizer, kernel_constraint: likewise; they see `dense_kernel()`.

    Input: [batch, height, width, channels] (channels last). Output: [batch, new height, new width,
    filters], sizes as in `keras.layers.Conv2D`.

    Raises:
        UsageError: if the pattern is unknown or does not fit the kernel; or, when called, if an
            image is smaller than the kernel and padding is "valid".

    Examples:
        >>> layer = tfsparse.layers.PeriodicConv2D(128, 3, pattern="PS4_P4", padding="same")
        >>> layer(np.zeros((1, 32, 32, 64), "float32")).shape
        TensorShape([1, 32, 32, 128])

    Reference: Kundu et al., arXiv 2001.10710 (IEEE Trans. Computers 2020).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int] = 3,
        pattern: patterns.Specification = "PS4_P4",
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not _is_count(filters):
            raise UsageError(f"filters must be a positive int. Received: {filters!r}")
        self.filters = int(filters)
        self.kernel_size = _pair(kernel_size, "kernel_size")
        self.strides = _pair(strides, "strides")
        self.pattern: Any = patterns.parse(pattern)
        self.pattern.mask(self.kernel_size, 1, 1)  # refuses a pattern that does not fit
        if padding not in ("valid", "same"):
            raise UsageError(f"padding must be 'valid' or 'same'. Received: {padding!r}")
        self.padding = padding
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Sequence[int | None]) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise UsageError(
                f"The number of input channels must be known. Received: shape {input_shape}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        geometry = (self.kernel_size, channels, self.filters)
        self.dense_kernel_shape = (*self.kernel_size, channels, self.filters)
        self.kernel_positions = lowering.kernel_positions(self.pattern, *geometry)
        # The index of each tap's weight; one past the end is a zero. Gathering folds into a
        # constant in every TFLite file, scattering only at high densities.
        count = len(self.kernel_positions)
        sources = np.full(np.prod(self.dense_kernel_shape), count, np.int32)
        sources[self.kernel_positions] = np.arange(count)
        self._sources = sources.reshape(self.dense_kernel_shape)
        self._convolutions = lowering.lower(self.pattern, *geometry)
        self.saved_per_copy = self._count_saved()
        self.kernel = self.add_weight(
            name="kernel",
            shape=(count,),
            initializer=self._initialize_kernel,
            regularizer=self.kernel_regularizer and _OfDense(self, self.kernel_regularizer),
            constraint=self.kernel_constraint and _KeepsDense(self, self.kernel_constraint),
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _count_saved(self):
        """Returns the multiplications that small convolutions save for each number they copy.

        Each filter phase copies the inputs once. Each of their numbers is multiplied by the taps of
        its channel; with strides, at as many times fewer places as there are fewer outputs.
        """
        if self._convolutions is None:
            return 0.0
        channels = self.dense_kernel_shape[2]
        computed = sum(
            np.prod([*window, width if window == self.kernel_size else channels, filters])
            for window, width, filters in (
                (c.kernel_shape[:2], *c.kernel_shape[2:]) for c in self._convolutions
            )
        )
        saved = (np.prod(self.dense_kernel_shape) - computed) / np.prod(self.strides)
        return float(saved / (channels * self.pattern.filter_phases))

    def runs_dense(self, inputs: Any) -> bool:
        """Whether the layer runs as one convolution with its dense kernel."""
        if self._convolutions is None or None in inputs.shape[1:3]:  # shifts need to know the size
            return True
        depthwise = shifts.by_depthwise_convolution()
        windows = [convolution.kernel_shape[:2] for convolution in self._convolutions]
        sliced = not depthwise or self.kernel_size in windows
        if sliced and inputs.shape[-1] // self.pattern.period < MIN_BLOCK_CHANNELS:
            return True
        return self.saved_per_copy < MIN_SAVED_PER_COPY[backend.device_kind()][depthwise]

    def _initialize_kernel(self, shape, dtype=None):
        # The initializer sees the dense shape it expects. A VarianceScaling initializer has
        # variance proportional to 1 / fan, and each of its fans shrinks by the share of taps kept.
        dense = self.kernel_initializer(self.dense_kernel_shape, dtype=dtype)
        kernel = ops.take(ops.reshape(dense, (-1,)), self.kernel_positions)
        if isinstance(self.kernel_initializer, keras.initializers.VarianceScaling):
            kernel = kernel * float(np.sqrt(np.prod(self.dense_kernel_shape) / shape[0]))
        return kernel

    def call(self, inputs: Any) -> Any:
        self.compute_output_shape(inputs.shape)  # refuses images that are too small
        if self.runs_dense(inputs):
            outputs = self._convolve(inputs, self.dense_kernel())
        else:
            outputs = self._lowered(inputs)
        if self.use_bias:
            outputs = ops.add(outputs, ops.cast(self.bias, outputs.dtype))
        return self.activation(outputs)

    def _convolve(self, inputs, kernel, padding=None):
        return ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=padding or self.padding,
            data_format="channels_last",
        )

    def _lowered(self, inputs):
        sizes = [int(np.prod(convolution.kernel_shape)) for convolution in self._convolutions]
        kernels = [ops.convert_to_tensor(self.kernel)]
        if len(sizes) > 1:
            kernels = ops.split(kernels[0], np.cumsum(sizes)[:-1].tolist())
        by_filters = itertools.groupby(
            zip(self._convolutions, kernels, strict=True), lambda item: item[0].filters
        )
        read = blocks.Blocks(inputs, self.pattern)
        return blocks.concatenate(
            [
                functools.reduce(
                    ops.add,
                    [self._small_convolution(read, *convolution) for convolution in group],
                )
                for _, group in by_filters
            ]
        )

    def _small_convolution(self, read, convolution, kernel):
        """One of the small convolutions: `kernel`, a vector, over its shifted slices."""
        kernel_shape = convolution.kernel_shape
        kernel = ops.reshape(kernel, kernel_shape)
        window = kernel_shape[:2]
        if window == self.kernel_size:
            return self._convolve(read.take(convolution.pieces), kernel)
        kernel = blocks.fill_gaps(kernel, convolution.pieces, read.inputs.shape[-1])
        offsets = blocks.without_gaps(convolution.pieces, read.inputs.shape[-1])
        before, sizes = self._frame(read.inputs.shape, window)
        if window != (1, 1):
            return self._convolve(
                shifts.shift(read.inputs, offsets, before, sizes), kernel, "valid"
            )
        # A 1x1 convolution is a matrix product, which XLA runs faster.
        shifted = shifts.shift(read.inputs, offsets, before, sizes, self.strides)
        outputs = ops.matmul(ops.reshape(shifted, (-1, kernel.shape[2])), kernel[0, 0])
        return ops.reshape(outputs, (-1, *shifted.shape[1:3], kernel_shape[3]))

    def _frame(self, input_shape, window):
        """Returns the zeros before rows and columns, and how many of them `window` passes over."""
        before, sizes = [], []
        for size, taps, stride, seen in zip(
            input_shape[1:3], self.kernel_size, self.strides, window, strict=True
        ):
            count = _output_size(size, taps, stride, self.padding)
            total = max((count - 1) * stride + taps - size, 0) if self.padding == "same" else 0
            before.append(total // 2)
            sizes.append((count - 1) * stride + seen)
        return before, sizes

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        sizes = [
            None if size is None else _output_size(size, taps, stride, self.padding)
            for size, taps, stride in zip(
                input_shape[1:3], self.kernel_size, self.strides, strict=True
            )
        ]
        if not all(size is None or size > 0 for size in sizes):
            raise UsageError(
                f"Layer {self.name} has a kernel of {self.kernel_size} and no padding. Received: "
                f"images of {tuple(input_shape[1:3])}, which are smaller. Use padding='same'."
            )
        return (input_shape[0], *sizes, self.filters)

    def dense_kernel(self) -> Any:
        """Returns the equivalent kernel [height, width, channels, filters], zero where not kept."""
        return self._expand(ops.convert_to_tensor(self.kernel))

    def assign_dense_kernel(self, kernel: Any) -> None:
        """Takes the kept taps of `kernel`, [height, width, channels, filters]; drops the others.

        Raises:
            UsageError: if the shape is another one.
        """
        if tuple(kernel.shape) != self.dense_kernel_shape:
            raise UsageError(
                f"The dense kernel of layer {self.name} has shape {self.dense_kernel_shape}. "
                f"Received: {tuple(kernel.shape)}"
            )
        self.kernel.assign(ops.convert_to_numpy(kernel).ravel()[self.kernel_positions])

    def _expand(self, kernel):
        """Returns the dense kernel of the vector `kernel`.

        Each weight has one tap, so the gradient gathers too. The gradient that TensorFlow would
        derive adds up at every tap, which takes longer than some convolutions.
        """

        def gather(kernel):
            zero = ops.zeros((1,), kernel.dtype)
            dense = ops.take(ops.concatenate([kernel, zero]), self._sources)

            def gradient(*args, upstream=None):
                (upstream,) = args if upstream is None else (upstream,)
                return ops.take(ops.reshape(upstream, (-1,)), self.kernel_positions)

            return dense, gradient

        # Reshaped, a variable is a plain tensor, as custom gradients in TensorFlow need it.
        return ops.custom_gradient(gather)(ops.reshape(kernel, (-1,)))

    @property
    def kernel_channels(self) -> np.ndarray:
        """The input channel of each kept weight, int [number of kept weights]."""
        return np.unravel_index(self.kernel_positions, self.dense_kernel_shape)[2]

    def get_prunable_weights(self) -> list[Any]:
        """Returns the kept weights, as TF-MOT's `PrunableLayer` asks."""
        return [self.kernel]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "pattern": self.pattern.config,
            "strides": self.strides,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }


def _output_size(size, taps, stride, padding):
    return -(-size // stride) if padding == "same" else (size - taps) // stride + 1


def _pair(value, name):
    try:
        pair = (value, value) if isinstance(value, numbers.Integral) else tuple(value)
    except TypeError:
        pair = ()
    if len(pair) != 2 or not all(map(_is_count, pair)):
        raise UsageError(f"{name} must be a positive int or a pair of them. Received: {value!r}")
    return tuple(map(int, pair))


def _is_count(value):
    return isinstance(value, numbers.Integral) and value > 0
