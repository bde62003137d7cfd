// Vectors of 16 floats, in the C compiler's own notation: AVX-512 has them, elsewhere it takes several narrower ones.

#pragma once

#include <stdint.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t b16 __attribute__((vector_size(16), aligned(1), may_alias));

// Numbers of two vectors by their places.
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, type, ...) __builtin_shuffle(a, b, (type __attribute__((vector_size(16 * sizeof(type))))){__VA_ARGS__})
#endif
#define LOW(a, b) PICK(a, b, uint8_t, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) PICK(a, b, uint8_t, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define EVEN(a, b) PICK(a, b, int32_t, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) PICK(a, b, int32_t, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)

INLINE v16 load(const float *p) { return *(const v16 *)p; }
INLINE void store(float *p, v16 v) { *(v16 *)p = v; }
INLINE v16 zero(void) { return (v16){0}; }
INLINE float sum(v16 v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}
// As PyTorch's: what is not a number stays so, and is noticed.
INLINE v16 relu(v16 v) { return (v16)((__typeof__(v < zero()))v & ~(v < zero())); }
