/* The sum of two quantized tensors. */
#include "tfsparse_inline.h"

enum { LEFT_SHIFT = 20, TABLE = 256 };

/* One input on the common scale, twice. */
static int32_t rescale(int32_t value, int32_t zero_point, int32_t multiplier, int shift) {
  const int32_t shifted = (value - zero_point) * (1 << LEFT_SHIFT);
  return tfsparse_divide(tfsparse_multiply_high(shifted, multiplier), shift) * 2;
}

/* The half of `twice` on the scale of the output. */
static inline int32_t combine(int32_t twice, const tfsparse_addition *layer) {
#if TFSPARSE_DSP
  int32_t high;
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(twice), "r"(layer->multiplier_output));
#else
  const int32_t high = tfsparse_multiply_high(twice >> 1, layer->multiplier_output);
#endif
  const int32_t result = tfsparse_divide(high, layer->shift_output) + layer->zero_point_output;
  return tfsparse_clamp(result, layer->activation_min, layer->activation_max);
}

void tfsparse_add(const int8_t *input_1, const int8_t *input_2, const tfsparse_addition *layer,
                  int32_t count, int8_t *output, void *scratch) {
  int32_t *const table_1 = (int32_t *)scratch, *const table_2 = table_1 + TABLE;
  for (int32_t i = 0; i < TABLE; i++) {
    table_1[i] = rescale(i - 128, layer->zero_point_1, layer->multiplier_1, layer->shift_1);
    table_2[i] = rescale(i - 128, layer->zero_point_2, layer->multiplier_2, layer->shift_2);
  }
  for (int32_t i = 0; i < count; i++)
    output[i] = (int8_t)combine(table_1[input_1[i] + 128] + table_2[input_2[i] + 128], layer);
}
