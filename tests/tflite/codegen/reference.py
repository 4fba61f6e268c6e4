"""One operator in LiteRT's reference kernels."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite.flatbuffer import pack

_TYPES = {np.int8: schema.TensorType.INT8, np.int32: schema.TensorType.INT32}


def tensor(shape, scale=None, zero_point=0, dtype=np.int8, data=None, axis=0):
    """Returns the description of a tensor for `run`."""
    return {
        "shape": shape, "scale": scale, "zero_point": zero_point, "dtype": dtype, "data": data,
        "axis": axis,
    }  # fmt: skip


def run(operator, options, inputs, output, values):
    """Returns the int8 output of an operator.

    Args:
        operator: name of a builtin operator.
        options: the `schema` object of its options, or None.
        inputs: tensors, those with data being constants.
        output: the tensor.
        values: arrays of the other inputs, in order.
    """
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph.tensors = [_tensor(model, each) for each in (*inputs, output)]
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 3 if "CONV_2D" in operator else 2
    node = schema.OperatorT()
    node.opcodeIndex, node.outputs = 0, np.array([len(inputs)], np.int32)
    node.inputs = np.arange(len(inputs), dtype=np.int32)
    if options is not None:
        node.builtinOptions = options
        name = type(options).__name__[:-1]
        node.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    variables = [i for i, each in enumerate(inputs) if each["data"] is None]
    graph.operators, graph.outputs = [node], np.array([len(inputs)], np.int32)
    graph.inputs = np.array(variables, np.int32)
    model.subgraphs, model.operatorCodes = [graph], [code]
    interpreter = Interpreter(
        model_content=pack(model), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    for index, value in zip(variables, values, strict=True):
        interpreter.set_tensor(index, value)
    interpreter.invoke()
    return interpreter.get_tensor(len(inputs))


def geometry(size, taps, stride, padding):
    """Returns the number of outputs along an axis, and the padding before the input."""
    if padding == "VALID":
        return (size - taps) // stride + 1, 0
    outputs = -(-size // stride)
    return outputs, max((outputs - 1) * stride + taps - size, 0) // 2


def _tensor(model, description):
    result = schema.TensorT()
    result.shape = np.array(description["shape"], np.int32)
    result.type, result.name, result.buffer = _TYPES[description["dtype"]], b"t", 0
    if description["scale"] is not None:
        scale = np.atleast_1d(np.asarray(description["scale"], np.float32))
        result.quantization = schema.QuantizationParametersT()
        result.quantization.scale = scale
        zeros = np.zeros(len(scale), np.int64) + description["zero_point"]
        result.quantization.zeroPoint = zeros
        result.quantization.quantizedDimension = description["axis"]
    if description["data"] is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(description["data"]).tobytes(), np.uint8)
        model.buffers.append(buffer)
        result.buffer = len(model.buffers) - 1
    return result
