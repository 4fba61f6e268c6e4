// Images, and the model's outputs for them with TFLM's reference kernels.
#ifndef TEST_DATA_H_
#define TEST_DATA_H_

#include <cstdint>

constexpr int kTestCount = ${count};
constexpr int kInputSize = ${input};
constexpr int kOutputSize = ${output};

extern const int8_t g_test_inputs[kTestCount][kInputSize];
extern const int8_t g_test_outputs[kTestCount][kOutputSize];

#endif  // TEST_DATA_H_
