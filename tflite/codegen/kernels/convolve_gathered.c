/* Convolutions as matrix products: the inputs that a group of filters reads are gathered for four
 * pixels at a time as int16; then two filters at a time take them.
 *
 * table: 1 if rows are padded, plus 2 if the last group is odd; number of groups; for each: filters, runs, then for each run: row of the patch, offset in
 * the row in bytes, pairs. A run is of quads, that is, of four neighboring bytes (a, b, c, d), each
 * two pairs (a, c) and (b, d); the last quad may be one pair.
 * weights, for each group and each pair of its filters (A, B), for each pair (a, c): Aa Ba Ac Bc. An
 * odd group's last filter has a partner of zeros.
 * scratch: the padded rows that a row of outputs reads, if table says so; four pixels of outputs if
 * a row is not a multiple of four pixels by two filters; 16 bytes for each
 * pair of the largest group, and 16 more.
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
TFSPARSE_NAKED static void multiply(product *job __attribute__((unused))) {
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
      "lsls r2, r2, #27\n" /* the rest of the number of pairs by 4 begins in the middle */
      "bcc 5f\n"
      "bmi 2f\n"
      "b 3f\n"
      "5: bmi 4f\n"
      "1:" PAIR "2:" PAIR "3:" PAIR "4:" PAIR
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

/* Widens quads (a, b, c, d) of four pixels: for each four pairs (a, c) and four pairs (b, d). */
static inline int32_t *widen(const int8_t *p0, const int8_t *p1, const int8_t *p2,
                             const int8_t *p3, int count, int32_t *pairs) {
#if TFSPARSE_DSP
  int32_t a, b, c, d;
  for (; count > 0; count--)
    __asm__ volatile(
        "ldr %5, [%1], #4\n ldr %6, [%2], #4\n"
        "sxtb16 %7, %5\n sxtb16 %8, %6\n strd %7, %8, [%0]\n"
        "sxtb16 %5, %5, ror #8\n sxtb16 %6, %6, ror #8\n strd %5, %6, [%0, #16]\n"
        "ldr %5, [%3], #4\n ldr %6, [%4], #4\n"
        "sxtb16 %7, %5\n sxtb16 %8, %6\n strd %7, %8, [%0, #8]\n"
        "sxtb16 %5, %5, ror #8\n sxtb16 %6, %6, ror #8\n strd %5, %6, [%0, #24]\n"
        "adds %0, %0, #32\n"
        : "+r"(pairs), "+r"(p0), "+r"(p1), "+r"(p2), "+r"(p3), "=&r"(a), "=&r"(b), "=&r"(c),
          "=&r"(d)
        :
        : "memory", "cc");
#else
  for (; count > 0; count--, p0 += 4, p1 += 4, p2 += 4, p3 += 4, pairs += 2 * PIXELS) {
    const int8_t *const quads[] = {p0, p1, p2, p3};
    int16_t *values = (int16_t *)(void *)pairs;
    for (int i = 0; i < PIXELS; i++, values += 2) {
      values[0] = quads[i][0], values[1] = quads[i][2];
      values[2 * PIXELS] = quads[i][1], values[2 * PIXELS + 1] = quads[i][3];
    }
  }
#endif
  return pairs;
}

/* Gathers the runs of one group for four pixels, `apart` bytes behind the first one. */
__attribute__((noinline)) static int32_t *gather(const uint16_t *table, int runs,
                                                 const int8_t *const *rows, int32_t at,
                                                 const int32_t *apart, int32_t *pairs) {
  for (; runs; runs--, table += 3) {
    const int8_t *const p = rows[table[0]] + at + table[1];
    pairs = widen(p, p + apart[0], p + apart[1], p + apart[2], (table[2] + 1) / 2, pairs);
    if (table[2] % 2) pairs -= PIXELS; /* of the last quad only one pair is used */
  }
  return pairs;
}

/* Computes four pixels of one row. */
TFSPARSE_SMALL static void block(const tfsparse_convolution *layer, const int8_t *const *rows,
                                 int32_t at, const int32_t *apart, int32_t *pairs, int8_t *output,
                                 int32_t step) {
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
    job.end = gather(table + 2, runs, rows, at, apart, pairs);
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
    int32_t apart[] = {step, 2 * step, 3 * step};
    for (int x = 0; x < width; x += PIXELS) {
      const int pixels = width - x < PIXELS ? width - x : PIXELS;
      for (int i = pixels; i < PIXELS; i++) apart[i - 1] = (pixels - 1) * step; /* the last again */
      const int whole = pixels == PIXELS && !odd;
      block(layer, rows, x * step, apart, pairs, whole ? output : part, filters + odd);
      for (int i = 0; i < pixels && !whole; i++)
        memcpy(output + i * filters, part + i * (filters + odd), (size_t)filters);
      output += pixels * filters;
    }
  }
  tfsparse_activate(start, layer->output_height * width * filters, layer->activation_min,
                    layer->activation_max);
}
