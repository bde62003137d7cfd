// The linear layer and its ReLU, of many images.

#include <string.h>

#include "cells.h"
#include "torso.h"

#define CHUNK 512         // cells of inputs at once, so that those of 8 images stay in the first-level cache
#define PANEL (4 * LANES) // inputs whose gradients are computed at once
// Images that are packed at once, of as much memory as the second-level cache has room for: whole, and by panels.
#define IMAGES 16
#define GRADIENTS 256

// Numbers that packing needs room for: of inputs, and of gradients.
long linear_room(const Torso *t) {
  return larger((long)IMAGES * t->cells, (long)(GRADIENTS / 2 + t->hidden / 2) * PANEL);
}
long linear_gradient_room(const Torso *t) { return (long)GRADIENTS * t->hidden; }

void linear_load(Torso *t) {
  if (!t->pairs) return;
  for (int o = 0; o < t->hidden; o++)
    pair_neighbours(t->linear + (long)o * t->inputs, t->inputs, t->linear_cells + (long)o * t->cells);
}

// One image of `n` cells: bound by reading the weights.
INLINE void linear_one(const float *x, const float *w, int n, float *out, const int pairs) {
  vec acc[8];
#pragma GCC unroll 16
  for (int i = 0; i < 8; i++) acc[i] = zero();
  for (int k = 0; k < n; k += LANES) {
    vec xs = load(x + k);
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) acc[i] = multiply_add(acc[i], xs, load(w + (long)i * n + k), pairs);
  }
  for (int i = 0; i < 8; i++) out[i] += sum(acc[i]);
}

