"""A differentiable twin of an int8 file: the Keras model that white-box attacks on a file need.

The twin computes with the file's own integers, held in float32, and its outputs are those of
LiteRT's reference kernels, unless a sum exceeds 2^24. In the backward pass, rounding counts as the
identity, and numbers beyond the range of a clip have no gradient: the straight-through estimator of
Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
Computation", 2013, arXiv 1308.3432, as in quantization-aware training (Jacob et al., CVPR 2018,
arXiv 1712.05877, section 3).
"""

import keras
import numpy as np
from keras import ops

from tflite.codegen import layers
from tflite.codegen.network import read_network
from tflite.codegen.packing import Convolution
from tflite.codegen.quantization import requantize
from tflite.codegen.value_tables import CODES


def twin(content):
    """Returns a keras.Model from images to logits that computes as an int8 file does.

    Args:
        content: bytes of an int8 .tflite file.

    Returns:
        A model of float32 images [n, h, w, c], in the range in which the file was calibrated, with
        outputs [n, classes]: the file's, decoded.

    Raises:
        UsageError: if the file is not in int8 or has an operator that `tfsparse micro --runtime=c`
            lacks, too.
    """
    network = read_network(content)
    images = keras.Input(network.shapes[0])
    return keras.Model(images, _QuantizedNetwork(network)(images))


class _QuantizedNetwork(keras.layers.Layer):
    """A `tflite.codegen.network.Network` of batches of images."""

    def __init__(self, network):
        super().__init__()
        self._network = network
        self.trainable = False

    def call(self, images):
        network = self._network
        source, target = (
            network.graph.tensors[index] for index in (network.graph.source, network.graph.target)
        )
        values = {0: _clipped(images / source.scale, source.zero_point, -128, 127)}
        for layer in network.layers:
            inputs = [values[index] for index in layer.inputs]
            result = _FUNCTIONS[type(layer.operation)](layer.operation, *inputs)
            values[layer.output] = ops.reshape(result, (-1, *network.shapes[layer.output]))
        codes = ops.reshape(values[network.target], (-1, network.size(network.target)))
        return target.scale * (codes - target.zero_point)


def _clipped(values, zero_point, low, high):
    """Returns the codes of real numbers, in [low, high]; halves are rounded away from zero."""
    return ops.clip(_rounded(values) + zero_point, low, high)


@ops.custom_gradient
def _straight_through(values, exact):
    """Returns `exact`, with the gradient of `values`.

    `values + ops.stop_gradient(exact - values)` would be off by a rounding error where a compiler
    contracts the product in `values` with the sum, and no longer an integer.
    """

    def gradient(*arguments, upstream=None):
        upstream = arguments[0] if upstream is None else upstream
        return upstream, ops.zeros_like(exact)

    return exact, gradient


def _rounded(values):
    return _straight_through(values, ops.sign(values) * ops.floor(ops.abs(values) + 0.5))


def _factor(multiplier, shift):
    return np.float32(np.ldexp(np.asarray(multiplier, np.float64), np.asarray(shift) - 31))


def _requantized(sums, multiplier, shift):
    """Returns sums times multiplier * 2^(shift - 31), rounded twice, as LiteRT does.

    Float32 cannot tell on which side of a half the product lies, so its result is corrected by the
    sums at which the next one begins.

    Args:
        sums: integers [..., filters].
        multiplier, shift: of all sums, or [filters].
    """
    real = sums * _factor(multiplier, shift)
    steps = _steps(multiplier, shift).astype(np.float32)
    outputs = ops.clip(ops.floor(ops.stop_gradient(real) + 0.5), -254, 254)
    places = ops.cast(outputs, "int32") + 255 + 512 * np.arange(len(steps), dtype=np.int32)
    first, next_ = (ops.take(steps.ravel(), places + offset) for offset in (0, 1))
    outputs += ops.cast(sums >= next_, real.dtype) - ops.cast(sums < first, real.dtype)
    return _straight_through(real, outputs)


def _steps(multiplier, shift):
    """Returns the smallest sums whose results are at least -255 to 256, int64 [filters, 512]."""
    multiplier, shift = (np.atleast_1d(each)[:, None] for each in (multiplier, shift))
    results = np.arange(-255, 257)
    high = np.broadcast_to((1 << 29) >> np.maximum(shift, 0), (len(shift), 512))
    low = -high
    for _ in range(30):
        middle = (low + high) // 2
        reached = requantize(middle, multiplier, shift) >= results
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def _activation(fields):
    return fields["activation_min"], fields["activation_max"]


def _padded(values, top, left, height, width, fill=0.0):
    """Returns [n, height, width, channels]: images below `top` rows and right of `left` columns."""
    values = values[:, : height - top, : width - left]
    below, right = height - top - values.shape[1], width - left - values.shape[2]
    pads = ((0, 0), (top, below), (left, right), (0, 0))
    return ops.pad(values, pads, constant_values=fill)


def _convolution(made, values):
    kept = True if made.kept is None else made.kept
    weights = np.where(kept, made.weights, 0).astype(np.float32)
    spans = [
        (count - 1) * stride + kernel
        for count, stride, kernel in zip(
            made.output_shape, made.stride, weights.shape[1:3], strict=False
        )
    ]
    # The zero point stands for 0, which is what surrounds the image.
    values = ops.reshape(values, (-1, *made.input_shape)) - made.input_zero_point
    values = _padded(values, *made.padding, *spans)
    convolve = ops.depthwise_conv if made.depthwise else ops.conv
    sums = convolve(values, weights.transpose(1, 2, 3, 0), strides=made.stride, padding="valid")
    outputs = _requantized(sums + made.bias.astype(np.float32), made.multiplier, made.shift)
    return _clipped(outputs, made.output_zero_point, *made.activation)


