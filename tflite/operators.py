"""Splits a .tflite file into files of one operator each."""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.flatbuffer import operator_name, pack, unpack


def single_operators(content):
    """Returns {title: bytes of a file} of the operators that run in each inference, in order.

    A title consists of the operator's position, its name, and the shape of its first output, such
    as "3 CONV_2D 1x16x16x32". The inputs of a file are the operator's inputs that are not
    constants, each once, in the operator's order.

    Args:
        content: bytes of a .tflite file, of which the first subgraph is used.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    files = {}
    for position, operator in enumerate(graph.operators):
        used = (int(index) for index in operator.inputs if index >= 0)
        inputs = [index for index in used if not _is_constant(model, graph, index)]
        if inputs:  # an operator of constants runs once, when the file is loaded
            code = model.operatorCodes[operator.opcodeIndex]
            shape = "x".join(map(str, graph.tensors[operator.outputs[0]].shape))
            title = f"{position} {operator_name(code)} {shape}"
            files[title] = pack(_alone(model, graph, operator, inputs))
    return files


def _is_constant(model, graph, index):
    data = model.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0


def _alone(model, graph, operator, inputs):
    """Returns the `schema.ModelT` of one operator, whose inputs are these tensors of `graph`."""
    used = [int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
    indices = {old: new for new, old in enumerate(dict.fromkeys(used))}
    buffers, tensors = [schema.BufferT()], []  # the first means: no data
    for old in indices:
        tensor = copy.copy(graph.tensors[old])
        if _is_constant(model, graph, old):
            buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = len(buffers) - 1
        else:
            tensor.buffer = 0
        tensors.append(tensor)

    def renumbered(numbers):
        return np.array([indices.get(int(number), -1) for number in numbers], np.int32)

    single = copy.copy(operator)
    single.opcodeIndex = 0
    single.inputs, single.outputs = renumbered(operator.inputs), renumbered(operator.outputs)
    part = schema.SubGraphT()
    part.tensors, part.operators = tensors, [single]
    part.inputs, part.outputs = renumbered(dict.fromkeys(inputs)), single.outputs
    alone = schema.ModelT()
    alone.version, alone.buffers, alone.subgraphs = model.version, buffers, [part]
    alone.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    return alone
