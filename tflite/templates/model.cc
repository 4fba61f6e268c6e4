#include "model.h"

extern const size_t g_model_size = ${size};
alignas(16) extern const unsigned char g_model[] = {
${data}};
