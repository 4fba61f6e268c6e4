/* What compilers call without being asked, for programs without a C library. */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
  unsigned char *t = to;
  const unsigned char *f = from;
  if ((((uintptr_t)t | (uintptr_t)f) & 3) == 0)
    for (; n >= 4; n -= 4, t += 4, f += 4)
      *(uint32_t *)(void *)t = *(const uint32_t *)(const void *)f;
  while (n--) *t++ = *f++;
  return to;
}

void *memset(void *to, int value, size_t n) {
  unsigned char *t = to;
  const uint32_t word = (value & 255) * 0x01010101u;
  if (((uintptr_t)t & 3) == 0)
    for (; n >= 4; n -= 4, t += 4) *(uint32_t *)(void *)t = word;
  while (n--) *t++ = (unsigned char)value;
  return to;
}

void __aeabi_memcpy(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memcpy4(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memcpy8(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memset(void *to, size_t n, int value) { memset(to, value, n); }
void __aeabi_memset4(void *to, size_t n, int value) { memset(to, value, n); }
void __aeabi_memset8(void *to, size_t n, int value) { memset(to, value, n); }
void __aeabi_memclr(void *to, size_t n) { memset(to, 0, n); }
void __aeabi_memclr4(void *to, size_t n) { memset(to, 0, n); }
void __aeabi_memclr8(void *to, size_t n) { memset(to, 0, n); }

/* Cortex-M0 does not divide. The rest is in the upper word. */
uint64_t __aeabi_uidivmod(uint32_t a, uint32_t b) {
  uint32_t quotient = 0, rest = 0;
  for (int i = 31; i >= 0; i--) {
    rest = rest << 1 | (a >> i & 1);
    if (rest >= b) {
      rest -= b;
      quotient |= 1u << i;
    }
  }
  return (uint64_t)rest << 32 | quotient;
}

uint64_t __aeabi_idivmod(int32_t a, int32_t b) {
  const uint32_t numerator = a < 0 ? -(uint32_t)a : (uint32_t)a;
  const uint64_t both = __aeabi_uidivmod(numerator, b < 0 ? -(uint32_t)b : (uint32_t)b);
  const uint32_t quotient = (uint32_t)both, rest = (uint32_t)(both >> 32);
  return (uint64_t)(a < 0 ? -rest : rest) << 32 | ((a < 0) != (b < 0) ? -quotient : quotient);
}

uint32_t __aeabi_uidiv(uint32_t a, uint32_t b) { return (uint32_t)__aeabi_uidivmod(a, b); }
int32_t __aeabi_idiv(int32_t a, int32_t b) { return (int32_t)__aeabi_idivmod(a, b); }
