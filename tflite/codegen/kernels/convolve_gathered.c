/* Convolutions as matrix products: the inputs that a group of filters reads are gathered for four
 * pixels at a time as int16; then two filters at a time take them.
 *
 * table: number of groups; for each: filters, runs, then for each run: row of the patch, offset in
 * the row in bytes, quads. A run is a number of quads, that is, of four neighboring bytes.
 * weights, for each group and each pair of its filters (A, B), for each quad (a, b, c, d):
 * Aa Ba Ac Bc Ab Bb Ad Bd. An odd group's last filter has a partner of zeros.
 * scratch: the padded rows that a row of outputs reads, if there is padding or the output may
 * overwrite the input; and 32 bytes for each quad of the largest group.
 */
#include "tfsparse_inline.h"

enum { PIXELS = 4 };

#if TFSPARSE_DSP
/* Adds the products of `quads` quads to sums[filter][pixel]. One pair of inputs is 13 instructions
 * for 16 products, all of them in registers. */
__attribute__((naked, noinline)) static void multiply(const int8_t *weights, const int32_t *inputs,
                                                      const int32_t *end, int32_t *sums) {
#define PAIR                         \
  "ldr r3, [r0], #4\n"               \
  "ldrd r12, lr, [r1], #8\n"         \
  "sxtb16 r2, r3\n"                  \
  "sxtb16 r3, r3, ror #8\n"          \
  "smlad r4, r2, r12, r4\n"          \
  "smlad r8, r3, r12, r8\n"          \
  "smlad r5, r2, lr, r5\n"           \
  "smlad r9, r3, lr, r9\n"           \
  "ldrd r12, lr, [r1], #8\n"         \
  "smlad r6, r2, r12, r6\n"          \
  "smlad r10, r3, r12, r10\n"        \
  "smlad r7, r2, lr, r7\n"           \
  "smlad r11, r3, lr, r11\n"
  __asm__ volatile(
      "push {r2-r11, lr}\n"
      "ldm r3, {r4-r11}\n"
      "sub r2, r2, r1\n"
      "tst r2, #32\n" /* an odd number of quads begins in the middle */
      "bne 2f\n"
      "1:\n" PAIR PAIR
      "2:\n" PAIR PAIR
      "ldr r2, [sp]\n"
      "cmp r1, r2\n"
      "bne 1b\n"
      "ldr r3, [sp, #4]\n"
      "stm r3, {r4-r11}\n"
      "pop {r2-r11, pc}\n");
}
#undef PAIR
#else
static void multiply(const int8_t *weights, const int32_t *inputs, const int32_t *end,
                     int32_t *sums) {
  for (; inputs != end; inputs += PIXELS, weights += 4) {
    const int16_t *pair = (const int16_t *)inputs;
    for (int pixel = 0; pixel < PIXELS; pixel++, pair += 2) {
      sums[pixel] += weights[0] * pair[0] + weights[2] * pair[1];
      sums[PIXELS + pixel] += weights[1] * pair[0] + weights[3] * pair[1];
    }
  }
}
#endif

/* Widens a quad (a, b, c, d) to (a, c) and (b, d), four words further on. */
static inline void widen(const int8_t *input, int32_t *pairs) {
#if TFSPARSE_DSP
  const int32_t quad = tfsparse_load4(input);
  __asm__("sxtb16 %0, %1" : "=r"(pairs[0]) : "r"(quad));
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(pairs[PIXELS]) : "r"(quad));
#else
  int16_t *values = (int16_t *)pairs;
  values[0] = input[0], values[1] = input[2];
  values[2 * PIXELS] = input[1], values[2 * PIXELS + 1] = input[3];
#endif
}

