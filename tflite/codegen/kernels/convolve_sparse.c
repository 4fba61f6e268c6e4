/* Convolutions of which single weights are pruned, or with one filter per channel: each weight takes
 * part at eight pixels.
 *
 * The rows that a row of outputs reads are spread out in scratch: [row][channel][phase][position],
 * where phase and position are the rest and the quotient of the column by the stride, so that a
 * weight's inputs for neighboring outputs are neighbors. An element has the inputs of two outputs:
 * of the left and the right half of the row, or, in narrow images, of two rows. With the DSP
 * extension it is a word, x0 + 2^23 * x1, and SMLAL adds both products to a sum of 64 bits whose
 * lower 23 bits are one output's and whose upper bits the other's.
 *
 * weights, for each filter and weight: the weight, and how many elements its inputs are behind
 * those of the weight before. An even number of them for each filter; padded by weights of 0.
 * filters, for each: bias; multiplier; bytes of its weights * 256 + shift. There is no array shift.
 * table: 1 if elements are of two rows, plus 2 for one filter per channel, whose elements are
 * [channel][row][phase][position].
 * scratch: the elements, of 4 bytes, and four in excess; one pixel of the input; eight pixels of
 * the output if a row is not whole blocks of eight.
 */
#include "tfsparse_inline.h"

enum { WORDS = 4, LANE = 23 };

#if TFSPARSE_DSP
typedef int32_t element;

static inline element join(int32_t first, int32_t second) { return first + second * (1 << LANE); }
#else
typedef struct {
  int8_t first, second;
} element;

static inline element join(int32_t first, int32_t second) {
  const element joined = {(int8_t)first, (int8_t)second};
  return joined;
}
#endif

/* All filters at eight pixels. The assembler below knows the order of the fields. */
typedef struct {
  const int8_t *weights;
  const element *inputs;
  int8_t *output;
  int32_t step, lane; /* bytes between outputs: of neighboring elements, and in one element */
  const int32_t *filters;
  int32_t rounding; /* 2 * zero point + 1 */
  const int8_t *last;
  int32_t next; /* bytes from one filter's inputs to the next one's */
} product;

