/* Rows of bytes, from one pitch to another. */
#include "tfsparse_inline.h"

void tfsparse_copy(const int8_t *input, int32_t input_pitch, int32_t bytes, int32_t rows,
                   int8_t *output, int32_t output_pitch) {
  for (; rows > 0; rows--, input += input_pitch, output += output_pitch)
    memcpy(output, input, (size_t)bytes);
}
