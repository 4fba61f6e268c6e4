/* Convolutions in which neighboring filters keep the same taps of neighboring channels, such as
 * periodic ones: two filters by two channels by four pixels at a time.
 *
 * The elements of sweep.c have two channels.
 *
 * weights, for each pair of filters (A, B), for each element that they read: how many elements
 * behind the one before, and the weights of its channels (a, b): Aa Ba Ab Bb. An even number of them
 * for each pair of filters; padded by weights of 0.
 * filters, for each pair: bias and multiplier of A; of B; then shift of A + shift of B * 256 + bytes
 * of the pair's weights * 65536. There is no array shift.
 */
#include "tfsparse_inline.h"

#if TFSPARSE_DSP
/* An element takes 15 instructions for 16 products; the sums of A are in r4 to r7, of B in r8 to
 * r11. */
TFSPARSE_NAKED static void multiply(tfsparse_block *job __attribute__((unused))) {
#define ELEMENT                  \
  "ldrb r12, [r0], #1\n"         \
  "ldr r3, [r0], #4\n"           \
  "add r1, r1, r12, lsl #2\n"    \
  "sxtb16 r2, r3\n"              \
  "sxtb16 r3, r3, ror #8\n"      \
  "ldrd r12, lr, [r1]\n"         \
  "smlad r4, r2, r12, r4\n"      \
  "smlad r8, r3, r12, r8\n"      \
  "smlad r5, r2, lr, r5\n"       \
  "smlad r9, r3, lr, r9\n"       \
  "ldrd r12, lr, [r1, #8]\n"     \
  "smlad r6, r2, r12, r6\n"      \
  "smlad r10, r3, r12, r10\n"    \
  "smlad r7, r2, lr, r7\n"       \
  "smlad r11, r3, lr, r11\n"
/* As in tfsparse_scale. */
#define REQUANTIZE(sum)                     \
  "lsl " sum ", " sum ", #1\n"              \
  "smmlar lr, " sum ", r1, r2\n"            \
  "add " sum ", lr, " sum ", asr #31\n"     \
  "asr " sum ", " sum ", r3\n"              \
  "ssat " sum ", #8, " sum "\n"
  __asm__ volatile(
      "push {r0-r1, r4-r11, lr}\n" /* job, and a place for the end of the weights */
      "0:\n"
      "ldr r3, [sp]\n"
      "ldr r12, [r3, #20]\n"
      "ldrd r0, r1, [r3]\n"
      "ldr r2, [r12, #16]\n"
      "ldr r4, [r12]\n"
      "ldr r8, [r12, #8]\n"
      "add r2, r0, r2, lsr #16\n"
      "str r2, [sp, #4]\n"
      "mov r5, r4\n mov r6, r4\n mov r7, r4\n"
      "mov r9, r8\n mov r10, r8\n mov r11, r8\n"
      "1:\n" ELEMENT ELEMENT
      "ldr r2, [sp, #4]\n"
      "cmp r0, r2\n"
      "bne 1b\n"
      "ldr lr, [sp]\n"
      "str r0, [lr]\n"
      "ldrd r12, r2, [lr, #20]\n" /* filters, rounding */
      "ldr r1, [r12, #4]\n"
      "ldrb r3, [r12, #16]\n"
      "lsls r2, r2, r3\n"
      "asrs r2, r2, #1\n"
      REQUANTIZE("r4") REQUANTIZE("r5") REQUANTIZE("r6") REQUANTIZE("r7")
      "ldr lr, [sp]\n"
      "ldr r2, [lr, #24]\n"
      "ldr r1, [r12, #12]\n"
      "ldrb r3, [r12, #17]\n"
      "adds r12, r12, #20\n"
      "str r12, [lr, #20]\n"
      "lsls r2, r2, r3\n"
      "asrs r2, r2, #1\n"
      REQUANTIZE("r8") REQUANTIZE("r9") REQUANTIZE("r10") REQUANTIZE("r11")
      "ldr lr, [sp]\n"
      "ldrd r0, r12, [lr, #8]\n" /* output, step */
      "add r1, r12, r12, lsl #1\n"
      "strb r4, [r0]\n"
      "strb r5, [r0, r12]\n"
      "strb r6, [r0, r12, lsl #1]\n"
      "strb r7, [r0, r1]\n"
      "strb r8, [r0, #1]!\n"
      "strb r9, [r0, r12]\n"
      "strb r10, [r0, r12, lsl #1]\n"
      "strb r11, [r0, r1]\n"
      "adds r0, #1\n"
      "ldr r2, [lr, #28]\n"
      "str r0, [lr, #8]\n"
      "cmp r0, r2\n"
      "bne 0b\n"
      "pop {r0-r1, r4-r11, pc}\n");
#undef ELEMENT
#undef REQUANTIZE
}
#else
static void multiply(tfsparse_block *job) {
  for (; job->output != job->last; job->output += 2, job->filters += 5) {
    const int8_t *const end = job->weights + ((uint32_t)job->filters[4] >> 16);
    int32_t sums[2][TFSPARSE_WORDS];
    for (int i = 0; i < TFSPARSE_WORDS; i++) {
      sums[0][i] = job->filters[0];
      sums[1][i] = job->filters[2];
    }
    const tfsparse_element *inputs = job->inputs;
    for (const int8_t *weights = job->weights; weights != end; weights += 5) {
      inputs += (uint8_t)weights[0];
      for (int i = 0; i < TFSPARSE_WORDS; i++) {
        sums[0][i] += weights[1] * inputs[i].first + weights[3] * inputs[i].second;
        sums[1][i] += weights[2] * inputs[i].first + weights[4] * inputs[i].second;
      }
    }
    job->weights = end;
    for (int filter = 0; filter < 2; filter++) {
      const int32_t multiplier = job->filters[2 * filter + 1];
      const int shift = job->filters[4] >> 8 * filter & 255;
      for (int i = 0; i < TFSPARSE_WORDS; i++)
        job->output[i * job->step + filter] = tfsparse_requantize(
            sums[filter][i], multiplier, job->rounding * (1 << shift) >> 1, shift);
    }
  }
}
#endif

void tfsparse_convolve_pairs(const int8_t *input, const tfsparse_convolution *layer,
                             int8_t *output, void *scratch) {
  tfsparse_sweep(input, layer, output, scratch, multiply);
}
