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
