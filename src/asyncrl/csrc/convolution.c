// Convolutions without padding, of one image, channels last.

#include <string.h>

#include "cells.h"
#include "torso.h"

#define CASE(N, CALL) \
  case N: { \
    enum { P = N }; \
    CALL; \
    break; \
  }
#if TILE == 10
#define WIDE_CASES(CALL) CASE(10, CALL) CASE(9, CALL) CASE(8, CALL) CASE(7, CALL)
#else
#define WIDE_CASES(CALL)
#endif
#define ALL_CASES(CALL) \
  WIDE_CASES(CALL) CASE(6, CALL) CASE(5, CALL) CASE(4, CALL) CASE(3, CALL) CASE(2, CALL) CASE(1, CALL)

// One pixel's bytes of an image to floats [c].
void read_pixel(const Torso *t, const uint8_t *bytes, int last, int pixel, float *out) {
  const Layer *y = &t->layer[0];
  const int pixels = y->h * y->w, c = y->c;
  for (int i = 0; i < c; i++) {
    float value = bytes[last ? pixel * c + i : i * pixels + pixel];
    out[i] = (value - (t->mean ? t->mean[pixel * c + i] : 0)) * t->scale;
  }
}

// Bytes [c][h][w], or [h][w][c] if `last`, to floats [h][w][c].
void read_image(const Torso *t, const uint8_t *bytes, int last, float *out) {
  const Layer *y = &t->layer[0];
  const int pixels = y->h * y->w, c = y->c, n = pixels * c;
  const float scale = t->scale;
  const float *mean = t->mean;
  int pixel = 0;
  if (!last && c == 4) { // four frames
    const uint8_t *p0 = bytes, *p1 = p0 + pixels, *p2 = p1 + pixels, *p3 = p2 + pixels;
    for (; pixel + 16 <= pixels; pixel += 16) {
      b16 a = *(const b16 *)(p0 + pixel), b = *(const b16 *)(p1 + pixel);
      b16 e = *(const b16 *)(p2 + pixel), f = *(const b16 *)(p3 + pixel);
      // Even channels with even ones and odd with odd, twice: a e b f in turn.
      b16 ae[2] = {LOW(a, e), HIGH(a, e)};
      b16 bf[2] = {LOW(b, f), HIGH(b, f)};
      for (int half = 0; half < 2; half++) {
        b16 quarter[2] = {LOW(ae[half], bf[half]), HIGH(ae[half], bf[half])};
        const uint8_t *from = (const uint8_t *)quarter;
        for (int i = 0; i < 32; i += LANES) {
          int at = pixel * 4 + half * 32 + i;
          vec v = __builtin_convertvector(*(const lane_bytes *)(from + i), vec);
          if (mean) v -= load(mean + at);
          store(out + at, v * scale);
        }
      }
    }
  }
  if (last || c == 1) {
    for (int i = 0; i < n; i++) out[i] = ((float)bytes[i] - (mean ? mean[i] : 0)) * scale;
    return;
  }
  for (; pixel < pixels; pixel++) read_pixel(t, bytes, last, pixel, out + pixel * c);
}

// P outputs at `at` of a whole image or, if that is NULL, side by side from what the first of them sees. `pairs`: 1 if
// cells are pairs of neighbours, of which there are half as many; else 0.
INLINE void convolve_tile(
    const Layer *y, const float *in, float *out, const Place *at, int o, const int P, const int V, const int pairs
) {
  vec acc[TILE][2];
  const int run = y->k * y->c >> pairs, step = y->s * y->c >> pairs, row = y->w * y->c >> pairs, oc = y->oc;
  int from[TILE], to[TILE];
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) {
    from[p] = at ? at[p].y * y->s * row + at[p].x * step : p * step;
    to[p] = at ? (at[p].y * y->ow + at[p].x) * oc : p * oc;
    for (int v = 0; v < V; v++) acc[p][v] = load(y->bias + o + v * LANES);
  }
  for (int ky = 0; ky < y->k; ky++) {
    const float *x = in + ky * row, *weights = y->forward + ky * run * oc + o;
    for (int j = 0; j < run; j++) {
      vec w[2];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) w[v] = load(weights + j * oc + v * LANES);
#pragma GCC unroll 16
      for (int p = 0; p < P; p++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) acc[p][v] = multiply_add(acc[p][v], spread(x + from[p] + j, pairs), w[v], pairs);
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(out + to[p] + o + v * LANES, relu(acc[p][v]));
}

