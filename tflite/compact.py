"""Removes redundant data from a .tflite file, and what depends on how the converter was called.

In a quantized file, the converter writes a shared constant once for each operator that uses it. It
writes a scale and a zero point for every channel even if they are equal, and gives intermediate
tensors long names, paths through the Keras model. In a periodic network, whose shifts share
constants and which has many small operators, all this is a third of an int8 file. The converter
also records in the file how it was called, so the same network would be other bytes.
"""

import numpy as np

from tflite.flatbuffer import pack, unpack

_KEPT_METADATA = (b"min_runtime_version", b"tfsparse")


def compact(content):
    """Returns the bytes of a .tflite file that computes the same as `content`, and is smaller.

    Args:
        content: bytes of a file with one graph.
    """
    model = unpack(content)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            _quantize_as_a_whole(tensor)
        _share_constants(graph, model.buffers)
        _drop_unused_tensors(graph, model.signatureDefs or ())
        names = _names(graph)
        for index, tensor in enumerate(graph.tensors):
            tensor.name = names.get(index, b"")
    model.metadata = [entry for entry in model.metadata or () if entry.name in _KEPT_METADATA]
    drop_unused_buffers(model)
    return pack(model)


def _names(graph):
    """Returns {tensor: name} of inputs and outputs; the converter's count Keras' tensors."""
    return {
        int(index): f"{kind}_{position}".encode()
        for kind, indices in (("input", graph.inputs), ("output", graph.outputs))
        for position, index in enumerate(indices)
    }


def _quantize_as_a_whole(tensor):
    """Stores scale and zero point once if they are the same for all channels."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) < 2:
        return
    scale, zero_point = np.unique(quantization.scale), np.unique(quantization.zeroPoint)
    if len(scale) == len(zero_point) == 1:
        quantization.scale, quantization.zeroPoint = scale, zero_point
        quantization.quantizedDimension = 0


def _share_constants(graph, buffers):
    """Makes every operator read the first of all equal constants."""
    first, same = {}, {}
    for index, tensor in enumerate(graph.tensors):
        data = buffers[tensor.buffer].data
        if data is None or tensor.isVariable or tensor.sparsity is not None:
            continue
        quantization = tensor.quantization
        numbers = (
            ()
            if quantization is None
            else (quantization.scale, quantization.zeroPoint, quantization.quantizedDimension)
        )
        key = (
            tensor.type,
            _bytes(tensor.shape),
            _bytes(data),
            *(_bytes(each) for each in numbers),
        )
        same[index] = first.setdefault(key, index)
    for operator in graph.operators:
        operator.inputs = np.array([same.get(index, index) for index in operator.inputs], np.int32)


def _bytes(values):
    return None if values is None else np.asarray(values).tobytes()


def _drop_unused_tensors(graph, signatures):
    used = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        for indices in (operator.inputs, operator.outputs, operator.intermediates):
            used.update(() if indices is None else indices)
    used = sorted(used - {-1})  # -1: an absent optional input
    new = {int(old): index for index, old in enumerate(used)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in used]

    def renumber(indices):
        return None if indices is None else np.array([new[int(i)] for i in indices], np.int32)

    graph.inputs, graph.outputs = renumber(graph.inputs), renumber(graph.outputs)
    for operator in graph.operators:
        operator.inputs, operator.outputs = renumber(operator.inputs), renumber(operator.outputs)
        operator.intermediates = renumber(operator.intermediates)
    for signature in signatures:
        for each in [*signature.inputs, *signature.outputs]:
            each.tensorIndex = new[each.tensorIndex]


def drop_unused_buffers(model):
    """Removes the buffers of a `schema.ModelT` that neither a tensor nor metadata uses."""
    used = {0, *(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)}
    used.update(each.buffer for each in model.metadata or ())
    used = sorted(used)
    new = {old: index for index, old in enumerate(used)}
    model.buffers = [model.buffers[index] for index in used]
    for each in [*(t for graph in model.subgraphs for t in graph.tensors), *(model.metadata or ())]:
        each.buffer = new[each.buffer]
