/* Fully connected layers as LiteRT's operator FULLY_CONNECTED computes them: it rounds once, halves
 * away from zero, where its convolutions round twice.
 *
 * weights: [outputs / 2][inputs][2], the weights of two outputs side by side; if there is an odd
 * number of outputs, the last partner is 0.
 */
#include "tfsparse_inline.h"

static int8_t scaled(int32_t sum, int32_t multiplier, int shift, const tfsparse_connection *layer) {
  const int64_t product = (int64_t)sum * multiplier, half = (int64_t)1 << (shift - 1);
  const int64_t size = ((product < 0 ? -product : product) + half) >> shift;
  /* Beyond a thousand, it is clipped anyway. */
  const int32_t value = size > 1000 ? 1000 : (int32_t)size;
  const int32_t result = (product < 0 ? -value : value) + layer->output_zero_point;
  return (int8_t)tfsparse_clamp(result, layer->activation_min, layer->activation_max);
}

void tfsparse_fully_connected(const int8_t *input, const tfsparse_connection *layer,
                              int8_t *output) {
  const int8_t *weights = layer->weights;
  for (int i = 0; i < layer->outputs; i += 2) {
    const int two = i + 1 < layer->outputs;
    int32_t a = layer->bias[i], b = two ? layer->bias[i + 1] : 0;
    for (int k = 0; k < layer->inputs; k++, weights += 2) {
      a += input[k] * weights[0];
      b += input[k] * weights[1];
    }
    output[i] = scaled(a, layer->multiplier[i], layer->shift[i], layer);
    if (two) output[i + 1] = scaled(b, layer->multiplier[i + 1], layer->shift[i + 1], layer);
  }
}