INLINE void convolve_all(const Layer *y, const float *in, float *out, const int pairs) {
  const int tiles = (y->ow + TILE - 1) / TILE, width = (y->ow + tiles - 1) / tiles;
  for (int oy = 0; oy < y->oh; oy++)
    for (int ox = 0; ox < y->ow; ox += width) {
      const int n = y->ow - ox < width ? y->ow - ox : width;
      const float *from = in + ((oy * y->s * y->w + ox * y->s) * y->c >> pairs);
      float *to = out + (oy * y->ow + ox) * y->oc;
      int o = 0;
      for (; o + 2 * LANES <= y->oc; o += 2 * LANES)
        switch (n) { ALL_CASES(convolve_tile(y, from, to, NULL, o, P, 2, pairs)) }
      for (; o < y->oc; o += LANES) switch (n) { ALL_CASES(convolve_tile(y, from, to, NULL, o, P, 1, pairs)) }
    }
}

INLINE void convolve_places(const Layer *y, const float *in, float *out, const Places *places, const int pairs) {
  for (int first = 0; first < places->n; first += TILE) {
    const Place *at = places->at + first;
    const int n = places->n - first < TILE ? places->n - first : TILE;
    int o = 0;
    for (; o + 2 * LANES <= y->oc; o += 2 * LANES)
      switch (n) { ALL_CASES(convolve_tile(y, in, out, at, o, P, 2, pairs)) }
    for (; o < y->oc; o += LANES) switch (n) { ALL_CASES(convolve_tile(y, in, out, at, o, P, 1, pairs)) }
  }
}

void convolve(const Torso *t, const Layer *y, const float *in, float *out) {
  if (!HAS_PAIRS || !y->pairs) {
    convolve_all(y, in, out, 0);
    return;
  }
  pair_neighbours(in, y->h * y->w * y->c, t->packed);
  convolve_all(y, t->packed, out, 1);
}

// Only the outputs at some places: the same numbers, as they are the same sums.
void convolve_at(const Torso *t, const Layer *y, const float *in, float *out, const Places *places) {
  if (!HAS_PAIRS || !y->pairs) {
    convolve_places(y, in, out, places, 0);
    return;
  }
  pair_neighbours(in, y->h * y->w * y->c, t->packed);
  convolve_places(y, t->packed, out, places, 1);
}

// `pairs`: 1 if cells are pairs of what is multiplied at two positions, one after the other; else 0.
INLINE void weights_tile(
    const Layer *y, const float *in, const float *dy, float *gradient, int ky, int j, int o, const int P,
    const int pairs
) {
  vec acc[WEIGHTS];
  const int step = y->s * y->c << pairs, row = y->w * y->c, oc = y->oc, steps = (y->ow + pairs) >> pairs;
  float *to = gradient + (ky * y->k * y->c + j) * oc + o;
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) acc[p] = load(to + p * oc);
  for (int oy = 0; oy < y->oh; oy++) {
    const float *x = in + (oy * y->s + ky) * row + j, *d = dy + oy * steps * oc + o;
    for (int i = 0; i < steps; i++, x += step, d += oc) {
      vec dv = load(d);
#pragma GCC unroll 16
      for (int p = 0; p < P; p++) acc[p] = multiply_add(acc[p], spread(x + p, pairs), dv, pairs);
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) store(to + p * oc, acc[p]);
}

INLINE void add_all_weights(Layer *y, const float *in, const float *dy, const int pairs) {
  const int run = y->k * y->c;
  for (int ky = 0; ky < y->k; ky++)
    for (int o = 0; o < y->oc; o += LANES) {
      int j = 0;
      for (; j + WEIGHTS <= run; j += WEIGHTS) weights_tile(y, in, dy, y->gradient, ky, j, o, WEIGHTS, pairs);
      for (; j + 4 <= run; j += 4) weights_tile(y, in, dy, y->gradient, ky, j, o, 4, pairs);
      for (; j < run; j++) weights_tile(y, in, dy, y->gradient, ky, j, o, 1, pairs);
    }
}

