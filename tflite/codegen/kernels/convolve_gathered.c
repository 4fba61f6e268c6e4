/* Convolutions as matrix products: the inputs that a group of filters reads are gathered for four
 * pixels at a time as int16; then two filters at a time take them.
 *
 * table: 1 if rows are padded, plus 2 if the last group is odd; number of groups; for each: filters, runs, then for each run: row of the patch, offset in
 * the row in bytes, quads. A run is a number of quads, that is, of four neighboring bytes.
 * weights, for each group and each pair of its filters (A, B), for each quad (a, b, c, d):
 * Aa Ba Ac Bc Ab Bb Ad Bd. An odd group's last filter has a partner of zeros.
 * scratch: the padded rows that a row of outputs reads, if table says so; four pixels of outputs if
 * a row is not a multiple of four pixels by two filters; 32 bytes for each quad of the largest group.
 */
#include "tfsparse_inline.h"

enum { PIXELS = 4 };

/* A group's product with four pixels. The assembler below knows the order of the fields. */
typedef struct {
  const int8_t *weights;
  const int32_t *inputs, *end;
  int8_t *output;
  int32_t step; /* bytes from pixel to pixel of the output */
  const int32_t *filters;
  const int8_t *shift;
  int32_t rounding; /* 2 * zero point + 1 */
  const int8_t *last;
} product;

#if TFSPARSE_DSP
/* A pair of inputs takes 13 instructions for 16 products: two filters (r4 to r7, r8 to r11) by four
 * pixels, whose sums stay in registers. */
