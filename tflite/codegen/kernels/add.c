/* The sum of two quantized tensors.
 *
 * An input has only 256 values: both are brought to the common scale in tables first.
 */
#include "tfsparse_inline.h"

enum { LEFT_SHIFT = 20, HALF = 128 };

/* Twice each value of an input on the common scale; returns the entry of 0. */
__attribute__((noinline)) TFSPARSE_SMALL static const int32_t *rescale(int32_t *table, int32_t zero_point, int32_t multiplier, int shift) {
  for (int32_t value = -HALF; value < HALF; value++) {
    const int32_t shifted = (value - zero_point) * (1 << LEFT_SHIFT);
    *table++ = 2 * tfsparse_divide(tfsparse_multiply_high(shifted, multiplier), shift);
  }
  return table - HALF;
}

void tfsparse_add(const int8_t *input_1, const int8_t *input_2, const tfsparse_addition *layer,
                  int32_t count, int8_t *output, void *scratch) {
  int32_t *const tables = (int32_t *)scratch;
  const int32_t *const table_1 =
      rescale(tables, layer->zero_point_1, layer->multiplier_1, layer->shift_1);
  const int32_t *const table_2 =
      rescale(tables + 2 * HALF, layer->zero_point_2, layer->multiplier_2, layer->shift_2);
  const int32_t multiplier = layer->multiplier_output;
  const int shift = layer->shift_output;
  const int32_t offset = (2 * layer->zero_point_output + 1) * (1 << shift) >> 1;
  for (int32_t i = count; i; i--) {
    const int32_t twice = table_1[*input_1++] + table_2[*input_2++];
    *output++ = tfsparse_saturate(tfsparse_scale(twice, multiplier, offset, shift));
  }
  tfsparse_activate(output - count, count, layer->activation_min, layer->activation_max);
}
