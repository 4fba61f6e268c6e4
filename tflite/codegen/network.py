"""An int8 .tflite file as a list of layers over stored tensors.

The operators of the file are taken in order. What each tensor is, is known as a `Value`: for each
of its numbers the place where it is stored, and a table through which it is still to be looked up.
So operators that only move numbers cost nothing: they change places. Whatever computes asks for
its input as a stored tensor. If the input's numbers lie elsewhere,

- a convolution is rewritten as one over the tensor where they lie, if there is one
  (tflite/codegen/windows.py);
- a channel-wise operator takes its weights, and what follows takes its channels, in the order in
  which they are stored;
- otherwise they are copied.

Convolutions of one tensor that are concatenated become one convolution, in which each filter keeps
its own taps. So a periodic layer that was converted to many small convolutions becomes one again,
as does a grouped convolution.
"""

import dataclasses
import textwrap

import numpy as np

from tflite.codegen import convolutions, layers
from tflite.codegen.layers import Layer
from tflite.codegen.movement import MOVEMENTS, move
from tflite.codegen.packing import Convolution
from tflite.codegen.reading import read
from tflite.codegen.softmax import exponentials
from tflite.codegen.storage import CONSTANT, TENSOR, Storage, Value
from tflite.codegen.value_tables import value_table
from tflite.codegen.windows import PADDING, find_window, without_border
from tfsparse.errors import UsageError


@dataclasses.dataclass
class Network:
    """What a file computes.

    Attributes:
        layers: list of `layers.Layer`s in the order in which they run.
        shapes: (height, width, channels) of each stored tensor; 0 is the image.
        target: index of the tensor of logits.
        graph: the `reading.Graph`.
    """

    layers: list
    shapes: list
    target: int
    graph: object

    def size(self, tensor):
        """Returns the bytes of a stored tensor."""
        return int(np.prod(self.shapes[tensor]))


def read_network(content):
    """Returns the `Network` of an int8 .tflite file's bytes.

    Raises:
        UsageError: if the file is no such file or has an operator for which there is no kernel.
    """
    graph = read(content)
    try:
        builder = _Builder(graph)
        for operator in graph.operators:
            builder.add(operator)
        return builder.network()
    except UsageError:
        raise
    except Exception as error:  # shapes and constants that contradict each other can break anything
        reason = textwrap.shorten(str(error), 200)
        raise UsageError(f"The file contradicts itself: {reason}. It may be damaged.") from error


