/* Goes down an image whose rows are spread out in scratch, block by block.
 *
 * The rows that a row of outputs reads are kept as elements of two numbers, [row][channel][phase]
 * [position], where phase and position are the rest and the quotient of the column by the stride:
 * what a weight reads for neighboring outputs are neighbors. table[0] says what an element has:
 * 0: the inputs of an output in the left half of a row and of one in the right half;
 * 1: the inputs of an output and of that below;
 * 2: two channels. Plus 4 for one filter per channel, with elements [channel][row][phase][position].
 * scratch: the elements, of 4 bytes, and four in excess; one pixel of the input; a block of the
 * output if the image is not whole blocks.
 */
#include "tfsparse_inline.h"

enum { WORDS = TFSPARSE_WORDS, HALVES = 0, ROWS = 1, CHANNELS = 2, DEPTHWISE = 4 };

typedef tfsparse_element element;

#if TFSPARSE_DSP
static inline element join(int32_t first, int32_t second) {
  return first + second * (1 << TFSPARSE_LANE);
}

static inline element join_channels(int32_t first, int32_t second) {
  int32_t joined;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(joined) : "r"(first), "r"(second));
  return joined;
}
#else
static inline element join(int8_t first, int8_t second) {
  const element joined = {first, second};
  return joined;
}

static inline element join_channels(int8_t first, int8_t second) { return join(first, second); }
#endif

/* Moves words to a lower address. r7 and r9 may be reserved, for frames and for static data. */
TFSPARSE_SMALL static void move(element *to, const element *from, int32_t count) {
#if TFSPARSE_DSP
  for (; count >= 8; count -= 8)
    __asm__ volatile(
        "ldm %1!, {r2-r6, r8, r10, r12}\n"
        "stm %0!, {r2-r6, r8, r10, r12}\n"
        : "+r"(to), "+r"(from)
        :
        : "r2", "r3", "r4", "r5", "r6", "r8", "r10", "r12", "memory");
#endif
  for (; count > 0; count--) *to++ = *from++;
}

typedef struct {
  int kind, outputs, positions, phases; /* outputs: elements of one row of outputs */
  int32_t row, channel;                 /* elements from row to row, from channel to channel */
  int channels;
  const int8_t *zeros; /* a pixel of zero points, outside the image */
} layout;

/* Spreads out a row of which an element has two channels. */
__attribute__((noinline)) static void load_channels(const int8_t *row, uint32_t row_end,
                                                    int32_t at, int32_t step, const layout *rows,
                                                    element *to) {
  const int32_t pitch = rows->channel;
  for (int i = rows->positions; i; i--, at += step, to++) {
    const int8_t *pixel = (uint32_t)at < row_end ? row + at : rows->zeros;
    element *out = to;
    int channels = rows->channels;
#if TFSPARSE_DSP
    for (; channels >= 2; channels -= 2, pixel += 4, out += 2 * pitch) {
      const int32_t quad = tfsparse_load4(pixel);
      int32_t even, odd;
      __asm__("sxtb16 %0, %1" : "=r"(even) : "r"(quad));
      __asm__("sxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(quad));
      __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(out[0]) : "r"(even), "r"(odd));
      __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(out[pitch]) : "r"(odd), "r"(even));
    }
#endif
    for (; channels; channels--, pixel += 2, out += pitch)
      *out = join_channels(pixel[0], pixel[1]);
  }
}

/* Joins two pixels, channel by channel. */
__attribute__((noinline)) static void spread(const int8_t *first, const int8_t *second,
                                             int channels, element *to, int32_t pitch) {
  do {
    *to = join(*first++, *second++);
    to += pitch;
  } while (--channels);
}

/* Spreads out two rows, or one row's halves, of which an element has one number each. */
__attribute__((noinline)) static void load_two(const int8_t *const *row, const uint32_t *row_end,
                                               int32_t at, int32_t step, const layout *rows,
                                               int32_t further, element *to) {
  for (int i = rows->positions; i; i--, at += step, to++) {
    const int8_t *first = (uint32_t)at < row_end[0] ? row[0] + at : rows->zeros;
    const int8_t *second =
        (uint32_t)(at + further) < row_end[1] ? row[1] + at + further : rows->zeros;
    spread(first, second, rows->channels, to, rows->channel);
  }
}

