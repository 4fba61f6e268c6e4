/* Any function of one value and its channel. */
#include "tfsparse_inline.h"

void tfsparse_look_up(const int8_t *input, const int8_t *table, int32_t channels, int32_t count,
                      int8_t *output) {
  if (channels == 1) {
    for (int32_t i = 0; i < count; i++) output[i] = table[input[i] + 128];
    return;
  }
  for (int32_t i = 0; i < count; i += channels)
    for (int32_t c = 0; c < channels; c++)
      output[i + c] = table[c * 256 + input[i + c] + 128];
}
