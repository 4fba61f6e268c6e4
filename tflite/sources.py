"""The C++ sources that make a .tflite file part of a TFLM project."""

import json
import pathlib
import string

import numpy as np

from tflite.flatbuffer import operator_name, unpack

_FILES = (
    *("model.h", "model.cc", "operators.h"),
    *("test_data.h", "test_data.cc", "self_test.h", "self_test.cc"),
)
# Operators whose method in MicroMutableOpResolver is not named as `_camel_case` would.
_METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "TFLM_DECODE": "Decode",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}


def operator_names(content):
    """Returns the names of the operators that a file uses, a sorted list of str."""
    model = unpack(content)
    used = {int(operator.opcodeIndex) for operator in model.subgraphs[0].operators}
    return sorted({operator_name(model.operatorCodes[index]) for index in used})


def sources(content, source, target, arena_bytes, inputs, outputs, labels=None):
    """Returns {file name: text} of a model, its resolver, test data, and a self-test.

    Args:
        content: bytes of the .tflite file.
        source, target: `tflite.runtimes.Tensor`s of its input and output, int8.
        arena_bytes: size of the arena.
        inputs, outputs: int8 arrays [n, ...]: images and the model's outputs for them.
        labels: names of the classes in the order of the outputs, or None.
    """
    values = {
        "arena": arena_bytes,
        "shape": ", ".join(map(str, source.shape)),
        "classes": target.shape[1],
        "input_scale": repr(float(source.scale)),
        "input_zero_point": source.zero_point,
        "output_scale": repr(float(target.scale)),
        "output_zero_point": target.zero_point,
        "names": _class_names(labels) if labels else "",
        "size": len(content),
        "data": listing(np.frombuffer(content, np.uint8)),
        "operators": len(operator_names(content)),
        "calls": _calls(operator_names(content)),
        "count": len(inputs),
        "input": inputs[0].size,
        "output": outputs[0].size,
        "inputs": row_listing(inputs),
        "outputs": row_listing(outputs),
    }
    return {name: fill(name, values) for name in _FILES}


def fill(name, values):
    """Returns the text of a template in tflite/templates/ with `values`, a dict, filled in."""
    return string.Template(template(name)).substitute(values)


def template(name):
    """Returns the text of a template in tflite/templates/."""
    return (pathlib.Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _class_names(labels):
    names = ",\n".join(f"    {json.dumps(label, ensure_ascii=False)}" for label in labels)
    return f"constexpr const char* kClassNames[kClasses] = {{\n{names}}};\n"


def _calls(names):
    methods = [_METHODS.get(name) or _camel_case(name) for name in names]
    return "\n".join(f"  TF_LITE_ENSURE_STATUS(resolver.Add{method}());" for method in methods)


def _camel_case(name):
    """CONV_2D -> Conv2D."""
    return "".join(part if part[0].isdigit() else part.capitalize() for part in name.split("_"))


def listing(values):
    """Returns the numbers of an array as lines of C, without braces."""
    numbers = [str(int(value)) for value in values]
    lines = [", ".join(numbers[i : i + 20]) for i in range(0, len(numbers), 20)]
    return "    " + ",\n    ".join(lines)


def row_listing(values):
    """Returns the rows of an array as the inner braces of an array of arrays in C."""
    return ",\n".join("    {\n" + listing(row.ravel()) + "}" for row in values)
