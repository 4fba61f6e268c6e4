#include "test_data.h"

extern const int8_t g_test_inputs[kTestCount][kInputSize] = {
${inputs}};

extern const int8_t g_test_outputs[kTestCount][kOutputSize] = {
${outputs}};