def _connection(made, values):
    values = ops.reshape(values, (-1, made.weights.shape[1]))
    sums = ops.matmul(values, made.weights.T.astype(np.float32)) + made.bias.astype(np.float32)
    outputs = sums * _factor(made.multiplier, 31 - made.shift)
    return _clipped(outputs, made.fields["output_zero_point"], *_activation(made.fields))


def _addition(made, first, second):
    """The file's own sum of int32; in the backward pass, that of the real numbers."""
    fields = made.fields
    exact, real = 0, 0.0
    factor = _factor(fields["multiplier_output"], 20 - fields["shift_output"])
    for name, values in (("1", first), ("2", ops.reshape(second, ops.shape(first)))):
        zero_point, shift = fields[f"zero_point_{name}"], -fields[f"shift_{name}"]
        multiplier = fields[f"multiplier_{name}"]
        table = requantize((CODES.astype(np.int64) - zero_point) << 20, multiplier, shift)
        codes = ops.cast(ops.stop_gradient(values), "int32") + 128
        exact += ops.take(table.astype(np.int32), codes)
        real += (values - zero_point) * (_factor(multiplier, shift) * factor)
    (steps,) = _steps(fields["multiplier_output"], -fields["shift_output"]).astype(np.int32)
    exact = ops.searchsorted(steps, ops.reshape(exact, (-1,)), side="right") - len(steps) // 2
    exact = ops.cast(ops.reshape(exact, ops.shape(real)), real.dtype)
    return ops.clip(
        _straight_through(real, exact) + fields["zero_point_output"], *_activation(fields)
    )


def _pooling(made, values):
    fields = made.fields
    names = ("height", "width")
    window, stride, output = (
        tuple(fields[f"{kind}_{name}"] for name in names) for kind in ("window", "stride", "output")
    )
    spans = [
        (count - 1) * step + size for count, step, size in zip(output, stride, window, strict=True)
    ]
    place = (fields["pad_top"], fields["pad_left"], *spans)
    if made.kind == "max":
        pooled = ops.max_pool(_padded(values, *place, fill=-128.0), window, stride, "valid")
    else:
        inside = _padded(ops.ones_like(values[:1]), *place)
        # Whole numbers, so that halves are halves; padding does not count.
        sums, counts = (
            _rounded(ops.average_pool(each, window, stride, "valid") * (window[0] * window[1]))
            for each in (_padded(values, *place), inside)
        )
        pooled = _quotients(sums, counts)
    return _clipped(pooled, 0, *_activation(fields))


def _quotients(sums, counts):
    """Returns sums / counts, rounded; exact where a compiler multiplies by the reciprocal."""
    twice, signs = 2 * ops.abs(ops.stop_gradient(sums)), ops.sign(sums)
    nearest = ops.floor(twice / (2 * counts) + 0.5)
    rest = twice + counts - 2 * counts * nearest
    nearest += ops.cast(rest >= 2 * counts, sums.dtype) - ops.cast(rest < 0, sums.dtype)
    return _straight_through(sums / counts, signs * nearest)


def _mean(made, values):
    fields = made.fields
    values = ops.reshape(values, (-1, fields["pixels"], fields["channels"]))
    sums = ops.sum(values, axis=1) + fields["bias"]
    outputs = _requantized(sums, fields["multiplier"], fields["shift"])
    return _clipped(outputs, fields["output_zero_point"], -128, 127)


def _look_up(made, values):
    """The table's number, and in the backward pass the slope of the table around it."""
    shape = ops.shape(values)
    channels, table = len(made.table), made.table.astype(np.float32)
    codes = ops.cast(ops.stop_gradient(values), "int32") + 128
    indices = ops.reshape(codes, (-1, channels)) + 256 * np.arange(channels, dtype=np.int32)
    results, slopes = (
        ops.reshape(ops.take(each.ravel(), indices), shape) for each in (table, _slopes(table))
    )
    return _straight_through(slopes * values, results)


def _slopes(table):
    """Returns the mean slopes over four numbers to each side, [channels, 256].

    Next to each other, numbers often have equal results, which would stop the gradient.
    """
    index = np.arange(256)
    low, high = np.maximum(index - 4, 0), np.minimum(index + 4, 255)
    return ((table[:, high] - table[:, low]) / (high - low)).astype(np.float32)


def _softmax(made, values):
    scale = np.log(made.exponentials[255] / made.exponentials[254])  # of one step
    values = ops.reshape(values, (-1, made.count))
    return _clipped(256 * ops.softmax(scale * values, axis=-1), -128, -128, 127)


def _copy(made, *inputs):
    flat = [ops.reshape(each, (-1, int(np.prod(each.shape[1:])))) for each in inputs]
    starts = np.cumsum([0, *(each.shape[1] for each in flat)])
    indices = np.full(made.size, starts[-1])  # of the fill
    for rows in made.rows:
        row, byte = np.ix_(np.arange(rows.rows), np.arange(rows.bytes))
        source = starts[rows.source] + rows.offset + row * rows.pitch + byte
        indices[rows.output_offset + row * rows.output_pitch + byte] = source
    flat.append(ops.full_like(flat[0][:, :1], made.fill or 0))
    return ops.take(ops.concatenate(flat, axis=1), indices.astype(np.int32), axis=1)


_FUNCTIONS = {
    Convolution: _convolution,
    layers.Addition: _addition,
    layers.Connection: _connection,
    layers.Copy: _copy,
    layers.LookUp: _look_up,
    layers.Mean: _mean,
    layers.Pooling: _pooling,
    layers.Softmax: _softmax,
}
