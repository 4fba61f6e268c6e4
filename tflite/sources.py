"""The C++ sources that make a .tflite file part of a TFLM project."""

import json

import numpy as np

from tflite.flatbuffer import operator_name, unpack

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
    return {
        "model.h": _MODEL_H.format(
            arena=arena_bytes,
            shape=", ".join(map(str, source.shape)),
            classes=target.shape[1],
            input_scale=repr(float(source.scale)),
            input_zero_point=source.zero_point,
            output_scale=repr(float(target.scale)),
            output_zero_point=target.zero_point,
            names=_class_names(labels) if labels else "",
        ),
        "model.cc": _MODEL_CC.format(
            size=len(content), data=_array(np.frombuffer(content, np.uint8))
        ),
        "operators.h": _operators(operator_names(content)),
        "test_data.h": _TEST_H.format(
            count=len(inputs), input=inputs[0].size, output=outputs[0].size
        ),
        "test_data.cc": _TEST_CC.format(inputs=_rows(inputs), outputs=_rows(outputs)),
        "self_test.h": _SELF_TEST_H,
        "self_test.cc": _SELF_TEST_CC,
    }


def _class_names(labels):
    names = ",\n".join(f"    {json.dumps(label, ensure_ascii=False)}" for label in labels)
    return f"constexpr const char* kClassNames[kClasses] = {{\n{names}}};\n"


def _operators(names):
    methods = [_METHODS.get(name) or _camel_case(name) for name in names]
    calls = "\n".join(f"  TF_LITE_ENSURE_STATUS(resolver.Add{method}());" for method in methods)
    return _OPERATORS_H.format(count=len(names), calls=calls)


def _camel_case(name):
    """CONV_2D -> Conv2D."""
    return "".join(part if part[0].isdigit() else part.capitalize() for part in name.split("_"))


def _array(values):
    numbers = [str(int(value)) for value in values]
    lines = [", ".join(numbers[i : i + 20]) for i in range(0, len(numbers), 20)]
    return "    " + ",\n    ".join(lines)


def _rows(values):
    return ",\n".join("    {\n" + _array(row.ravel()) + "}" for row in values)


_MODEL_H = """\
// The model, its arena, and its input and output.
#ifndef MODEL_H_
#define MODEL_H_

#include <cstddef>
#include <cstdint>

extern const unsigned char g_model[];
extern const size_t g_model_size;

constexpr size_t kArenaBytes = {arena};

// Input: int8, {shape}. A pixel in [0, 1] becomes round(pixel / kInputScale) + kInputZeroPoint,
// clipped to [-128, 127].
constexpr float kInputScale = {input_scale}f;
constexpr int kInputZeroPoint = {input_zero_point};

// Output: the logit of each class is kOutputScale * (output - kOutputZeroPoint).
constexpr int kClasses = {classes};
constexpr float kOutputScale = {output_scale}f;
constexpr int kOutputZeroPoint = {output_zero_point};
{names}
#endif  // MODEL_H_
"""

_MODEL_CC = """\
#include "model.h"

extern const size_t g_model_size = {size};
alignas(16) extern const unsigned char g_model[] = {{
{data}}};
"""

_OPERATORS_H = """\
// The operators of the model only.
#ifndef OPERATORS_H_
#define OPERATORS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using OperatorResolver = tflite::MicroMutableOpResolver<{count}>;

inline TfLiteStatus RegisterOperators(OperatorResolver& resolver) {{
{calls}
  return kTfLiteOk;
}}

#endif  // OPERATORS_H_
"""

_TEST_H = """\
// Images, and the model's outputs for them with TFLM's reference kernels.
#ifndef TEST_DATA_H_
#define TEST_DATA_H_

#include <cstdint>

constexpr int kTestCount = {count};
constexpr int kInputSize = {input};
constexpr int kOutputSize = {output};

extern const int8_t g_test_inputs[kTestCount][kInputSize];
extern const int8_t g_test_outputs[kTestCount][kOutputSize];

#endif  // TEST_DATA_H_
"""

_TEST_CC = """\
#include "test_data.h"

extern const int8_t g_test_inputs[kTestCount][kInputSize] = {{
{inputs}}};

extern const int8_t g_test_outputs[kTestCount][kOutputSize] = {{
{outputs}}};
"""

_SELF_TEST_H = """\
#ifndef SELF_TEST_H_
#define SELF_TEST_H_

#include <cstddef>
#include <cstdint>

// Runs the model on the images of test_data.h in an arena of at least kArenaBytes that is aligned
// to 16 bytes; the application may reuse it afterwards. Returns the number of images whose outputs
// are not bit-identical to the expected ones, or -1 if the model cannot run.
int RunSelfTest(uint8_t* arena, size_t arena_bytes);

#endif  // SELF_TEST_H_
"""

_SELF_TEST_CC = """\
#include "self_test.h"

#include <cstring>

#include "model.h"
#include "operators.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "test_data.h"

int RunSelfTest(uint8_t* arena, size_t arena_bytes) {
  OperatorResolver resolver;
  if (RegisterOperators(resolver) != kTfLiteOk) return -1;
  tflite::MicroInterpreter interpreter(tflite::GetModel(g_model), resolver,
                                       arena, arena_bytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) return -1;
  int different = 0;
  for (int i = 0; i < kTestCount; ++i) {
    std::memcpy(interpreter.input(0)->data.int8, g_test_inputs[i], kInputSize);
    if (interpreter.Invoke() != kTfLiteOk) return -1;
    if (std::memcmp(interpreter.output(0)->data.int8, g_test_outputs[i],
                    kOutputSize) != 0) {
      MicroPrintf("self-test: image %d: unexpected output", i);
      ++different;
    }
  }
  MicroPrintf("self-test: %d of %d images as expected", kTestCount - different,
              kTestCount);
  return different;
}
"""
