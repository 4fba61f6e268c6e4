"""The operators of a file, run one by one, against the file."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import zoo
from tflite.benchmark import operator_times
from tflite.convert import convert
from tflite.flatbuffer import unpack
from tflite.operators import single_operators


@pytest.fixture(scope="module", params=["float32", "int8"])
def content(request):
    """ResNet8, whose residual branches read tensors twice, with lowered periodic layers."""
    keras.utils.set_random_seed(0)
    model = zoo.build("resnet8", (16, 16, 3), 10, 64, "PS2_P6_F1")
    images = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
    return convert(model, request.param, images if request.param == "int8" else None)


def run(content, *inputs):
    """Returns the outputs of a file in LiteRT's reference kernels."""
    resolver = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for tensor, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(tensor["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


def test_one_after_the_other_they_are_the_file(content):
    (source,) = Interpreter(model_content=content).get_input_details()
    image = np.random.default_rng(1).integers(0, 128, source["shape"]).astype(source["dtype"])
    (expected,) = run(content, image)
    graph, files = unpack(content).subgraphs[0], single_operators(content)
    values = {int(graph.inputs[0]): image}
    for title, each in files.items():
        operator = graph.operators[int(title.split()[0])]
        inputs = [values[index] for index in dict.fromkeys(operator.inputs) if index in values]
        values[int(operator.outputs[0])] = run(each, *inputs)[0]
    assert len(files) == len(graph.operators) > 17
    np.testing.assert_array_equal(values[int(graph.outputs[0])], expected)
    assert np.unique(expected).size > 3


def test_times(content):
    rows = operator_times(content, seconds=0.05)
    assert [row["operator"] for row in rows] == list(single_operators(content))
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert all(0 < row["minimum_ms"] <= row["median_ms"] for row in rows)