#if TFSPARSE_DSP
/* A weight takes 9 instructions for 8 products; the sums stay in r4 to r11. */
__attribute__((naked, noinline)) static void multiply(product *job) {
#define WEIGHT                    \
  "ldrb r12, [r0, #1]\n"          \
  "ldrsb r3, [r0], #2\n"          \
  "add r1, r1, r12, lsl #2\n"     \
  "ldrd r12, lr, [r1]\n"          \
  "smlal r4, r5, r3, r12\n"       \
  "smlal r6, r7, r3, lr\n"        \
  "ldrd r12, lr, [r1, #8]\n"      \
  "smlal r8, r9, r3, r12\n"       \
  "smlal r10, r11, r3, lr\n"
/* The carry rounds the upper lane, from which a negative lower one has borrowed. */
#define SPLIT(low, high)                    \
  "lsrs r1, " low ", #23\n"                 \
  "adc " high ", r1, " high ", lsl #9\n"    \
  "sbfx " low ", " low ", #0, #23\n"
/* As in tfsparse_requantize, with one rounding by the sign of the sum instead of the product: they
 * differ where the product is 0, and there the result is the same. */
#define REQUANTIZE(sum)                     \
  "lsl " sum ", " sum ", #1\n"              \
  "smmlar lr, " sum ", r1, r2\n"            \
  "add " sum ", lr, " sum ", asr #31\n"     \
  "asr " sum ", " sum ", r3\n"              \
  "ssat " sum ", #8, " sum "\n"
  __asm__ volatile(
      "push {r0, r4-r11, lr}\n"
      "0:\n"
      "ldr r12, [sp]\n"
      "ldrd r0, r1, [r12]\n"
      "ldr r3, [r12, #20]\n"
      "ldr r4, [r3]\n"
      "ldr r2, [r3, #8]\n"
      "add r2, r0, r2, lsr #8\n"
      "asrs r5, r4, #9\n" /* the bias in both lanes */
      "asrs r6, r4, #31\n"
      "adds r4, r4, r4, lsl #23\n"
      "adcs r5, r5, r6\n"
      "mov r6, r4\n mov r7, r5\n mov r8, r4\n mov r9, r5\n mov r10, r4\n mov r11, r5\n"
      "1:\n" WEIGHT WEIGHT
      "cmp r0, r2\n"
      "bne 1b\n"
      "ldr lr, [sp]\n"
      SPLIT("r4", "r5") SPLIT("r6", "r7") SPLIT("r8", "r9") SPLIT("r10", "r11")
      "ldr r1, [lr, #4]\n"
      "ldr r2, [lr, #32]\n"
      "adds r1, r1, r2\n"
      "strd r0, r1, [lr]\n"
      "ldrd r1, r2, [lr, #20]\n" /* filters, rounding */
      "add r3, r1, #12\n"
      "str r3, [lr, #20]\n"
      "ldrb r3, [r1, #8]\n"
      "ldr r1, [r1, #4]\n"
      "lsls r2, r2, r3\n"
      "asrs r2, r2, #1\n"
      REQUANTIZE("r4") REQUANTIZE("r6") REQUANTIZE("r8") REQUANTIZE("r10")
      REQUANTIZE("r5") REQUANTIZE("r7") REQUANTIZE("r9") REQUANTIZE("r11")
      "ldr lr, [sp]\n"
      "ldrd r0, r12, [lr, #8]\n" /* output, step */
      "add r1, r12, r12, lsl #1\n"
      "ldr r2, [lr, #16]\n"
      "strb r4, [r0]\n"
      "strb r6, [r0, r12]\n"
      "strb r8, [r0, r12, lsl #1]\n"
      "strb r10, [r0, r1]\n"
      "strb r5, [r0, r2]\n"
      "adds r3, r0, #1\n"
      "str r3, [lr, #8]\n"
      "add r0, r0, r2\n"
      "strb r7, [r0, r12]\n"
      "strb r9, [r0, r12, lsl #1]\n"
      "strb r11, [r0, r1]\n"
      "ldr r2, [lr, #28]\n"
      "cmp r3, r2\n"
      "bne 0b\n"
      "pop {r0, r4-r11, pc}\n");
#undef WEIGHT
#undef SPLIT
#undef REQUANTIZE
}
#else
static void multiply(product *job) {
  for (; job->output != job->last; job->output++, job->filters += 3) {
    const int32_t bias = job->filters[0], multiplier = job->filters[1];
    const int shift = job->filters[2] & 255;
    const element *inputs = job->inputs;
    int32_t sums[2 * WORDS] = {bias, bias, bias, bias, bias, bias, bias, bias};
    for (int32_t bytes = job->filters[2] >> 8; bytes; bytes -= 2, job->weights += 2) {
      const int32_t weight = job->weights[0];
      inputs += (uint8_t)job->weights[1];
      for (int i = 0; i < WORDS; i++) {
        sums[i] += weight * inputs[i].first;
        sums[WORDS + i] += weight * inputs[i].second;
      }
    }
    for (int i = 0; i < 2 * WORDS; i++)
      job->output[i % WORDS * job->step + i / WORDS * job->lane] = tfsparse_requantize(
          sums[i], multiplier, job->rounding * (1 << shift) >> 1, shift);
    job->inputs += job->next / (int32_t)sizeof(element);
  }
}
#endif

/* Moves words to a lower address. */
TFSPARSE_SMALL static void move(element *to, const element *from, int32_t count) {
#if TFSPARSE_DSP
  for (; count >= 8; count -= 8)
    __asm__ volatile(
        "ldm %1!, {r2-r6, r8, r9, r12}\n"
        "stm %0!, {r2-r6, r8, r9, r12}\n"
        : "+r"(to), "+r"(from)
        :
        : "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r12", "memory");
#endif
  for (; count > 0; count--) *to++ = *from++;
}

/* How the elements are laid out. */
typedef struct {
  int two_rows, outputs, positions, phases;
  int32_t row, channel; /* elements from row to row, and from channel to channel */
  const int8_t *zeros;  /* a pixel of zero points, outside the image */
} layout;

/* Joins two pixels, channel by channel. */
__attribute__((noinline)) static void spread(const int8_t *first, const int8_t *second, int channels, element *to,
                   int32_t pitch) {
  do {
    *to = join(*first++, *second++);
    to += pitch;
  } while (--channels);
}

