"""Operators that treat each number by itself, as tables of their 256 results.

LiteRT's reference kernels compute the tables, so they are exact for any such operator.
"""

import copy
import textwrap

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.flatbuffer import pack
from tflite.quiet import quiet
from tfsparse.errors import UsageError

with quiet():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

BINARY = ("ADD", "MAXIMUM", "MINIMUM", "MUL", "SUB")  # with a constant
UNARY = (
    *("ABS", "ELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG", "QUANTIZE", "RELU", "RELU6"),
    *("RELU_0_TO_1", "RELU_N1_TO_1", "SQRT", "RSQRT", "SQUARE", "TANH", "GELU"),
)
CODES = np.arange(-128, 128).astype(np.int8)


def value_table(graph, operator):
    """Returns the results of an operator for the numbers -128 to 127, or None.

    Args:
        graph: the `tflite.codegen.reading.Graph`.
        operator: its `Operator`.

    Returns:
        int8 array [256, 1], or [256, channels] if each channel has its own constant; None if the
        operator does not treat each number by itself.

    Raises:
        UsageError: if LiteRT cannot run it.
    """
    sources = [index for index in operator.inputs if graph.tensors[index].data is None]
    constants = [index for index in operator.inputs if graph.tensors[index].data is not None]
    known = operator.name in UNARY or (operator.name in BINARY and len(constants) == 1)
    if not known or len(sources) != 1:
        return None
    tensors = [graph.tensors[index] for index in (*sources, *operator.outputs, *constants)]
    if any(tensor.dtype != np.int8 for tensor in tensors):
        return None
    channels = 1
    for tensor in tensors[2:]:
        if tensor.data.size > 1:
            channels = tensor.shape[-1]
            if tensor.data.size != channels or channels != tensors[0].shape[-1]:
                return None
    shape = (1, 256, 1, channels)
    codes = np.broadcast_to(CODES[None, :, None, None], shape)
    return _run(graph, operator, sources[0], np.ascontiguousarray(codes))[0, :, 0]


def _run(graph, operator, source, codes):
    """Returns the output of one operator for an input of another shape."""
    old = graph.model
    subgraph = schema.SubGraphT()
    tensors, buffers, places = [], [schema.BufferT()], {}
    for index in dict.fromkeys((*operator.inputs, *operator.outputs)):
        tensor = copy.copy(old.subgraphs[0].tensors[index])
        tensor.buffer = 0
        if graph.tensors[index].data is None:
            tensor.shape = np.array(codes.shape, np.int32)
            tensor.shapeSignature = None
        else:
            tensor.buffer = len(buffers)
            buffers.append(old.buffers[old.subgraphs[0].tensors[index].buffer])
        places[index] = len(tensors)
        tensors.append(tensor)
    single = copy.copy(old.subgraphs[0].operators[operator.position])
    code = old.operatorCodes[single.opcodeIndex]
    single.opcodeIndex = 0
    single.inputs, single.outputs = (
        np.array([places[index] for index in indices], np.int32)
        for indices in (operator.inputs, operator.outputs)
    )
    subgraph.tensors, subgraph.operators = tensors, [single]
    subgraph.inputs, subgraph.outputs = np.array([places[source]], np.int32), single.outputs
    model = schema.ModelT()
    model.version, model.buffers, model.subgraphs = old.version, buffers, [subgraph]
    model.operatorCodes = [code]
    try:
        with quiet():
            interpreter = Interpreter(
                model_content=pack(model),
                experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            )
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes)
            interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    except (RuntimeError, ValueError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise UsageError(f"LiteRT cannot run {operator.title}: {reason}") from error