__attribute__((naked, noinline)) static void multiply(product *job) {
#define PAIR                   \
  "ldr r3, [r0], #4\n"         \
  "ldrd r12, lr, [r1], #8\n"   \
  "sxtb16 r2, r3\n"            \
  "sxtb16 r3, r3, ror #8\n"    \
  "smlad r4, r2, r12, r4\n"    \
  "smlad r8, r3, r12, r8\n"    \
  "smlad r5, r2, lr, r5\n"     \
  "smlad r9, r3, lr, r9\n"     \
  "ldrd r12, lr, [r1], #8\n"   \
  "smlad r6, r2, r12, r6\n"    \
  "smlad r10, r3, r12, r10\n"  \
  "smlad r7, r2, lr, r7\n"     \
  "smlad r11, r3, lr, r11\n"
/* As in tfsparse_requantize, with one rounding by the sign of the sum instead of the product: they
 * differ where the product is 0, and there the result is the same. */
#define REQUANTIZE(sum, shift)               \
  "lsl " sum ", " sum ", #1\n"               \
  "smmlar lr, " sum ", r1, r2\n"             \
  "add " sum ", lr, " sum ", asr #31\n"      \
  "asr " sum ", " sum ", " shift "\n"        \
  "ssat " sum ", #8, " sum "\n"
  __asm__ volatile(
      "ldr r2, [r0, #8]\n"
      "push {r0, r2, r4-r11, lr}\n" /* job, end */
      "0:\n"
      "ldr r3, [sp]\n"
      "ldr r12, [r3, #20]\n"
      "ldm r3, {r0-r2}\n"
      "ldr r4, [r12]\n"
      "ldr r8, [r12, #8]\n"
      "mov r5, r4\n mov r6, r4\n mov r7, r4\n"
      "mov r9, r8\n mov r10, r8\n mov r11, r8\n"
      "subs r2, r2, r1\n"
      "lsls r2, r2, #26\n" /* an odd number of quads begins in the middle */
      "bmi 2f\n"
      "1:\n" PAIR PAIR
      "2:\n" PAIR PAIR
      "ldr r2, [sp, #4]\n"
      "cmp r1, r2\n"
      "bne 1b\n"
      "ldr lr, [sp]\n"
      "str r0, [lr]\n"
      "ldrd r0, r12, [lr, #12]\n" /* output, step */
      "ldrd r1, r3, [lr, #20]\n"  /* filters, shift */
      "ldr r2, [lr, #28]\n"       /* rounding */
      "ldr r1, [r1, #4]\n"
      "ldrb r3, [r3]\n"
      "lsls r2, r2, r3\n"
      "asrs r2, r2, #1\n"
      REQUANTIZE("r4", "r3") REQUANTIZE("r5", "r3") REQUANTIZE("r6", "r3") REQUANTIZE("r7", "r3")
      "strb r4, [r0]\n"
      "strb r5, [r0, r12]\n"
      "add r3, r12, r12, lsl #1\n"
      "strb r6, [r0, r12, lsl #1]\n"
      "strb r7, [r0, r3]\n"
      "ldr lr, [sp]\n"
      "ldrd r1, r4, [lr, #20]\n"
      "ldr r2, [lr, #28]\n"
      "ldrb r5, [r4, #1]\n"
      "add r6, r1, #16\n"
      "adds r4, #2\n"
      "strd r6, r4, [lr, #20]\n"
      "ldr r1, [r1, #12]\n"
      "lsls r2, r2, r5\n"
      "asrs r2, r2, #1\n"
      REQUANTIZE("r8", "r5") REQUANTIZE("r9", "r5") REQUANTIZE("r10", "r5") REQUANTIZE("r11", "r5")
      "strb r8, [r0, #1]!\n"
      "strb r9, [r0, r12]\n"
      "strb r10, [r0, r12, lsl #1]\n"
      "strb r11, [r0, r3]\n"
      "adds r0, #1\n"
      "ldr lr, [sp]\n"
      "ldr r1, [lr, #32]\n"
      "str r0, [lr, #12]\n"
      "cmp r0, r1\n"
      "blo 0b\n"
      "pop {r0, r2, r4-r11, pc}\n");
#undef PAIR
#undef REQUANTIZE
}
#else
static void multiply(product *job) {
  for (; job->output < job->last; job->output += 2, job->filters += 4, job->shift += 2) {
    for (int filter = 0; filter < 2; filter++) {
      const int32_t bias = job->filters[2 * filter], multiplier = job->filters[2 * filter + 1];
      const int shift = job->shift[filter];
      int32_t sums[PIXELS] = {bias, bias, bias, bias};
      const int8_t *weights = job->weights + filter;
      for (const int32_t *inputs = job->inputs; inputs != job->end; inputs += PIXELS) {
        const int16_t *pair = (const int16_t *)(const void *)inputs;
        for (int pixel = 0; pixel < PIXELS; pixel++)
          sums[pixel] += weights[0] * pair[2 * pixel] + weights[2] * pair[2 * pixel + 1];
        weights += 4;
      }
      for (int pixel = 0; pixel < PIXELS; pixel++)
        job->output[pixel * job->step + filter] = tfsparse_requantize(
            sums[pixel], multiplier, job->rounding * (1 << shift) >> 1, shift);
    }
    job->weights += job->end - job->inputs; /* as many bytes as words */
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

/* Computes four pixels of one row. */
TFSPARSE_SMALL static void block(const tfsparse_convolution *layer, const int8_t *const *rows,
                  const int32_t *columns, int32_t *pairs, int8_t *output, int32_t step) {
  const uint16_t *table = layer->table + 2;
  product job = {layer->weights, pairs, pairs, output, step, layer->filters, layer->shift,
                 2 * layer->output_zero_point + 1, output};
  int filters = 0;
  for (int groups = layer->table[1]; groups; groups--) {
    const int runs = table[1];
    job.output = output + filters; /* an odd group has written one filter too many */
    job.filters = layer->filters + 2 * filters;
    job.shift = layer->shift + filters;
    filters += table[0];
    job.last = output + filters;
    job.end = gather(table + 2, runs, rows, columns, pairs);
    multiply(&job);
    table += 2 + 3 * runs;
  }
}

TFSPARSE_SMALL void tfsparse_convolve_gathered(const int8_t *input, const tfsparse_convolution *layer,
                                int8_t *output, void *scratch) {
  const int padded = layer->table[0] & 1, odd = layer->table[0] >> 1, width = layer->output_width;
  const int filters = layer->output_channels;
  const int32_t step = layer->stride_width * layer->input_channels;
  const int32_t row_bytes = padded ? tfsparse_padded_bytes(layer) : 0;
  int8_t *ring = (int8_t *)scratch;
  int8_t *part = ring + row_bytes * layer->kernel_height; /* for less than four pixels or two filters */
  const int partial = width % PIXELS || odd ? (PIXELS * (filters + odd) + 3) & ~3 : 0;
  int32_t *pairs = (int32_t *)(void *)(part + partial);
  const int8_t *rows[TFSPARSE_MAX_KERNEL];
  int8_t *const start = output;
  int loaded = -layer->pad_top; /* the next row of the image to be copied */
  int slot = 0;                 /* where in the ring the first row of the patch is */
  for (int y = 0; y < layer->output_height; y++) {
    const int first = y * layer->stride_height - layer->pad_top;
    if (loaded < first) loaded = first;
    if (y > 0) slot += layer->stride_height;
    while (slot >= layer->kernel_height) slot -= layer->kernel_height;
    for (int i = 0; i < layer->kernel_height; i++) {
      const int row = first + i;
      if (!padded) {
        rows[i] = input + row * layer->input_width * layer->input_channels;
        continue;
      }
      const int place = slot + i < layer->kernel_height ? slot + i : slot + i - layer->kernel_height;
      int8_t *copy = ring + place * row_bytes;
      if (row == loaded) tfsparse_pad_row(input, layer, loaded++, copy);
      rows[i] = copy;
    }
    for (int x = 0; x < width; x += PIXELS) {
      const int pixels = width - x < PIXELS ? width - x : PIXELS;
      int32_t columns[PIXELS];
      for (int i = 0; i < PIXELS; i++) columns[i] = (i < pixels ? x + i : width - 1) * step;
      if (pixels == PIXELS && !odd) {
        block(layer, rows, columns, pairs, output, filters);
      } else {
        block(layer, rows, columns, pairs, part, filters + odd);
        for (int i = 0; i < pixels; i++) 
          memcpy(output + i * filters, part + i * (filters + odd), (size_t)filters);
      }
      output += pixels * filters;
    }
  }
  tfsparse_activate(start, layer->output_height * width * filters, layer->activation_min,
                    layer->activation_max);
}
