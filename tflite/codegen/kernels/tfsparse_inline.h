/* What kernels share: instructions of the DSP extension, requantization, padded rows. */
#ifndef TFSPARSE_INLINE_H
#define TFSPARSE_INLINE_H

#include <stdint.h>
#include <string.h>

#include "tfsparse_kernels.h"

/* Cortex-M4, M7, M33 and above, unless compiled for a processor that is told to trap on words at any
 * address (-mno-unaligned-access). */
#ifndef TFSPARSE_DSP
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_UNALIGNED) && defined(__thumb2__) && \
    !defined(__ARM_BIG_ENDIAN)
#define TFSPARSE_DSP 1
#else
#define TFSPARSE_DSP 0
#endif
#endif

/* Functions whose speed does not matter. */
#if defined(__clang__)
#define TFSPARSE_SMALL __attribute__((minsize))
#elif defined(__GNUC__)
#define TFSPARSE_SMALL __attribute__((optimize("Os")))
#else
#define TFSPARSE_SMALL
#endif

/* Functions in assembler. */
#define TFSPARSE_NAKED __attribute__((naked, noinline, no_instrument_function))

typedef struct __attribute__((packed, may_alias)) {
  int32_t word;
} tfsparse_unaligned;

/* Four bytes from any address. */
static inline int32_t tfsparse_load4(const void *address) {
  return ((const tfsparse_unaligned *)address)->word;
}

/* (a * b + 2^30) >> 31: LiteRT's SaturatingRoundingDoublingHighMul. */
static inline int32_t tfsparse_multiply_high(int32_t a, int32_t b) {
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
  /* No product of 64 bits: 16 x 16 bits at a time. */
  const int32_t a1 = a >> 16, b1 = b >> 16;
  const uint32_t a0 = (uint32_t)a & 0xffff, b0 = (uint32_t)b & 0xffff;
  const uint32_t low = a0 * b0;
  const uint32_t first = (uint32_t)a1 * b0 + (low >> 16);
  const uint32_t middle = (first & 0xffff) + a0 * (uint32_t)b1;
  /* middle is a signed number: a0 * b1 fits 32 bits with its sign, and 16 bits are added. */
  const int32_t high = a1 * b1 + ((int32_t)first >> 16) + ((int32_t)middle >> 16);
  const uint32_t rest = (middle << 16) | (low & 0xffff);
  const uint32_t rounded = rest + (1u << 30);
  return (int32_t)(((uint32_t)high + (rounded < rest)) << 1 | rounded >> 31);
#else
  return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
#endif
}

/* LiteRT's RoundingDivideByPOT: to nearest, ties away from zero. */
static inline int32_t tfsparse_divide(int32_t value, int exponent) {
  if (exponent == 0) return value;
  return (value + (1 << (exponent - 1)) + (value >> 31)) >> exponent;
}

static inline int32_t tfsparse_clamp(int32_t value, int32_t minimum, int32_t maximum) {
  return value < minimum ? minimum : value > maximum ? maximum : value;
}

/* twice / 2 * multiplier / 2^31 / 2^shift, rounded twice; what is added before the division is
 * offset. |twice| < 2^31 - 2^23, 1 <= shift. One rounding is by the sign of `twice`, not that of
 * the product: they differ where the product is 0, and there the result is the same. */
static inline int32_t tfsparse_scale(int32_t twice, int32_t multiplier, int32_t offset, int shift) {
#if TFSPARSE_DSP
  int32_t high;
  __asm__("smmlar %0, %1, %2, %3" : "=r"(high) : "r"(twice), "r"(multiplier), "r"(offset));
#else
  const int32_t high = tfsparse_multiply_high(twice / 2, multiplier) + offset;
#endif
  return (high + (twice >> 31)) >> shift;
}

