/* The mean over all pixels of each channel. */
#include "tfsparse_inline.h"

void tfsparse_mean(const int8_t *input, const tfsparse_averaging *layer, int8_t *output,
                   void *scratch) {
  int32_t *const sums = (int32_t *)scratch;
  for (int32_t c = 0; c < layer->channels; c++) sums[c] = layer->bias;
  for (int32_t pixel = 0; pixel < layer->pixels; pixel++)
    for (int32_t c = 0; c < layer->channels; c++) sums[c] += *input++;
  const int left = layer->shift > 0 ? layer->shift : 0, right = left - layer->shift;
  for (int32_t c = 0; c < layer->channels; c++) {
    const int32_t shifted = (int32_t)((uint32_t)sums[c] << left);
    const int32_t mean =
        tfsparse_divide(tfsparse_multiply_high(shifted, layer->multiplier), right);
    output[c] = (int8_t)tfsparse_clamp(mean + layer->output_zero_point, -128, 127);
  }
}
