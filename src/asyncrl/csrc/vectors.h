// Vectors of floats, as wide as the processor has them, in the C compiler's own notation.

#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
// Sums that are kept in registers at once: AVX-512 has 32 of them, other x86 16.
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE 10       // positions of a convolution, times two vectors of channels
#define WEIGHTS 16    // weights of a convolution
#define INPUT_TILE 5  // positions of a convolution's gradient, times four vectors
#define ROWS 4        // images or units of the linear layer, times four
#else
#define TILE 6
#define WEIGHTS 12
#define INPUT_TILE 3
#define ROWS 2
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t lane_bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint8_t b16 __attribute__((vector_size(16), aligned(1), may_alias));

// Numbers of two vectors by their places.
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, type, ...) __builtin_shuffle(a, b, (type __attribute__((vector_size(sizeof(a))))){__VA_ARGS__})
#endif
#define LOW(a, b) PICK(a, b, uint8_t, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) PICK(a, b, uint8_t, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#if LANES == 16
#define EVEN(a, b) PICK(a, b, int32_t, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) PICK(a, b, int32_t, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#elif LANES == 8
#define EVEN(a, b) PICK(a, b, int32_t, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b) PICK(a, b, int32_t, 1, 3, 5, 7, 9, 11, 13, 15)
#else
#define EVEN(a, b) PICK(a, b, int32_t, 0, 2, 4, 6)
#define ODD(a, b) PICK(a, b, int32_t, 1, 3, 5, 7)
#endif

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec zero(void) { return (vec){0}; }
INLINE float sum(vec v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}
// As PyTorch's: what is not a number stays so, and is noticed.
INLINE vec relu(vec v) { return (vec)((__typeof__(v < zero()))v & ~(v < zero())); }
