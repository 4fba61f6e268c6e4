/* Convolutions of which single weights are pruned, or with one filter per channel: each weight takes
 * part at eight pixels.
 *
 * The elements of sweep.c have the inputs of two outputs: of the left and the right half of a row,
 * or, in narrow images, of two rows. With the DSP extension they are words, x0 + 2^23 * x1, and
 * SMLAL adds both products to a sum of 64 bits whose lower 23 bits are one output's and whose upper
 * bits the other's.
 *
 * weights, for each filter and weight: the weight, and how many elements its inputs are behind
 * those of the weight before. An even number of them for each filter; padded by weights of 0.
 * filters, for each: bias; multiplier; bytes of its weights * 256 + shift. There is no array shift.
 */
#include "tfsparse_inline.h"

#if TFSPARSE_DSP
/* A weight takes 9 instructions for 8 products; the sums stay in r4 to r11. */
TFSPARSE_NAKED static void multiply(tfsparse_block *job __attribute__((unused))) {
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
static void multiply(tfsparse_block *job) {
  for (; job->output != job->last; job->output++, job->filters += 3) {
    const int32_t bias = job->filters[0], multiplier = job->filters[1];
    const int shift = job->filters[2] & 255;
    const tfsparse_element *inputs = job->inputs;
    int32_t sums[2 * TFSPARSE_WORDS] = {bias, bias, bias, bias, bias, bias, bias, bias};
    for (int32_t bytes = job->filters[2] >> 8; bytes; bytes -= 2, job->weights += 2) {
      const int32_t weight = job->weights[0];
      inputs += (uint8_t)job->weights[1];
      for (int i = 0; i < TFSPARSE_WORDS; i++) {
        sums[i] += weight * inputs[i].first;
        sums[TFSPARSE_WORDS + i] += weight * inputs[i].second;
      }
    }
    for (int i = 0; i < 2 * TFSPARSE_WORDS; i++)
      job->output[i % TFSPARSE_WORDS * job->step + i / TFSPARSE_WORDS * job->lane] = tfsparse_requantize(
          sums[i], multiplier, job->rounding * (1 << shift) >> 1, shift);
    job->inputs += job->next / (int32_t)sizeof(tfsparse_element);
  }
}
#endif

void tfsparse_convolve_sparse(const int8_t *input, const tfsparse_convolution *layer,
                              int8_t *output, void *scratch) {
  tfsparse_sweep(input, layer, output, scratch, multiply);
}