// Add the gradient of the packed weights.
void add_weights(const Torso *t, Layer *y, const float *in, const float *dy) {
  if (!HAS_PAIRS || !y->pairs) {
    add_all_weights(y, in, dy, 0);
    return;
  }
  const int row = y->ow * y->oc, packed_row = (y->ow + 1) / 2 * y->oc;
  pair_ahead(in, y->h * y->w * y->c, y->s * y->c, t->packed);
  for (int oy = 0; oy < y->oh; oy++)
    pair_rows(dy + oy * row, y->oc, y->ow, y->oc, t->packed_gradient + oy * packed_row);
  add_all_weights(y, t->packed, t->packed_gradient, 1);
}

void add_biases(const Layer *y, const float *dy, float *gradient) {
  for (int p = 0; p < y->oh * y->ow; p++)
    for (int o = 0; o < y->oc; o += LANES) store(gradient + o, load(gradient + o) + load(dy + p * y->oc + o));
}

// `pairs`: 1 if cells are pairs of neighbours among the outputs' channels; else 0.
INLINE void inputs_tile(
    const Layer *y, const float *dy, float *dx, int ky, int j, const int P, const int V, const int pairs
) {
  vec acc[INPUT_TILE][4];
  const int run = y->k * y->c, step = y->s * y->c, oc = y->oc >> pairs;
  const float *weights = y->backward + ky * oc * run + j;
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[p][v] = zero();
  for (int o = 0; o < oc; o++) {
    vec w[4];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) w[v] = load(weights + o * run + v * LANES);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++)
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[p][v] = multiply_add(acc[p][v], spread(dy + p * oc + o, pairs), w[v], pairs);
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) // positions overlap: one after the other
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      float *to = dx + p * step + j + v * LANES;
      store(to, load(to) + acc[p][v]);
    }
}

#if INPUT_TILE == 5
#define FEW_CASES(CALL) CASE(5, CALL) CASE(4, CALL) CASE(3, CALL) CASE(2, CALL) CASE(1, CALL)
#else
#define FEW_CASES(CALL) CASE(3, CALL) CASE(2, CALL) CASE(1, CALL)
#endif
INLINE void set_all_inputs(const Layer *y, const float *dy, float *dx, const int pairs) {
  const int run = y->k * y->c, oc = y->oc >> pairs;
  memset(dx, 0, sizeof(float) * (size_t)(y->h * y->w * y->c));
  for (int oy = 0; oy < y->oh; oy++)
    for (int ky = 0; ky < y->k; ky++) {
      float *to = dx + (oy * y->s + ky) * y->w * y->c;
      for (int ox = 0; ox < y->ow; ox += INPUT_TILE) {
        const float *from = dy + (oy * y->ow + ox) * oc;
        const int n = y->ow - ox < INPUT_TILE ? y->ow - ox : INPUT_TILE;
        float *at = to + ox * y->s * y->c;
        int j = 0;
        for (; j + 4 * LANES <= run; j += 4 * LANES)
          switch (n) { FEW_CASES(inputs_tile(y, from, at, ky, j, P, 4, pairs)) }
        for (; j < run; j += LANES)
          for (int p = 0; p < n; p++) inputs_tile(y, from + p * oc, at + p * y->s * y->c, ky, j, 1, 1, pairs);
      }
    }
}

// dx: [h][w][c], from dy [oh][ow][oc]. c is a multiple of 16, as it is of outputs.
void set_inputs(const Torso *t, const Layer *y, const float *dy, float *dx) {
  if (!HAS_PAIRS || !y->pairs) {
    set_all_inputs(y, dy, dx, 0);
    return;
  }
  pair_neighbours(dy, y->outputs, t->packed_gradient);
  set_all_inputs(y, t->packed_gradient, dx, 1);
}