// Add the products of 4 images and ROWS rows of weights over `n` of their `cells`.
INLINE void linear_tile(const float *x, const float *w, int cells, int n, float *out, int hidden, const int pairs) {
  vec acc[4 * ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < 4 * ROWS; i++) acc[i] = zero();
  for (int k = 0; k < n; k += LANES) {
    vec xs[4];
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) xs[i] = load(x + (long)i * cells + k);
#pragma GCC unroll 16
    for (int o = 0; o < ROWS; o++) {
      vec ws = load(w + (long)o * cells + k);
      __builtin_prefetch(w + (long)(ROWS + o) * cells + k); // the next rows: no processor looks so far
#pragma GCC unroll 16
      for (int i = 0; i < 4; i++) {
        const int at = ROWS * i + o;
        acc[at] = multiply_add(acc[at], xs[i], ws, pairs);
      }
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

// Add to `out` what the cells of n images give.
INLINE void linear_add(const float *x, const float *w, int cells, int n, float *out, int hidden, const int pairs) {
  const int tiled = n / 4 * 4;
  for (int k = 0; k < cells && tiled; k += CHUNK) {
    const int width = cells - k < CHUNK ? cells - k : CHUNK;
    for (int o = 0; o < hidden; o += ROWS)
      for (int i = 0; i < tiled; i += 4)
        linear_tile(
            x + (long)i * cells + k, w + (long)o * cells + k, cells, width, out + (long)i * hidden + o, hidden, pairs
        );
  }
  for (int i = tiled; i < n; i++)
    for (int o = 0; o < hidden; o += 8)
      linear_one(x + (long)i * cells, w + (long)o * cells, cells, out + (long)i * hidden + o, pairs);
}

static void linear_pairs(const Torso *t, const float *x, int n, float *out) {
  for (int first = 0; first < n; first += IMAGES) {
    const int some = n - first < IMAGES ? n - first : IMAGES;
    for (int i = 0; i < some; i++)
      pair_neighbours(x + (long)(first + i) * t->inputs, t->inputs, t->packed + (long)i * t->cells);
    linear_add(t->packed, t->linear_cells, t->cells, some, out + (long)first * t->hidden, t->hidden, 1);
  }
}

void linear(const Torso *t, const float *x, int n, float *out) {
  const int hidden = t->hidden, inputs = t->inputs;
  for (int i = 0; i < n; i++) memcpy(out + (long)i * hidden, t->linear_bias, sizeof(float) * (size_t)hidden);
  if (HAS_PAIRS && t->pairs) linear_pairs(t, x, n, out);
  else linear_add(x, t->linear, inputs, n, out, hidden, 0);
  for (long i = 0; i < (long)n * hidden; i++) out[i] = out[i] < 0 ? 0 : out[i];
}

// Set, or add to, the gradient of O rows of weights. x: n rows of cells, `stride` apart. `pairs`: 1 if cells are pairs
// of what is multiplied in two images, one after the other; else 0.
INLINE void linear_weights_tile(
    const float *x, long stride, const float *dy, int hidden, int n, int adds, const int *o, float *out, int inputs,
    const int O, const int V, const int pairs
) {
  vec acc[ROWS][4];
#pragma GCC unroll 16
  for (int i = 0; i < O; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[i][v] = adds ? load(out + (long)o[i] * inputs + v * LANES) : zero();
  for (int r = 0; r < n; r++) {
    vec xs[4];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) xs[v] = load(x + r * stride + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < O; i++) {
      vec d = spread(dy + (long)r * hidden + o[i], pairs);
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[i][v] = multiply_add(acc[i][v], xs[v], d, pairs);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < O; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(out + (long)o[i] * inputs + v * LANES, acc[i][v]);
}

// Set the gradients of N images' inputs from dy, [N][width] cells. w: rows of cells, `stride` apart. `pairs`: 1 if cells
// are pairs of neighbouring units; else 0.
INLINE void linear_inputs_tile(
    const float *w, long stride, const float *dy, int width, const int *rows, int active, float *dx, int inputs,
    const int N, const int V, const int pairs
) {
  vec acc[ROWS][4];
#pragma GCC unroll 16
  for (int i = 0; i < N; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[i][v] = zero();
  for (int a = 0; a < active; a++) {
    vec ws[4];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) ws[v] = load(w + rows[a] * stride + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      vec d = spread(dy + (long)i * width + rows[a], pairs);
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[i][v] = multiply_add(acc[i][v], ws[v], d, pairs);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(dx + (long)i * inputs + v * LANES, acc[i][v]);
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

// The same of two units each.
static int find_pairs(Torso *t) {
  int active = 0;
  for (int o = 0; o < t->hidden; o += 2)
    if (t->active[o] != 0 || t->active[o + 1] != 0) t->active_pairs[active++] = o / 2;
  return active;
}

// Gradients of the weights to `V` vectors of inputs, from n rows of cells.
INLINE void weights_panel(
    const Torso *t, const float *x, long stride, const float *dy, int n, int adds, int active, float *weights,
    const int V, const int pairs
) {
  int a = 0;
  for (; a + ROWS <= active; a += ROWS)
    linear_weights_tile(x, stride, dy, t->hidden, n, adds, t->rows + a, weights, t->inputs, ROWS, V, pairs);
  for (; a < active; a++)
    linear_weights_tile(x, stride, dy, t->hidden, n, adds, t->rows + a, weights, t->inputs, 1, V, pairs);
}

// Gradients of `V` vectors of n images' inputs.
INLINE void inputs_panel(
    const Torso *t, const float *w, long stride, const float *dy, int n, const int *rows, int active, float *dx,
    const int V, const int pairs
) {
  const int width = t->hidden >> pairs, inputs = t->inputs;
  int i = 0;
  for (; i + ROWS <= n; i += ROWS)
    linear_inputs_tile(
        w, stride, dy + (long)i * width, width, rows, active, dx + (long)i * inputs, inputs, ROWS, V, pairs
    );
  for (; i < n; i++)
    linear_inputs_tile(
        w, stride, dy + (long)i * width, width, rows, active, dx + (long)i * inputs, inputs, 1, V, pairs
    );
}

INLINE void floats_panel(
    Torso *t, const float *x, const float *dy, int n, int k, int active, float *weights, float *dx, const int V
) {
  weights_panel(t, x + k, t->inputs, dy, n, 0, active, weights + k, V, 0);
  inputs_panel(t, t->linear + k, t->inputs, dy, n, t->rows, active, dx + k, V, 0);
}

// The same by pairs. dy: of two images each [(n + 1) / 2][hidden], of two units each [n][hidden / 2].
INLINE void pairs_panel(
    Torso *t, const float *x, const float *by_images, const float *by_units, int n, int adds, int k, int active,
    int active_pairs, float *weights, float *dx, const int V
) {
  float *xs = t->packed, *ws = t->packed + (long)GRADIENTS / 2 * PANEL;
  pair_rows(x + k, t->inputs, n, V * LANES, xs);
  weights_panel(t, xs, V * LANES, by_images, (n + 1) / 2, adds, active, weights + k, V, 1);
  for (int a = 0; a < active_pairs; a++) {
    const int row = t->active_pairs[a];
    pair_rows(t->linear + 2L * row * t->inputs + k, t->inputs, 2, V * LANES, ws + (long)row * V * LANES);
  }
  inputs_panel(t, ws, V * LANES, by_units, n, t->active_pairs, active_pairs, dx + k, V, 1);
}

static void pairs_backward(Torso *t, const float *x, const float *dy, int n, int active, float *weights, float *dx) {
  const int inputs = t->inputs, hidden = t->hidden, active_pairs = find_pairs(t);
  float *by_images = t->packed_gradient, *by_units = by_images + (long)GRADIENTS / 2 * hidden;
  for (int first = 0; first < n; first += GRADIENTS) {
    const int some = n - first < GRADIENTS ? n - first : GRADIENTS;
    const float *xs = x + (long)first * inputs, *dys = dy + (long)first * hidden;
    float *dxs = dx + (long)first * inputs;
    pair_rows(dys, hidden, some, hidden, by_images);
    pair_neighbours(dys, (long)some * hidden, by_units);
    int k = 0;
    for (; k + PANEL <= inputs; k += PANEL)
      pairs_panel(t, xs, by_images, by_units, some, first > 0, k, active, active_pairs, weights, dxs, 4);
    for (; k < inputs; k += LANES)
      pairs_panel(t, xs, by_images, by_units, some, first > 0, k, active, active_pairs, weights, dxs, 1);
  }
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
  if (HAS_PAIRS && t->pairs) {
    pairs_backward(t, x, dy, n, active, weights, dx);
    return;
  }
  int k = 0;
  for (; k + PANEL <= inputs; k += PANEL) floats_panel(t, x, dy, n, k, active, weights, dx, 4);
  for (; k < inputs; k += LANES) floats_panel(t, x, dy, n, k, active, weights, dx, 1);
}
