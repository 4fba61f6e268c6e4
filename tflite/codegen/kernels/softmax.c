/* Softmax as LiteRT computes it in int8: exponentials from a table, and 1 / their sum by Newton's
 * method in fixed point. Numbers have 31 bits after the point, unless said otherwise.
 */
#include "tfsparse_inline.h"

static int32_t multiply(int32_t a, int32_t b) {
  return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* number / 2^places, halves away from zero. */
static int32_t divide(int32_t number, int places) {
  const int32_t mask = (int32_t)((1u << places) - 1), half = (mask >> 1) + (number < 0);
  return (number >> places) + ((number & mask) > half);
}

static int32_t saturated(int64_t number) {
  return number > INT32_MAX ? INT32_MAX : number < INT32_MIN ? INT32_MIN : (int32_t)number;
}

/* 1 / (1 + a) for a in [0, 1); x is that, half as large, with 2 bits before the point. */
static int32_t reciprocal(int32_t a) {
  const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
  int32_t x = 1515870810 + multiply(half, -1010580540); /* 48 / 17 - 32 / 17 of half */
  for (int i = 0; i < 3; i++)
    x += saturated((int64_t)multiply(x, (1 << 29) - multiply(half, x)) * 4);
  return saturated((int64_t)x * 2);
}

void tfsparse_softmax(const int8_t *input, const int32_t *exponentials, int32_t count,
                      int8_t *output) {
  int32_t largest = -128, sum = 0, over = 12;
  for (int32_t i = 0; i < count; i++)
    if (input[i] > largest) largest = input[i];
  const int32_t *const table = exponentials + 255 - largest;
  for (int32_t i = 0; i < count; i++) sum += divide(table[input[i]], 12);
  uint32_t shifted = (uint32_t)sum; /* 12 bits before the point */
  for (; !(shifted >> 31); shifted <<= 1) over--;
  const int32_t scale = reciprocal((int32_t)(shifted - ((uint32_t)1 << 31)));
  for (int32_t i = 0; i < count; i++) {
    const int32_t share = divide(multiply(scale, table[input[i]]), over + 23);
    output[i] = (int8_t)(share > 255 ? 127 : share - 128);
  }
}
