/* Any convolution, as it is written down; for scales that the other kernels do not take.
 *
 * weights: [filters][height][width][channels]; depthwise [height][width][filters].
 * table: whether it is depthwise.
 */
#include "tfsparse_inline.h"

TFSPARSE_SMALL static int32_t sum(const int8_t *input, const tfsparse_convolution *layer, int y, int x,
                   int filter) {
  const int depthwise = layer->table[0], channels = layer->input_channels;
  const int filters = layer->output_channels;
  int32_t total = layer->filters[2 * filter];
  for (int v = 0; v < layer->kernel_height; v++) {
    for (int u = 0; u < layer->kernel_width; u++) {
      const int row = y * layer->stride_height - layer->pad_top + v;
      const int column = x * layer->stride_width - layer->pad_left + u;
      const int tap = v * layer->kernel_width + u;
      const int inside = row >= 0 && row < layer->input_height && column >= 0 &&
                         column < layer->input_width;
      const int8_t *pixel = input + (inside ? (row * layer->input_width + column) * channels : 0);
      const int first = depthwise ? filter / (filters / channels) : 0;
      for (int c = first; c < (depthwise ? first + 1 : channels); c++) {
        const int taps = layer->kernel_height * layer->kernel_width;
        const int32_t at = depthwise ? tap * filters + filter : (filter * taps + tap) * channels + c;
        total += layer->weights[at] * (inside ? pixel[c] : layer->input_zero_point);
      }
    }
  }
  return total;
}

TFSPARSE_SMALL void tfsparse_convolve_plain(const int8_t *input, const tfsparse_convolution *layer,
                             int8_t *output, void *scratch) {
  (void)scratch;
  for (int y = 0; y < layer->output_height; y++) {
    for (int x = 0; x < layer->output_width; x++) {
      for (int filter = 0; filter < layer->output_channels; filter++) {
        const int shift = layer->shift[filter], left = shift < 0 ? -shift : 0;
        const int32_t shifted = (int32_t)((uint32_t)sum(input, layer, y, x, filter) << left);
        const int32_t high = tfsparse_multiply_high(shifted, layer->filters[2 * filter + 1]);
        const int32_t scaled = tfsparse_divide(high, shift + left) + layer->output_zero_point;
        *output++ =
            (int8_t)tfsparse_clamp(scaled, layer->activation_min, layer->activation_max);
      }
    }
  }
}
