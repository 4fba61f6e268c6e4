/* The mean over all pixels of each channel. */
#include "tfsparse_inline.h"

void tfsparse_mean(const int8_t *input, const tfsparse_averaging *layer, int8_t *output) {
  const int left = layer->shift > 0 ? layer->shift : 0, right = left - layer->shift;
  for (int32_t c = 0; c < layer->channels; c++) {
    const int8_t *at = input + c;
    int32_t sum = layer->bias;
    for (int32_t pixel = layer->pixels; pixel; pixel--, at += layer->channels) sum += *at;
    const int32_t shifted = (int32_t)((uint32_t)sum << left);
    const int32_t mean =
        tfsparse_divide(tfsparse_multiply_high(shifted, layer->multiplier), right);
    output[c] = (int8_t)tfsparse_clamp(mean + layer->output_zero_point, -128, 127);
  }
}