/* Gathers the runs of one group for four pixels. */
static int32_t *gather(const uint16_t *table, int runs, const int8_t *const *rows,
                       const int32_t *columns, int32_t *pairs) {
  for (; runs; runs--, table += 3) {
    const int8_t *row = rows[table[0]] + table[1];
    const int8_t *p0 = row + columns[0], *p1 = row + columns[1];
    const int8_t *p2 = row + columns[2], *p3 = row + columns[3];
    int quads = table[2];
    do {
      widen(p0, pairs), widen(p1, pairs + 1), widen(p2, pairs + 2), widen(p3, pairs + 3);
      p0 += 4, p1 += 4, p2 += 4, p3 += 4;
      pairs += 2 * PIXELS;
    } while (--quads);
  }
  return pairs;
}

/* Stores the outputs of one filter at up to four pixels. */
static inline void store(const int32_t *sums, const tfsparse_convolution *layer, int filter,
                         int pixels, int8_t *output) {
  const tfsparse_scale scale = tfsparse_prepare(layer, filter);
  const int32_t zero_point = layer->output_zero_point, step = layer->output_channels;
  output += filter;
  output[0] = tfsparse_requantize(sums[0], scale, zero_point);
  if (pixels > 1) output[step] = tfsparse_requantize(sums[1], scale, zero_point);
  if (pixels > 2) output[2 * step] = tfsparse_requantize(sums[2], scale, zero_point);
  if (pixels > 3) output[3 * step] = tfsparse_requantize(sums[3], scale, zero_point);
}

/* Computes up to four pixels of one row. */
static void block(const tfsparse_convolution *layer, const int8_t *const *rows,
                  const int32_t *columns, int pixels, int32_t *pairs, int8_t *output) {
  const uint16_t *table = layer->table + 2;
  const int8_t *weights = layer->weights;
  int filter = 0;
  for (int groups = layer->table[1]; groups; groups--) {
    const int last = filter + table[0], runs = table[1];
    int32_t *end = gather(table + 2, runs, rows, columns, pairs);
    table += 2 + 3 * runs;
    for (; filter < last; filter += 2) {
      const int two = filter + 1 < last;
      const int32_t a = layer->bias[filter], b = two ? layer->bias[filter + 1] : 0;
      int32_t sums[2 * PIXELS] = {a, a, a, a, b, b, b, b};
      multiply(weights, pairs, end, sums);
      weights += end - pairs; /* as many bytes as words: two filters, four pixels */
      store(sums, layer, filter, pixels, output);
      if (two) store(sums + PIXELS, layer, filter + 1, pixels, output);
    }
    filter = last;
  }
}

void tfsparse_convolve_gathered(const int8_t *input, const tfsparse_convolution *layer,
                                int8_t *output, void *scratch) {
  const int padded = layer->table[0], width = layer->output_width;
  const int32_t step = layer->stride_width * layer->input_channels;
  const int32_t row_bytes = padded ? tfsparse_padded_bytes(layer) : 0;
  int8_t *ring = (int8_t *)scratch;
  int32_t *pairs = (int32_t *)(void *)(ring + row_bytes * layer->kernel_height);
  const int8_t *rows[TFSPARSE_MAX_KERNEL];
  int loaded = -layer->pad_top; /* the next row of the image to be copied */
  for (int y = 0; y < layer->output_height; y++) {
    const int first = y * layer->stride_height - layer->pad_top;
    if (loaded < first) loaded = first;
    for (int i = 0; i < layer->kernel_height; i++) {
      const int row = first + i;
      if (!padded) {
        rows[i] = input + row * layer->input_width * layer->input_channels;
        continue;
      }
      int8_t *copy = ring + (row + layer->pad_top) % layer->kernel_height * row_bytes;
      if (row == loaded) tfsparse_pad_row(input, layer, loaded++, copy);
      rows[i] = copy;
    }
    for (int x = 0; x < width; x += PIXELS, output += PIXELS * layer->output_channels) {
      int32_t columns[PIXELS];
      for (int i = 0; i < PIXELS; i++) columns[i] = (x + i < width ? x + i : width - 1) * step;
      block(layer, rows, columns, width - x, pairs, output);
    }
    if (width % PIXELS) output -= (PIXELS - width % PIXELS) * layer->output_channels;
    tfsparse_activate(layer, output - width * layer->output_channels);
  }
}
