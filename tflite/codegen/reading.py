"""An int8 .tflite file as a list of operators, checked."""

import dataclasses
import math
import textwrap

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.flatbuffer import operator_name, unpack
from tfsparse.errors import UsageError

_MOST_NUMBERS = 1 << 26  # of a tensor; what a microcontroller runs is far smaller
_TYPES = {
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        shape: tuple of int.
        dtype: NumPy's type of its numbers.
        scales: float64 array of one scale, or one for each channel; empty if not quantized.
        zero_point: the number that stands for 0.
        data: the numbers of a constant, an array of `shape`, or None.
    """

    shape: tuple
    dtype: type
    scales: np.ndarray
    zero_point: int
    data: np.ndarray | None

    @property
    def scale(self):
        """The one scale of a tensor that has no scales of channels, a float."""
        return float(self.scales[0])

    @property
    def quantization(self):
        """Scale and zero point: tensors of equal ones can share their numbers."""
        return self.scale, self.zero_point


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator of a file; `inputs` and `outputs` are indices of tensors, -1 for none."""

    position: int
    name: str
    inputs: tuple
    outputs: tuple
    options: object  # the schema's

    @property
    def title(self):
        """The name in messages: "CONV_2D (operator 3)"."""
        return f"{self.name} (operator {self.position})"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A file: its tensors, its operators in the order in which they run, its input and output.

    `model` is the `schema.ModelT` that all of it was read from.
    """

    tensors: list
    operators: list
    source: int
    target: int
    model: object

    def constant(self, operator, position):
        """Returns the numbers of a constant input of an operator.

        Raises:
            UsageError: if it is computed at run time.
        """
        data = self.tensors[operator.inputs[position]].data
        if data is None:
            raise UsageError(
                f"{operator.title} has an input that is computed at run time where a constant is "
                "expected. Convert the model with fixed shapes."
            )
        return data

    def readers(self, index):
        """Returns how many operators read a tensor; the output of the file counts as one more."""
        count = sum(index in operator.inputs for operator in self.operators)
        return count + (index == self.target)


def read(content):
    """Returns the `Graph` of a .tflite file's bytes.

    Raises:
        UsageError: if this is no .tflite file of one graph with one input and one output in int8.
    """
    try:
        if content[4:8] != b"TFL3":
            raise ValueError("its identifier is not TFL3")
        model = unpack(content)
        (subgraph,) = model.subgraphs
        (source,), (target,) = map(list, (subgraph.inputs, subgraph.outputs))
        tensors = [_tensor(model, tensor) for tensor in subgraph.tensors]
        operators = [
            _operator(model, position, operator)
            for position, operator in enumerate(subgraph.operators)
        ]
        graph = Graph(tensors, operators, int(source), int(target), model)
        types = [subgraph.tensors[index].type for index in (graph.source, graph.target)]
    except Exception as error:  # arbitrary bytes can break the parser anywhere
        reason = textwrap.shorten(str(error), 200)
        raise UsageError(
            f"Cannot read the file: {reason}. It must be a .tflite file of one graph, with one "
            "input and one output."
        ) from error
    if types != [schema.TensorType.INT8] * 2:
        raise UsageError(
            "C is generated from files in int8, input and output included. Convert the model with "
            f"`tfsparse convert --precision=int8`. Received: {_names_of(types)}"
        )
    return graph


def _names_of(types):
    names = {number: name.lower() for name, number in vars(schema.TensorType).items()}
    return " and ".join(names.get(number, "another type") for number in types)


def _tensor(model, tensor):
    dtype, data = _TYPES.get(tensor.type), model.buffers[tensor.buffer].data
    shape = tuple(map(int, tensor.shape)) if tensor.shape is not None else ()
    if min(shape, default=1) < 1 or math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"it has a tensor of shape {shape}")
    quantization = tensor.quantization
    is_quantized = quantization is not None and quantization.scale is not None
    if tensor.sparsity is not None:
        raise ValueError("it stores tensors in TFLite's sparse format")
    constant = None
    if data is not None and len(data) and dtype is not None:
        constant = np.frombuffer(np.asarray(data).tobytes(), dtype).reshape(shape)
    zero_points = quantization.zeroPoint if is_quantized else None
    return Tensor(
        shape,
        dtype,
        np.asarray(quantization.scale if is_quantized else [], np.float64),
        0 if zero_points is None else int(zero_points[0]),
        constant,
    )


def _operator(model, position, operator):
    return Operator(
        position,
        operator_name(model.operatorCodes[operator.opcodeIndex]),
        tuple(map(int, operator.inputs)),
        tuple(map(int, operator.outputs)),
        operator.builtinOptions,
    )
