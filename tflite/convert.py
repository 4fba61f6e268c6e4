"""Keras models as TFLite files.

A file takes one image, [1, h, w, c] in [0, 1] (int8 files: quantized), and returns logits.
`tflite.conversion` also verifies it.
"""

import re
import textwrap

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tflite.compact import compact
from tflite.flatbuffer import operator_name, unpack
from tflite.quiet import quiet
from tflite.routes import find_route
from tflite.verify import check_precision
from tfsparse.errors import UsageError
from tfsparse.evaluation import one_output
from tfsparse.examples import UNIT_RANGE, check_images, check_range, from_unit, interface
from tfsparse.graph import calls, is_plain
from tfsparse.layers import PeriodicConv2D
from tfsparse.precision import full_precision

# Operators of the precisions that need calibration, and the type of their inputs and outputs.
QUANTIZED = {
    "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
    "int16x8": (
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.int16,
    ),
}
# Layers that TensorFlow's converter takes in every precision. If there are others, the float32 file
# is made first: what it refuses, such as LSTM, can end the process in int8.
SAFE_LAYERS = {
    PeriodicConv2D,
    *(
        getattr(keras.layers, name)
        for name in (
            *("InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense"),
            *("BatchNormalization", "Activation", "ReLU", "LeakyReLU", "Softmax"),
            *("Add", "Subtract", "Multiply", "Maximum", "Concatenate", "Dropout"),
            *("MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D"),
            *("Flatten", "Reshape", "Permute", "ZeroPadding2D", "Rescaling"),
        )
    ),
}
SAFE_OPERATIONS = {"GetItem", "Split", "Add", "Subtract", "Multiply", "Relu"}  # of keras.ops
SAME = 1e-4  # of the largest output: what rewriting a network may change by adding in another order
WORTH_SPARSE = 0.95  # of the bytes at most, or a file is not stored in the sparse format


def convert(
    model,
    precision,
    calibration_images=None,
    *,
    float_io=False,
    lowered=True,
    sparse_storage=False,
    input_range=UNIT_RANGE,
):
    """Converts a Keras model to TFLite with builtin operators only and batch size 1.

    tflite/routes.py chooses how each form of sparsity is converted.

    Args:
        model: a Keras model with one input of fixed size, [n, h, w, c] in `input_range`, and one
            output, [n, classes].
        precision: "float32"; "float16" (weights stored in 16 bits); "dynamic_range" (weights in 8
            bits, activations in float, rounded to 8 bits before each layer); "int8" (weights and
            activations in 8 bits, biases in 32); or "int16x8" (activations in 16 bits).
        calibration_images: float array [n, h, w, c] in `input_range` whose activations set the
            ranges of an int8 or int16x8 file; only these need them.
        float_io: whether input and output of an int8 or int16x8 file are float; those of the other
            files always are.
        lowered: whether periodic layers may become small convolutions.
        sparse_storage: whether kernels with many zeros are stored without them, with TFLite's
            EXPERIMENTAL_SPARSITY. LiteRT expands them when it loads the file, so the file is not
            faster; TFLM cannot load it. If the file would hardly be smaller, it is stored as usual.
        input_range: smallest and largest value of an image.

    Returns:
        The bytes of the file.

    Raises:
        UsageError: if the model has another interface, weights that are not finite, or an operation
            without a builtin operator.
    """
    check_precision(precision)
    check_model(model)
    input_range = check_range(input_range)
    images = _calibration(precision, calibration_images, model, input_range)
    model = full_precision(model)
    route = find_route(model, arithmetic(precision), lowered)
    check_route(route, model, input_range)
    network = route.network
    if precision != "float32" and not _is_safe(network):
        _converted(network, "float32", None, float_io=False, sparse=False)
    content = _converted(network, precision, images, float_io, sparse=False)
    if sparse_storage:
        sparse = _converted(network, precision, images, float_io, sparse=True)
        if len(sparse) <= WORTH_SPARSE * len(content):
            content = sparse
    return content


def arithmetic(precision):
    """Returns the arithmetic of a file for `tflite.forms`: "int8" or "float"."""
    return "int8" if precision == "int8" else "float"


def check_route(route, model, input_range=UNIT_RANGE):
    """Raises a `UsageError` unless a route's network computes what `model` does, on two images."""
    if route.network is model:
        return
    images = np.random.default_rng(0).random((2, *model.inputs[0].shape[1:]), np.float32)
    images = from_unit(images, input_range)
    expected, found = (
        # One by one: a lowered network has the batch size of a file.
        np.concatenate([one_output(each, image[None]) for image in images])
        for each in (model, route.network)
    )
    scale = np.abs(expected).max(where=np.isfinite(expected), initial=0) or 1.0
    if not np.allclose(found, expected, rtol=0, atol=SAME * scale, equal_nan=True):
        difference = np.abs(found - expected).max() / scale
        raise UsageError(
            f"Rewriting {model.name} for conversion changed its outputs by {difference:.1e} of the "
            f"largest; {SAME:.0e} is allowed. The rewrites: {'; '.join(route.notes)}. This is an "
            "error of tfsparse: please report the model, and try lowered=False."
        )


