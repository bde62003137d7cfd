// Cells of 32 bits, what the layers multiply: floats or, where `pairs` is 1, two numbers in bfloat16.
//
// A product of two vectors of cells then adds two products in each lane, in floats, at the price of one. Numbers too
// small for a normal bfloat16 count as zero, whatever the process does with those of floats.

#pragma once

#include "vectors.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#define HAS_PAIRS 1
typedef int32_t bits __attribute__((may_alias));

INLINE vec spread(const float *cell, const int pairs) {
  if (pairs) return (vec)_mm512_set1_epi32(*(const bits *)cell);
  return *cell - zero();
}
INLINE vec multiply_add(vec total, vec a, vec b, const int pairs) {
  if (pairs) return (vec)_mm512_dpbf16_ps((__m512)total, (__m512bh)a, (__m512bh)b);
  return total + a * b;
}
// Of vectors of numbers a and b: a0 a1, a2 a3, ..., b0 b1, ...
INLINE vec neighbours(vec a, vec b) { return (vec)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }
// a0 b0, a1 b1, ...
INLINE vec interleaved(vec a, vec b) {
  typedef uint16_t halves __attribute__((vector_size(64)));
  const halves order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (vec)_mm512_permutexvar_epi16((__m512i)order, (__m512i)neighbours(a, b));
}
// Up to `n` numbers, and zeros.
INLINE vec load_some(const float *p, long n) {
  return (vec)_mm512_maskz_loadu_ps((__mmask16)(n >= LANES ? 0xffff : n > 0 ? (1 << n) - 1 : 0), p);
}
#else
#define HAS_PAIRS 0
INLINE vec spread(const float *cell, const int pairs) { return (void)pairs, *cell - zero(); }
INLINE vec multiply_add(vec total, vec a, vec b, const int pairs) { return (void)pairs, total + a * b; }
#endif

// cells.c: to cells of pairs, which `cells` has room for in whole vectors. Without HAS_PAIRS they are not called.
void pair_neighbours(const float *numbers, long n, float *cells);
void pair_rows(const float *rows, long stride, int n, int width, float *cells);
void pair_ahead(const float *numbers, long n, long step, float *cells);