/* Spreads out one row of the image, or two. */
TFSPARSE_SMALL static void load(const int8_t *input, const tfsparse_convolution *layer,
                                const layout *rows, int y, element *to) {
  const int channels = layer->input_channels;
  const int32_t bytes = layer->input_width * channels, step = layer->stride_width * channels;
  const int8_t *row[2];
  uint32_t row_end[2]; /* a row outside the image has no columns */
  for (int i = 0; i < 2; i++, y += rows->kind == ROWS ? layer->stride_height : 0) {
    row_end[i] = y < 0 || y >= layer->input_height ? 0 : (uint32_t)bytes;
    row[i] = input + (row_end[i] ? y * bytes : 0);
  }
  for (int phase = 0; phase < rows->phases; phase++, to += rows->positions) {
    const int32_t at = (phase - layer->pad_left) * channels;
    if (rows->kind == CHANNELS)
      load_channels(row[0], row_end[0], at, step, rows, to);
    else
      load_two(row, row_end, at, step, rows, rows->kind == HALVES ? rows->outputs * step : 0, to);
  }
}

/* Copies what of a block is inside the image. */
TFSPARSE_SMALL static void copy_part(const int8_t *part, const tfsparse_convolution *layer,
                                     const layout *rows, int8_t *output, int row, int column) {
  const int width = layer->output_width, filters = layer->output_channels;
  for (int i = 0; i < (rows->kind == CHANNELS ? WORDS : 2 * WORDS); i++) {
    const int second = i / WORDS, at = column + i % WORDS;
    const int x = at + (second && rows->kind == HALVES ? rows->outputs : 0);
    const int y = row + (second && rows->kind == ROWS);
    if (at < rows->outputs && x < width && y < layer->output_height)
      memcpy(output + (y * width + x) * filters, part + i * filters, (size_t)filters);
  }
}

TFSPARSE_SMALL void tfsparse_sweep(const int8_t *input, const tfsparse_convolution *layer,
                                   int8_t *output, void *scratch,
                                   void (*multiply)(tfsparse_block *)) {
  const int width = layer->output_width, filters = layer->output_channels;
  const int kernel = layer->kernel_height, stride = layer->stride_width;
  const int depthwise = layer->table[0] & DEPTHWISE;
  layout rows;
  rows.kind = layer->table[0] & (DEPTHWISE - 1);
  rows.outputs = rows.kind == HALVES ? (width + 1) / 2 : width;
  rows.phases = layer->kernel_width < stride ? layer->kernel_width : stride;
  rows.positions = rows.outputs + (layer->kernel_width - 1) / stride;
  rows.channels = rows.kind == CHANNELS ? layer->input_channels / 2 : layer->input_channels;
  rows.row = rows.positions * rows.phases;
  rows.channel = rows.row;
  const int32_t count = rows.row * kernel * rows.channels;
  if (depthwise)
    rows.channel *= kernel;
  else
    rows.row *= rows.channels;
  element *const elements = (element *)scratch;
  int8_t *const zeros = (int8_t *)(elements + count + WORDS);
  int8_t *const part = zeros + layer->input_channels;
  memset(zeros, layer->input_zero_point, (size_t)layer->input_channels);
  rows.zeros = zeros;
  const int lines = rows.kind == ROWS ? 2 : 1; /* rows of outputs that are computed together */
  const int advance = layer->stride_height * lines;
  const int kept = kernel > advance ? kernel - advance : 0;
  const int32_t moved = kept ? count - advance * rows.row : 0;
  tfsparse_block block;
  block.next = depthwise ? rows.channel * (int32_t)sizeof(element) : 0;
  block.rounding = 2 * layer->output_zero_point + 1;
  block.step = filters;
  for (int y = 0; y < layer->output_height; y += lines) {
    int loaded = 0;
    if (y > 0) {
      loaded = kept;
      move(elements, elements + advance * rows.row, moved);
    }
    for (; loaded < kernel; loaded++)
      load(input, layer, &rows, y * layer->stride_height - layer->pad_top + loaded,
           elements + loaded * rows.row);
    for (int x = 0; x < rows.outputs; x += WORDS) {
      /* The last block overlaps the one before if it can. */
      const int at = x + WORDS <= rows.outputs || x == 0 ? x : rows.outputs - WORDS;
      const int whole = at + WORDS <= rows.outputs &&
                        (rows.kind != ROWS || y + 1 < layer->output_height) &&
                        (rows.kind != HALVES || at + WORDS + rows.outputs <= width);
      block.weights = layer->weights;
      block.inputs = elements + at;
      block.filters = layer->filters;
      block.output = whole ? output + (y * width + at) * filters : part;
      block.last = block.output + filters;
      block.lane = whole ? (rows.kind == ROWS ? width : rows.outputs) * filters : WORDS * filters;
      multiply(&block);
      if (!whole) copy_part(part, layer, &rows, output, y, at);
    }
  }
  tfsparse_activate(output, layer->output_height * width * filters, layer->activation_min,
                    layer->activation_max);
}