def _is_safe(network):
    """Whether TensorFlow's converter is known to survive a network in every precision."""
    if not is_plain(network):
        return False
    operations = {call.operation for call in calls(network)}
    return all(
        type(operation) in SAFE_LAYERS
        or isinstance(operation, keras.Model)
        or (not isinstance(operation, keras.Layer) and type(operation).__name__ in SAFE_OPERATIONS)
        for operation in operations
    )


def _calibration(precision, images, model, input_range):
    if precision not in QUANTIZED:
        return None
    if images is None:
        raise UsageError(f"{precision} needs calibration_images. Received: None")
    check_images(images, interface(model)[0], input_range)
    return np.asarray(images, np.float32)


def _converted(network, precision, calibration_images, float_io, sparse):
    function = None
    try:
        with quiet():
            function = _frozen(network)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
            _set_precision(converter, precision, calibration_images, float_io, sparse)
            content = converter.convert()
    except Exception as error:  # anything that a layer or the converter can raise
        raise UsageError(
            f"Cannot convert the model to {precision}. {_reason(error, function)}"
        ) from error
    _check_file(content, precision)
    return compact(content)


def _frozen(network):
    """Returns a concrete function of one image, with the weights of `network` as constants.

    `TFLiteConverter.from_keras_model` would write a SavedModel of all layers and read it again,
    which takes several times as long as the conversion itself.
    """
    # A dynamic batch would add operators that compute shapes and split XNNPACK's partition.
    image = tf.TensorSpec((1, *network.inputs[0].shape[1:]), tf.float32, name="image")
    function = tf.function(lambda x: {"output_0": one_output(network, x)}, autograph=False)
    return convert_variables_to_constants_v2(function.get_concrete_function(image))


def check_model(model):
    """Raises a `UsageError` unless `model` has an interface and weights that can be converted."""
    shape, outputs = interface(model)
    if None in (*shape, outputs):
        raise UsageError(
            "Conversion needs a model with images and logits of known size. Received: "
            f"{shape} to {outputs}"
        )
    for weight in model.weights:
        # Calibration and quantization make plausible files of models that diverged.
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise UsageError(f"The weight {weight.path} is not finite. Use an earlier checkpoint.")


def _set_precision(converter, precision, calibration_images, float_io, sparse):
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    optimizations = {
        tf.lite.Optimize.EXPERIMENTAL_SPARSITY: sparse,
        tf.lite.Optimize.DEFAULT: precision != "float32",
    }
    converter.optimizations = [each for each, wanted in optimizations.items() if wanted]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in QUANTIZED:
        converter.representative_dataset = lambda: ([image[None]] for image in calibration_images)
        operators, io = QUANTIZED[precision]
        converter.target_spec.supported_ops = [operators]
        if not float_io:
            converter.inference_input_type = converter.inference_output_type = io


def _reason(error, function):
    """Returns an error of the converter as one line that names the operations of `function`."""
    missing = set(re.findall(r"'tf\.(\w+)' op is neither", str(error)))
    nodes = function.graph.as_graph_def().node if function else []
    operations = [f"{node.op} at {node.name}" for node in nodes if node.op in missing]
    if operations:
        return f"No builtin TFLite operator for: {', '.join(operations)}"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)


def _check_file(content, precision):
    """Raises a `UsageError` if there are custom operators, or float layers in a quantized file."""
    model = unpack(content)
    custom = [code.customCode.decode() for code in model.operatorCodes if code.customCode]
    if custom:
        raise UsageError(f"No builtin TFLite operator for: {', '.join(custom)}")
    if len(model.subgraphs) > 1:
        raise UsageError(
            "The model has loops or branches, whose operators are in graphs of their own in the "
            f"file. Convert one without. Received: {len(model.subgraphs)} graphs"
        )
    if precision not in QUANTIZED:
        return
    graph = model.subgraphs[0]
    edges = {*graph.inputs, *graph.outputs}
    floats = {
        index
        for index, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and index not in edges
    }
    if floats:
        names = [operator_name(code) for code in model.operatorCodes]
        found = {
            f"{names[each.opcodeIndex]} at {graph.tensors[each.outputs[0]].name.decode()}": None
            for each in graph.operators
            if not floats.isdisjoint((*each.inputs, *each.outputs))
            and names[each.opcodeIndex] not in ("QUANTIZE", "DEQUANTIZE")
        }
        raise UsageError(
            f"The converter left {len(floats)} tensors in float: TFLite has no {precision} form of "
            f"{', '.join(list(found)[:3])}. Use other layers there, or the precision "
            "dynamic_range."
        )
