/* The mean of each window, over what of it is inside the image. */
#include "tfsparse_inline.h"

void tfsparse_average_pool(const int8_t *input, const tfsparse_pooling *layer, int8_t *output) {
  const int channels = layer->channels;
  for (int y = 0; y < layer->output_height; y++) {
    const int row = y * layer->stride_height - layer->pad_top;
    const int top = row < 0 ? 0 : row;
    const int end = row + layer->window_height;
    const int bottom = end < layer->input_height ? end : layer->input_height;
    for (int x = 0; x < layer->output_width; x++) {
      const int column = x * layer->stride_width - layer->pad_left;
      const int left = column < 0 ? 0 : column;
      const int stop = column + layer->window_width;
      const int right = stop < layer->input_width ? stop : layer->input_width;
      const int32_t count = (bottom - top) * (right - left);
      const int8_t *const corner = input + (top * layer->input_width + left) * channels;
      const int32_t next = (layer->input_width - (right - left)) * channels;
      for (int c = 0; c < channels; c++) {
        const int8_t *at = corner + c;
        int32_t sum = 0;
        for (int v = bottom - top; v; v--, at += next)
          for (int u = right - left; u; u--, at += channels) sum += *at;
        const int32_t mean = (sum + (sum > 0 ? count / 2 : -(count / 2))) / count;
        *output++ = (int8_t)tfsparse_clamp(mean, layer->activation_min, layer->activation_max);
      }
    }
  }
}
