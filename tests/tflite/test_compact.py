"""A compacted file against the file it was made of, bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite.compact import compact
from tflite.flatbuffer import unpack
from tflite.lowering import lower
from tflite.quiet import quiet
from tfsparse.layers import PeriodicConv2D


def converted(int8, patterns=("PS1_P9", "PS1_P9")):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 72), batch_size=1)
    for pattern in patterns:
        x = PeriodicConv2D(72, 3, pattern, padding="same", activation="relu")(x)
    converter = tf.lite.TFLiteConverter.from_keras_model(lower(keras.Model(image, x)))
    if int8:
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [rng.random((1, 8, 8, 72), np.float32)] for _ in range(3)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet():
        return converter.convert()


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "int8"])
def files(request):
    content = converted(request.param)
    return content, compact(content)


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_REF])
def test_computes_the_same_bits(files, resolver):
    outputs = []
    for content in files:
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
        runner = interpreter.get_signature_runner()
        ((name, details),) = runner.get_input_details().items()
        values = np.random.default_rng(1).integers(0, 100, details["shape"])
        ((_, output),) = runner(**{name: values.astype(details["dtype"])}).items()
        outputs.append(output)
    assert len(np.unique(outputs[0])) > 10
    np.testing.assert_array_equal(*outputs)


def test_is_smaller_and_constants_are_aligned_and_there_once(files):
    before, after = files
    model = schema.Model.GetRootAsModel(after, 0)
    assert len(after) < (0.75 if b"int8" in before else 1) * len(before)
    memory = np.frombuffer(after, np.uint8).__array_interface__["data"][0]
    constants = []
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if isinstance(data, np.ndarray) and len(data) >= 16:
            assert (data.__array_interface__["data"][0] - memory) % 16 == 0
            constants.append(data.tobytes())
    assert len(set(constants)) == len(constants) > 9
    graph = model.Subgraphs(0)
    read = set()
    for index in range(graph.OperatorsLength()):
        read.update(graph.Operators(index).InputsAsNumpy().tolist())
        read.update(graph.Operators(index).OutputsAsNumpy().tolist())
    assert read - {-1} == set(range(graph.TensorsLength())), "no tensor that nothing uses"


def test_how_the_converter_was_called_leaves_no_trace(files):
    before, after = ([entry.name for entry in unpack(content).metadata] for content in files)
    assert b"CONVERSION_METADATA" in before
    assert after == [b"min_runtime_version"]


def test_twice_is_as_once(files):
    assert compact(files[1]) == files[1]
