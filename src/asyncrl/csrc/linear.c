// The linear layer and its ReLU, of many images.

#include <string.h>

#include "torso.h"
#include "vectors.h"

// One image: bound by reading the weights.
INLINE void linear_one(const Torso *t, const float *x, float *out, int o) {
  vec acc[8];
#pragma GCC unroll 16
  for (int i = 0; i < 8; i++) acc[i] = zero();
  const float *w = t->linear + (long)o * t->inputs;
  for (int k = 0; k < t->inputs; k += LANES) {
    vec xs = load(x + k);
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) acc[i] += xs * load(w + (long)i * t->inputs + k);
  }
  for (int i = 0; i < 8; i++) out[o + i] += sum(acc[i]);
}

// Add the products of 4 images and ROWS rows of weights over `n` inputs.
INLINE void linear_tile(const float *x, const float *w, int inputs, int n, float *out, int hidden) {
  vec acc[4 * ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < 4 * ROWS; i++) acc[i] = zero();
  for (int k = 0; k < n; k += LANES) {
    vec xs[4];
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) xs[i] = load(x + (long)i * inputs + k);
#pragma GCC unroll 16
    for (int o = 0; o < ROWS; o++) {
      vec ws = load(w + (long)o * inputs + k);
#pragma GCC unroll 16
      for (int i = 0; i < 4; i++) acc[ROWS * i + o] += xs[i] * ws;
    }
  }
  // Sums of all vectors at once: halves of two make one, until every lane is a sum.
#pragma GCC unroll 16
  for (int width = 2 * ROWS; width * LANES >= 4 * ROWS; width /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < width; i++)
      acc[i] = EVEN(acc[2 * i], acc[2 * i + 1]) + ODD(acc[2 * i], acc[2 * i + 1]);
  for (int i = 0; i < 4; i++)
    for (int o = 0; o < ROWS; o++) {
      const int at = ROWS * i + o;
      out[(long)i * hidden + o] += acc[at / LANES][at % LANES];
    }
}

#define CHUNK 512 // inputs at once, so that those of 8 images stay in the first-level cache

void linear(const Torso *t, const float *x, int n, float *out) {
  const int hidden = t->hidden, inputs = t->inputs, tiled = n / 4 * 4;
  for (int i = 0; i < n; i++) memcpy(out + (long)i * hidden, t->linear_bias, sizeof(float) * (size_t)hidden);
  for (int k = 0; k < inputs && tiled; k += CHUNK) {
    const int width = inputs - k < CHUNK ? inputs - k : CHUNK;
    for (int o = 0; o < hidden; o += ROWS)
      for (int i = 0; i < tiled; i += 4)
        linear_tile(
            x + (long)i * inputs + k, t->linear + (long)o * inputs + k, inputs, width,
            out + (long)i * hidden + o, hidden
        );
  }
  for (int i = tiled; i < n; i++)
    for (int o = 0; o < hidden; o += 8) linear_one(t, x + (long)i * inputs, out + (long)i * hidden, o);
  for (long i = 0; i < (long)n * hidden; i++) out[i] = out[i] < 0 ? 0 : out[i];
}

INLINE void linear_weights_tile(
    const float *x, const float *dy, int hidden, int n, const int *o, float *out, int inputs, const int O,
    const int V
) {
  vec acc[ROWS][4];
#pragma GCC unroll 16
  for (int i = 0; i < O; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[i][v] = zero();
  for (int r = 0; r < n; r++) {
    vec xs[4];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) xs[v] = load(x + (long)r * inputs + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < O; i++) {
      float d = dy[(long)r * hidden + o[i]];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[i][v] += d * xs[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < O; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(out + (long)o[i] * inputs + v * LANES, acc[i][v]);
}

INLINE void linear_inputs_tile(
    const Torso *t, const float *dy, int n, int k, int active, float *dx, const int N, const int V
) {
  vec acc[ROWS][4];
#pragma GCC unroll 16
  for (int i = 0; i < N; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[i][v] = zero();
  for (int a = 0; a < active; a++) {
    const int o = t->rows[a];
    vec w[4];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) w[v] = load(t->linear + (long)o * t->inputs + k + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      float d = dy[(long)(n + i) * t->hidden + o];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[i][v] += d * w[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(dx + (long)(n + i) * t->inputs + k + v * LANES, acc[i][v]);
}

// Hidden units with a gradient: few, where the batch is small, as a ReLU that gave 0 has none.
static int find_rows(Torso *t, const float *dy, int n) {
  int active = 0;
  memset(t->active, 0, sizeof(float) * (size_t)t->hidden);
  for (int r = 0; r < n; r++)
    for (int o = 0; o < t->hidden; o += LANES) {
      vec d = load(dy + (long)r * t->hidden + o);
      store(t->active + o, load(t->active + o) + d * d);
    }
  for (int o = 0; o < t->hidden; o++)
    if (t->active[o] != 0) t->rows[active++] = o; // also where it is not a number
  return active;
}

void linear_backward(
    Torso *t, const float *x, const float *dy, int n, float *weights, float *bias, float *dx
) {
  const int inputs = t->inputs, active = find_rows(t, dy, n);
  for (int o = 0, a = 0; o < t->hidden; o++) {
    if (a < active && t->rows[a] == o) a++;
    else memset(weights + (long)o * inputs, 0, sizeof(float) * (size_t)inputs);
  }
  memset(bias, 0, sizeof(float) * (size_t)t->hidden);
  for (int r = 0; r < n; r++)
    for (int o = 0; o < t->hidden; o += LANES) store(bias + o, load(bias + o) + load(dy + (long)r * t->hidden + o));
  for (int k = 0; k < inputs;) {
    const int wide = k + 4 * LANES <= inputs;
    int a = 0, i = 0;
    for (; a + ROWS <= active; a += ROWS) {
      if (wide) linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, ROWS, 4);
      else linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, ROWS, 1);
    }
    for (; a < active; a++) {
      if (wide) linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, 1, 4);
      else linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, 1, 1);
    }
    for (; i + ROWS <= n; i += ROWS) {
      if (wide) linear_inputs_tile(t, dy, i, k, active, dx, ROWS, 4);
      else linear_inputs_tile(t, dy, i, k, active, dx, ROWS, 1);
    }
    for (; i < n; i++) {
      if (wide) linear_inputs_tile(t, dy, i, k, active, dx, 1, 4);
      else linear_inputs_tile(t, dy, i, k, active, dx, 1, 1);
    }
    k += wide ? 4 * LANES : LANES;
  }
}