class _Builder:
    def __init__(self, graph):
        self.graph = graph
        self.storage, self.values = Storage(), {}
        self._define(graph.source, self.storage.new(graph.tensors[graph.source].shape))

    def network(self):
        value = self.storage.stored(self.values[self.graph.target], "the output")
        target = self.storage.tensor_of(value)
        written = [layer for layer in self.storage.layers if layer.output == target]
        is_read = any(target in layer.inputs for layer in self.storage.layers)
        if not written or is_read or self.storage.layers[-1].output != target:
            target = self.storage.copy(value, "the output")
        return Network(self.storage.layers, self.storage.shapes, target, self.graph)

    # ---- operators ----

    def add(self, operator):
        name = operator.name
        table = value_table(self.graph, operator)
        if table is not None:
            self._look_up(operator, table)
        elif name in MOVEMENTS:
            self._move(operator)
        elif name in _METHODS:
            self._check(operator)
            _METHODS[name](self, operator)
        else:
            remedy = (
                "Convert the model with a batch of one, or with tfsparse convert."
                if name == "SHAPE"  # of a Flatten whose batch is not fixed
                else "Use convolutions, fully connected layers, sums, pooling, and activations. A "
                "Keras model may use the runtime tflm."
            )
            raise UsageError(f"There is no C kernel for {operator.title}. {remedy}")

    def _check(self, operator):
        kinds = [self.graph.tensors[index] for index in (operator.inputs[0], *operator.outputs)]
        if any(each.dtype != np.int8 or len(each.scales) != 1 for each in kinds):
            raise UsageError(f"{operator.title} does not compute in int8. Convert it to int8.")
        if any(each.shape[:1] != (1,) for each in kinds):
            raise UsageError(f"{operator.title} takes a batch. Convert the model for one image.")

    def _look_up(self, operator, table):
        (source,) = (i for i in operator.inputs if self.graph.tensors[i].data is None)
        places, before = self.values[source]
        table = table.T  # [channels, 256]
        if before is not None:
            rows = np.arange(max(len(table), len(before)))[:, None]
            table = table[rows % len(table), before[rows[:, 0] % len(before)].astype(int) + 128]
        same = len(table) == 1 or (table == table[:1]).all()
        self.values[operator.outputs[0]] = Value(places, table[:1] if same else table)

    def _move(self, operator):
        tensors = [self.graph.tensors[index] for index in operator.inputs]
        moved = [index for index in operator.inputs if index in self.values]
        kinds = {self.graph.tensors[index].quantization for index in (*moved, *operator.outputs)}
        if len(kinds) != 1 or any(
            each.data is None and index not in self.values
            for each, index in zip(tensors, operator.inputs, strict=True)
        ):
            raise UsageError(
                f"{operator.title} has inputs of different scales, which is not supported."
            )
        if operator.name == "CONCATENATION":
            self._merge(operator)
        tables = [self.values[index].table for index in moved]
        keep = all(each is None for each in tables) or (
            len(moved) == 1 and not operator.name.startswith("PAD") and len(tables[0]) == 1
        )
        values = {
            index: self.values[index] if keep else self.storage.looked_up(self.values[index])
            for index in moved
        }
        arrays = [values[index].places if index in values else None for index in operator.inputs]
        results = move(self.graph, operator, arrays, lambda number: CONSTANT + number)
        for index, places in zip(operator.outputs, results, strict=True):
            value = Value(places, tables[0] if keep and tables else None)
            if operator.name == "CONCATENATION" and len(self.storage.sources(places)) > 1:
                value = self.storage.stored(value, operator.title)
            self.values[index] = value

    def _convolution(self, operator):
        made = convolutions.convolution(self.graph, operator)
        value = self.storage.looked_up(self.values[operator.inputs[0]])
        if made.depthwise:
            self._depthwise(operator, made, value)
        else:
            self._emit_convolution(operator, made, value.places[0])

    def _fully_connected(self, operator):
        source, kernel, output = (
            self.graph.tensors[index]
            for index in (operator.inputs[0], operator.inputs[1], operator.outputs[0])
        )
        weights = self.graph.constant(operator, 1)
        outputs, inputs = weights.shape
        has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
        bias = self.graph.constant(operator, 2) if has_bias else np.zeros(outputs, np.int32)
        value = self.storage.looked_up(self.values[operator.inputs[0]])
        if value.places.size != inputs:
            raise UsageError(f"{operator.title} takes several vectors, which is not supported.")
        tensor, order = self.storage.permuted(value.places.reshape(1, 1, -1))
        if tensor is None:
            tensor, order = self.storage.copy(value, operator.title), None
        if order is not None:
            weights = weights[:, np.argsort(order)]
        activation = operator.options.fusedActivationFunction
        made = layers.connection(source, kernel, output, weights, bias, activation)
        self._emit(operator, made, (tensor,))

    def _emit_convolution(self, operator, made, places):
        """Adds a convolution of the numbers at `places`, [height, width, channels]."""
        tensor = self.storage.whole(places)
        if tensor is None:
            source, window = self._window(made, places)
            if window is not None:
                tensor, made = (
                    source,
                    convolutions.over_window(made, window, self.storage.shapes[source]),
                )
            else:
                tensor = self.storage.copy(Value(places), operator.title)
        self._emit(operator, made, (tensor,))

    def _window(self, made, places):
        """Returns `(tensor, Window)` of a convolution of `places`, or `(None, None)`."""
        sources = self.storage.sources(places)
        constants = np.unique(places[places < 0]) - CONSTANT
        if len(sources) != 1 or (constants != made.input_zero_point).any():
            return None, None
        window = find_window(
            np.where(places < 0, PADDING, places - sources[0] * TENSOR),
            self.storage.shapes[sources[0]],
            made.weights.shape[1:3],
            made.stride,
            made.padding,
            made.output_shape[:2],
        )
        return sources[0], window

    def _depthwise(self, operator, made, value):
        taps = convolutions.shifted_taps(made)
        if taps is not None:
            self._define_shifted(operator, made, value.places[0], taps)
            return
        tensor, order, made = self._channel_wise(operator, made, value)
        output = self._emit(operator, made, (tensor,), define=False)
        self._define(operator.outputs[0], output, order)

    def _define_shifted(self, operator, made, places, taps):
        """Defines the output of a layer that copies one tap of each channel."""
        rows, columns, channels = made.output_shape
        after = [
            max(0, (count - 1) * stride + kernel - size - before)
            for count, stride, kernel, size, before in zip(
                (rows, columns),
                made.stride,
                made.weights.shape[1:3],
                made.input_shape[:2],
                made.padding,
                strict=True,
            )
        ]
        pads = [(made.padding[0], after[0]), (made.padding[1], after[1]), (0, 0)]
        padded = np.pad(places, pads, constant_values=CONSTANT + made.input_zero_point)
        index = np.ix_(*(np.arange(count) for count in (rows, columns, channels)))
        read = padded[
            index[0] * made.stride[0] + taps[0], index[1] * made.stride[1] + taps[1], index[2]
        ]
        self.values[operator.outputs[0]] = Value(read[None])

    def _channel_wise(self, operator, made, value):
        """Returns `(tensor, order, convolution)` of a depthwise convolution of a `Value`.

        If the value is a stored tensor with its channels in another order, the convolution takes
        them as they are stored, and channel i of the operator's output is channel order[i].
        Otherwise, order is None. Paddings become the convolution's own.
        """
        places = value.places[0]
        inner, pads = without_border(places, CONSTANT + made.input_zero_point)
        tensor, order = self.storage.permuted(inner)
        if tensor is None:
            return self.storage.copy(value, operator.title), None, made
        padding = tuple(a + b for a, b in zip(made.padding, pads, strict=True))
        made = dataclasses.replace(made, input_shape=inner.shape, padding=padding)
        if order is not None:
            back = np.argsort(order)
            fields = {name: getattr(made, name)[back] for name in ("bias", "multiplier", "shift")}
            made = dataclasses.replace(made, weights=made.weights[..., back], **fields)
        return tensor, order, made

    def _pooling(self, operator):
        source, output = (
            self.graph.tensors[index] for index in (operator.inputs[0], operator.outputs[0])
        )
        if source.quantization != output.quantization:
            raise UsageError(f"{operator.title} changes the scale, which is not supported.")
        options = operator.options
        window = options.filterHeight, options.filterWidth
        stride = options.strideH, options.strideW
        top, left = convolutions.paddings(
            options.padding, source.shape, output.shape, (1, *window), stride
        )
        low, high = layers.activation_range(options.fusedActivationFunction, *output.quantization)
        names = "input_height input_width channels output_height output_width window_height "
        names += "window_width stride_height stride_width pad_top pad_left activation_min "
        names += "activation_max"
        numbers = (*source.shape[1:], *output.shape[1:3], *window, *stride, top, left, low, high)
        kind = "max" if operator.name == "MAX_POOL_2D" else "average"
        made = layers.Pooling(kind, dict(zip(names.split(), numbers, strict=True)))
        self._of_channels(operator, made)

    def _mean(self, operator):
        source, output = (
            self.graph.tensors[index] for index in (operator.inputs[0], operator.outputs[0])
        )
        axes = {int(axis) % len(source.shape) for axis in self.graph.constant(operator, 1).ravel()}
        if len(source.shape) != 4 or axes != {1, 2}:
            raise UsageError(
                f"{operator.title} is not the mean of an image's pixels, which alone is supported."
            )
        height, width, channels = source.shape[1:]
        self._of_channels(operator, layers.mean(source, output, height * width, channels))

    def _of_channels(self, operator, made):
        """Adds a layer that treats all channels alike, so that their order does not matter."""
        value = self.storage.looked_up(self.values[operator.inputs[0]])
        tensor, order = self.storage.permuted(value.places[0])
        if tensor is None:
            tensor, order = self.storage.copy(value, operator.title), None
        output = self._emit(operator, made, (tensor,), define=False)
        self._define(operator.outputs[0], output, order)

    def _softmax(self, operator):
        source, output = (
            self.graph.tensors[index] for index in (operator.inputs[0], operator.outputs[0])
        )
        count = source.shape[-1]
        if np.prod(source.shape) != count or output.quantization != (1 / 256, -128) or count > 511:
            raise UsageError(
                f"{operator.title} is supported for one vector of up to 511 numbers and outputs "
                f"in steps of 1/256. Received: {source.shape}, {output.scale}"
            )
        value = self.storage.stored(self.values[operator.inputs[0]], operator.title)
        made = layers.Softmax(exponentials(source.scale, operator.options.beta), count)
        self._emit(operator, made, (self.storage.tensor_of(value),))

    def _addition(self, operator):
        sources = [self.graph.tensors[index] for index in operator.inputs]
        output = self.graph.tensors[operator.outputs[0]]
        if any(source.shape != output.shape or source.data is not None for source in sources):
            raise UsageError(
                f"{operator.title} adds tensors of different shapes, or a constant that is not one "
                "number for each channel, which is not supported."
            )
        made = layers.addition(*sources, output, operator.options.fusedActivationFunction)
        inputs = tuple(
            self.storage.tensor_of(self.storage.stored(self.values[index], operator.title))
            for index in operator.inputs
        )
        self._emit(operator, made, inputs)

    def _merge(self, operator):
        """Makes one convolution of those whose filters an operator concatenates, if it can."""
        found = [self._unread_convolution(index) for index in operator.inputs]
        rank = len(self.graph.tensors[operator.outputs[0]].shape)
        if None in found or operator.options.axis % rank != rank - 1 or rank != 4:
            return
        if len({layer.inputs for layer in found}) > 1 or len(set(map(id, found))) < len(found):
            return
        made = convolutions.merged([layer.operation for layer in found])
        if made is None:
            return
        self.storage.layers = [
            layer for layer in self.storage.layers if not any(layer is each for each in found)
        ]
        title = " + ".join(layer.title for layer in found)
        output = self.storage.new((1, *made.output_shape))
        self.storage.layers.append(Layer(made, found[0].inputs, output, title))
        start, places = 0, self.storage.places(output, (1, *made.output_shape))
        for index in operator.inputs:
            stop = start + self.graph.tensors[index].shape[3]
            self.values[index] = Value(places[..., start:stop])
            start = stop

    def _unread_convolution(self, index):
        """Returns the convolution that alone makes a tensor that one operator reads, or None."""
        value = self.values[index]
        if value.table is not None or self.graph.readers(index) > 1:
            return None
        tensor = self.storage.whole(value.places)
        made = [layer for layer in self.storage.layers if layer.output == tensor]
        is_read = any(tensor in layer.inputs for layer in self.storage.layers)
        if tensor is None or not made or is_read:
            return None
        return made[0] if isinstance(made[0].operation, Convolution) else None

    # ---- definitions ----

    def _define(self, index, tensor, order=None):
        """Says that a tensor of the file is a stored one, or one with its channels reordered."""
        places = self.storage.places(tensor, self.graph.tensors[index].shape)
        self.values[index] = Value(places if order is None else places[..., order])

    def _emit(self, operator, operation, inputs, define=True):
        output = self.storage.new(self.graph.tensors[operator.outputs[0]].shape)
        title = f"{operator.name} {operator.position}"
        self.storage.layers.append(Layer(operation, inputs, output, title))
        if define:
            self._define(operator.outputs[0], output)
        return output


_METHODS = {
    "ADD": _Builder._addition,
    "AVERAGE_POOL_2D": _Builder._pooling,
    "CONV_2D": _Builder._convolution,
    "DEPTHWISE_CONV_2D": _Builder._convolution,
    "FULLY_CONNECTED": _Builder._fully_connected,
    "MAX_POOL_2D": _Builder._pooling,
    "MEAN": _Builder._mean,
    "SOFTMAX": _Builder._softmax,
}
