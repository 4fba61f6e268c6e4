"""Stores kernels without their zeros in files for TFLM, which expands them at run time.

TFLM's custom operator TFLM_DECODE reads a tensor with one bit per weight, which is 1 if the weight
is not zero, and a tensor with the values of the non-zero weights. It writes the whole kernel into
the arena, just before the one operator that reads it. So flash holds no zeros, and the arena holds
the largest kernel beside the activations. LiteRT has no such operator: these files are for TFLM
only.

Format: `DECODE` in the TFLM sources, decode type 2 ("pruning"), version 1. The value tensor begins
with a header of 16 bytes: the type, the version of the header, two zeros, the version of the
decoder, and zeros. Bits are in the order of the weights, the first in the highest bit of a byte.
"""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.compact import compact
from tflite.flatbuffer import operator_name, pack, unpack

CUSTOM_CODE = b"TFLM_DECODE"
HEADER = bytes([2, 1, 0, 0, 1, *[0] * 11])
_READERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_KERNEL = 1  # the index of that input


def compress(content):
    """Returns the bytes of an int8 file in which each kernel is compressed if that saves bytes.

    Its outputs in TFLM are bit-identical to those of `content`. If no kernel is worth it, `content`
    itself is returned.

    Args:
        content: bytes of an int8 .tflite file, as `tflite.convert` makes them.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    names = [operator_name(code) for code in model.operatorCodes]
    operators, encoded = [], {}
    for operator in graph.operators:
        if names[operator.opcodeIndex] in _READERS:
            index = int(operator.inputs[_KERNEL])
            if index not in encoded:
                encoded[index] = _encode(model, graph, index)
            if encoded[index]:
                decode, kernel = _decode(graph, encoded[index], len(names))
                operators.append(decode)
                operator.inputs = np.array(operator.inputs)
                operator.inputs[_KERNEL] = kernel
        operators.append(operator)
    if len(operators) == len(graph.operators):
        return content
    graph.operators = operators
    model.operatorCodes.append(_operator_code())
    smaller = compact(pack(model))  # removes the kernels that no operator reads anymore
    return smaller if len(smaller) < len(content) else content


def _encode(model, graph, index):
    """Adds the tensors of bits and values of tensor `index`, if they are smaller.

    Returns:
        `(bits, values, whole)`: the indices of the two tensors, and the original tensor without
        data; None if the tensor is not compressed.
    """
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.INT8 or data is None:
        return None
    weights = np.asarray(data, np.uint8).view(np.int8)
    # The decoder fills in the zero points. Those of weights are 0, as TFLite's specification asks.
    values, bits = weights[weights != 0], np.packbits(weights != 0)
    if len(HEADER) + len(values) + len(bits) >= len(weights):
        return None
    whole = copy.copy(tensor)
    whole.buffer, whole.name = 0, b""
    values = HEADER + values.tobytes()
    return _add_bytes(model, graph, bits.tobytes()), _add_bytes(model, graph, values), whole


def _add_bytes(model, graph, data):
    """Adds a tensor that holds `data` and returns its index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.type, tensor.shape = schema.TensorType.UINT8, [len(data)]
    tensor.buffer, tensor.name = len(model.buffers) - 1, b""
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _decode(graph, encoded, opcode):
    """Returns an operator that decodes, and the index of the tensor that it writes.

    A decoded tensor exists until the next operator has run, so each reader has its own.
    """
    bits, values, whole = encoded
    graph.tensors.append(copy.copy(whole))
    operator = schema.OperatorT()
    operator.opcodeIndex = opcode
    operator.inputs = np.array([bits, values], np.int32)
    operator.outputs = np.array([len(graph.tensors) - 1], np.int32)
    return operator, len(graph.tensors) - 1


def _operator_code():
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = CUSTOM_CODE, 1
    return code