/* Spreads out one row of the image, or two. */
TFSPARSE_SMALL static void load(const int8_t *input, const tfsparse_convolution *layer, const layout *rows,
                 int row, element *to) {
  const int stride = layer->stride_width, channels = layer->input_channels;
  const int32_t bytes = layer->input_width * channels, step = stride * channels;
  const int second_row = row + (rows->two_rows ? layer->stride_height : 0);
  /* A row outside the image has no columns. */
  const uint32_t first_end = row < 0 || row >= layer->input_height ? 0 : (uint32_t)bytes;
  const uint32_t second_end =
      second_row < 0 || second_row >= layer->input_height ? 0 : (uint32_t)bytes;
  const int8_t *const first_row = input + (first_end ? row * bytes : 0);
  const int8_t *const other_row = input + (second_end ? second_row * bytes : 0);
  const int32_t further = rows->two_rows ? 0 : rows->outputs * step;
  for (int phase = 0; phase < rows->phases; phase++) {
    int32_t at = (phase - layer->pad_left) * channels;
    for (int i = 0; i < rows->positions; i++, at += step) {
      const int8_t *first = (uint32_t)at < first_end ? first_row + at : rows->zeros;
      const int8_t *second =
          (uint32_t)(at + further) < second_end ? other_row + at + further : rows->zeros;
      spread(first, second, channels, to++, rows->channel);
    }
  }
}

/* Copies what of a block of eight pixels is inside the image. */
TFSPARSE_SMALL static void copy_part(const int8_t *part, const tfsparse_convolution *layer, const layout *rows,
                      int8_t *output, int row, int column) {
  const int width = layer->output_width, filters = layer->output_channels;
  for (int i = 0; i < 2 * WORDS; i++) {
    const int second = i / WORDS, at = column + i % WORDS;
    const int x = at + (second && !rows->two_rows ? rows->outputs : 0);
    const int y = row + (second && rows->two_rows);
    if (at < rows->outputs && x < width && y < layer->output_height)
      memcpy(output + (y * width + x) * filters, part + i * filters, (size_t)filters);
  }
}

TFSPARSE_SMALL void tfsparse_convolve_sparse(const int8_t *input, const tfsparse_convolution *layer,
                              int8_t *output, void *scratch) {
  const int width = layer->output_width, filters = layer->output_channels;
  const int kernel = layer->kernel_height, stride = layer->stride_width;
  layout rows;
  const int depthwise = layer->table[0] >> 1;
  rows.two_rows = layer->table[0] & 1;
  rows.outputs = rows.two_rows ? width : (width + 1) / 2;
  rows.phases = layer->kernel_width < stride ? layer->kernel_width : stride;
  rows.positions = rows.outputs + (layer->kernel_width - 1) / stride;
  rows.row = rows.positions * rows.phases;
  rows.channel = rows.row;
  const int32_t count = rows.row * kernel * layer->input_channels;
  if (depthwise)
    rows.channel *= kernel;
  else
    rows.row *= layer->input_channels;
  element *const elements = (element *)scratch;
  int8_t *const zeros = (int8_t *)(elements + count + WORDS);
  int8_t *const part = zeros + layer->input_channels;
  memset(zeros, layer->input_zero_point, (size_t)layer->input_channels);
  rows.zeros = zeros;
  const int advance = layer->stride_height * (1 + rows.two_rows);
  const int kept = kernel > advance ? kernel - advance : 0;
  const int32_t moved = kept ? count - advance * rows.row : 0;
  product job;
  job.next = depthwise ? rows.channel * (int32_t)sizeof(element) : 0;
  job.rounding = 2 * layer->output_zero_point + 1;
  int next = -layer->pad_top; /* the next row of the image to be loaded */
  for (int y = 0; y < layer->output_height; y += 1 + rows.two_rows) {
    const int first = y * layer->stride_height - layer->pad_top;
    int i = 0;
    if (y > 0) {
      i = kept;
      next = first + kept;
      move(elements, elements + advance * rows.row, moved);
    }
    for (; i < kernel; i++) load(input, layer, &rows, next++, elements + i * rows.row);
    for (int x = 0; x < rows.outputs; x += WORDS) {
      /* The last block overlaps the one before if it can. */
      const int at = x + WORDS <= rows.outputs || x == 0 ? x : rows.outputs - WORDS;
      const int whole = at + WORDS <= rows.outputs &&
                        (rows.two_rows ? y + 1 < layer->output_height
                                       : at + WORDS + rows.outputs <= width);
      job.weights = layer->weights;
      job.inputs = elements + at;
      job.filters = layer->filters;
      job.output = whole ? output + (y * width + at) * filters : part;
      job.last = job.output + filters;
      job.step = filters;
      job.lane = whole ? (rows.two_rows ? width : rows.outputs) * filters : WORDS * filters;
      multiply(&job);
      if (!whole) copy_part(part, layer, &rows, output, y, at);
    }
  }
  tfsparse_activate(output, layer->output_height * width * filters, layer->activation_min,
                    layer->activation_max);
}