static inline int8_t tfsparse_saturate(int32_t value) {
#if TFSPARSE_DSP
  __asm__("ssat %0, #8, %0" : "+r"(value));
  return (int8_t)value;
#else
  return (int8_t)tfsparse_clamp(value, -128, 127);
#endif
}

/* sum * multiplier / 2^31 / 2^shift + zero point, rounded twice, in [-128, 127].
 * |sum| < 2^30, 1 <= shift <= 22; offset has the zero point. */
static inline int8_t tfsparse_requantize(int32_t sum, int32_t multiplier, int32_t offset,
                                         int shift) {
  return tfsparse_saturate(tfsparse_scale(sum * 2, multiplier, offset, shift));
}

/* Two numbers that weights meet together. */
#if TFSPARSE_DSP
typedef int32_t tfsparse_element;
#else
typedef struct {
  int8_t first, second;
} tfsparse_element;
#endif

enum { TFSPARSE_WORDS = 4, TFSPARSE_LANE = 23 };

/* All filters at one block of outputs, the neighbors of which read neighboring elements. Assembler
 * knows the order of the fields. */
typedef struct {
  const int8_t *weights;
  const tfsparse_element *inputs;
  int8_t *output;
  int32_t step, lane; /* bytes between outputs: of neighboring elements, and in one element */
  const int32_t *filters;
  int32_t rounding; /* 2 * zero point + 1 */
  const int8_t *last;
  int32_t next; /* bytes from one filter's inputs to the next one's */
} tfsparse_block;

/* In sweep.c: calls `multiply` for all blocks of an image. */
void tfsparse_sweep(const int8_t *input, const tfsparse_convolution *layer, int8_t *output,
                    void *scratch, void (*multiply)(tfsparse_block *));

enum { TFSPARSE_MAX_KERNEL = 16 };

/* Bytes of a padded row, in words. */
static inline int32_t tfsparse_padded_bytes(const tfsparse_convolution *layer) {
  const int columns = (layer->output_width - 1) * layer->stride_width + layer->kernel_width;
  return (columns * layer->input_channels + 7) & ~3; /* quads may end behind it */
}

/* Copies a row of the image, or of zeros outside it, with its padding. */
static inline void tfsparse_pad_row(const int8_t *input, const tfsparse_convolution *layer, int row,
                                    int8_t *copy) {
  const int columns = (layer->output_width - 1) * layer->stride_width + layer->kernel_width;
  const int channels = layer->input_channels, width = layer->input_width, left = layer->pad_left;
  const int zero = layer->input_zero_point;
  if (row < 0 || row >= layer->input_height) {
    memset(copy, zero, (size_t)(columns * channels));
    return;
  }
  const int inside = columns - left < width ? columns - left : width;
  memset(copy, zero, (size_t)(left * channels));
  memcpy(copy + left * channels, input + row * width * channels, (size_t)(inside * channels));
  memset(copy + (left + inside) * channels, zero, (size_t)((columns - left - inside) * channels));
}

/* A fused activation that is narrower than int8. */
__attribute__((noinline, unused)) TFSPARSE_SMALL static void tfsparse_activate(
    int8_t *output, int32_t count, int32_t minimum, int32_t maximum) {
  if (minimum == -128 && maximum == 127) return;
#if TFSPARSE_DSP
  const int32_t low = (minimum & 255) * 0x01010101, high = (maximum & 255) * 0x01010101;
  for (; count >= 4; count -= 4, output += 4) {
    int32_t difference, quad = tfsparse_load4(output);
    __asm__(
        "ssub8 %0, %1, %2\n sel %1, %1, %2\n"
        "ssub8 %0, %3, %1\n sel %1, %1, %3\n"
        : "=&r"(difference), "+r"(quad)
        : "r"(low), "r"(high));
    ((tfsparse_unaligned *)(void *)output)->word = quad;
  }
#endif
  for (; count; count--, output++) *output = (int8_t)tfsparse_clamp(*output, minimum, maximum);
}

#endif
