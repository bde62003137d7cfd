// From numbers to cells of pairs.

#include "cells.h"

#if HAS_PAIRS
// numbers[2 i] and numbers[2 i + 1] for each i.
void pair_neighbours(const float *numbers, long n, float *cells) {
  long i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES)
    store(cells + i / 2, neighbours(load(numbers + i), load(numbers + i + LANES)));
  if (i < n) {
    const vec second = load_some(numbers + i + LANES, n - i - LANES);
    store(cells + i / 2, neighbours(load_some(numbers + i, n - i), second));
  }
}

// Numbers of rows 2 r and 2 r + 1, which are `stride` apart, in the row r of `cells`, [width] as well; a zero where
// there is no other row. `width` is a multiple of LANES. `cells` may be `rows` itself.
void pair_rows(const float *rows, long stride, int n, int width, float *cells) {
  for (int r = 0; r < n; r += 2, rows += 2 * stride, cells += width)
    for (int i = 0; i < width; i += LANES)
      store(cells + i, interleaved(load(rows + i), r + 1 < n ? load(rows + stride + i) : zero()));
}

// numbers[i] and numbers[i + step] for each i; zeros after the end.
void pair_ahead(const float *numbers, long n, long step, float *cells) {
  long i = 0;
  for (; i + step + LANES <= n; i += LANES)
    store(cells + i, interleaved(load(numbers + i), load(numbers + i + step)));
  for (; i < n; i += LANES)
    store(cells + i, interleaved(load_some(numbers + i, n - i), load_some(numbers + i + step, n - i - step)));
}
#else
void pair_neighbours(const float *numbers, long n, float *cells) { (void)numbers, (void)n, (void)cells; }
void pair_rows(const float *rows, long stride, int n, int width, float *cells) {
  (void)rows, (void)stride, (void)n, (void)width, (void)cells;
}
void pair_ahead(const float *numbers, long n, long step, float *cells) {
  (void)numbers, (void)n, (void)step, (void)cells;
}
#endif
