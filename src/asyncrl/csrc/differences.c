// The pass backward of images that share most of their pixels with the base (changes.c).
//
// A gradient is a sum over images of products x dy. With x = base + difference that is base times the sum of all dy,
// one pass for all images, and the products of the differences, which are few. Where an image does not differ its ReLUs
// are the base's too, so that there only the sum of dy is needed.

#include <string.h>

#include "cells.h"
#include "torso.h"

#define V (16 / LANES)  // vectors of 16 channels, of which all layers but the first have a multiple
#define AT_ONCE (8 / V) // places whose inputs' gradients are computed at once

// Which output sees input `p` through the weight at (ky, kx); else the one past the last, whose gradient is 0.
static int output_of(const Layer *y, Place p, int ky, int kx) {
  const int oy = p.y - ky, ox = p.x - kx;
  if (oy < 0 || ox < 0 || oy >= y->oh * y->s || ox >= y->ow * y->s) return y->oh * y->ow;
  return oy / y->s * y->ow + ox / y->s;
}

// Add the gradient of R x 16 weights: products of the inputs' differences x and what their outputs have in dy.
INLINE void weights_at(
    const float *x, int c, const int *outputs, int n, const float *dy, int oc, float *to, const int R
) {
  vec acc[4][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[r][v] = load(to + r * oc + v * LANES);
  for (int i = 0; i < n; i++) {
    const float *d = dy + outputs[i] * oc;
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[r][v] += x[i * c + r] * load(d + v * LANES);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(to + r * oc + v * LANES, acc[r][v]);
}

// Add to the gradients [P][c] of inputs, 16 channels each, what one weight gives. dy: cells; `pairs` as in
// convolution.c.
INLINE void inputs_at(
    const float *dy, const int *outputs, int oc, const float *w, int run, float *dx, int c, const int P, const int pairs
) {
  vec acc[AT_ONCE][V];
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[p][v] = load(dx + p * c + v * LANES);
  for (int o = 0; o < oc; o++) {
    vec ws[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) ws[v] = load(w + o * run + v * LANES);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++)
#pragma GCC unroll 16
      for (int v = 0; v < V; v++)
        acc[p][v] = multiply_add(acc[p][v], spread(dy + outputs[p] * oc + o, pairs), ws[v], pairs);
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(dx + p * c + v * LANES, acc[p][v]);
}

INLINE void all_inputs_at(
    const Layer *y, const float *dy, const int *outputs, int n, const float *w, float *dx, const int pairs
) {
  const int run = y->k * y->c, oc = y->oc >> pairs;
  for (int j = 0; j < y->c; j += 16) {
    int i = 0;
    for (; i + AT_ONCE <= n; i += AT_ONCE)
      inputs_at(dy, outputs + i, oc, w + j, run, dx + i * y->c + j, y->c, AT_ONCE, pairs);
    for (; i < n; i++) inputs_at(dy, outputs + i, oc, w + j, run, dx + i * y->c + j, y->c, 1, pairs);
  }
}

// Add gradients by dy of a layer's outputs: of its weights by the differences x [n][c] of its inputs at places that
// changed, and unless dx is NULL of these inputs [n][c].
static void add_gradients(
    const Torso *t, const Layer *y, const Places *places, const float *x, const float *dy, float *dx
) {
  const int c = y->c, oc = y->oc, pairs = HAS_PAIRS && y->pairs;
  int *outputs = t->base.seen_by;
  if (dx && pairs) pair_neighbours(dy, y->outputs + oc, t->packed_gradient);
  for (int first = 0, end = 0; first < places->n; first = end) { // of one phase: the same weights see them
    const int phase = places->at[first].phase;
    while (end < places->n && places->at[end].phase == phase) end++;
    const int n = end - first;
    for (int ky = phase / y->s; ky < y->k; ky += y->s)
      for (int kx = phase % y->s; kx < y->k; kx += y->s) {
        for (int i = 0; i < n; i++) outputs[i] = output_of(y, places->at[first + i], ky, kx);
        for (int o = 0; o < oc; o += 16) {
          float *to = y->gradient + (ky * y->k + kx) * c * oc + o;
          int j = 0;
          for (; j + 4 <= c; j += 4) weights_at(x + first * c + j, c, outputs, n, dy + o, oc, to + j * oc, 4);
          for (; j < c; j++) weights_at(x + first * c + j, c, outputs, n, dy + o, oc, to + j * oc, 1);
        }
        if (!dx) continue;
        const float *w = y->backward + ky * (oc >> pairs) * y->k * c + kx * c;
        if (pairs) all_inputs_at(y, t->packed_gradient, outputs, n, w, dx + first * c, HAS_PAIRS);
        else all_inputs_at(y, dy, outputs, n, w, dx + first * c, 0);
      }
  }
}

// Gradients of what a layer of which some outputs changed gave, from those of the layer after it: dy there, and in
// `sums`, which shall have the base's ReLU in the place of this image's, what puts that right.
static void set_outputs(Torso *t, int l, const float *out, float *sums) {
  const Base *b = &t->base;
  const Layer *y = &t->layer[l];
  const int n = b->places[l].n, oc = y->oc;
  float *x = b->differences, *dx = b->dx, *dy = t->gradients[l];
  for (int i = 0; i < n; i++) {
    const int at = number_of(b->places[l].at[i], y->ow) * oc;
    for (int j = 0; j < oc; j++) x[i * oc + j] = out[at + j] - b->outputs[l][at + j];
  }
  memset(dx, 0, sizeof(float) * (size_t)(n * oc));
  add_gradients(t, y + 1, &b->places[l], x, t->gradients[l + 1], dx);
  for (int i = 0; i < n; i++) {
    const int at = number_of(b->places[l].at[i], y->ow) * oc;
    for (int j = 0; j < oc; j++) {
      const float value = dx[i * oc + j], bases = b->outputs[l][at + j] <= 0 ? 0 : value;
      dy[at + j] = out[at + j] <= 0 ? 0 : value;
      sums[at + j] += dy[at + j] - bases;
    }
  }
}

// After find_changes, of the same image; the gradient of its last convolution's outputs is in t->gradients.
void backward_changes(Torso *t, const uint8_t *bytes, int last, const float *record) {
  Base *b = &t->base;
  const Layer *y = &t->layer[0];
  const int final = t->layers - 1;
  if (!b->summed++)
    for (int l = 0; l <= final; l++) memset(b->sums[l], 0, sizeof(float) * (size_t)t->layer[l].outputs);
  for (int i = 0; i < t->layer[final].outputs; i++) b->sums[final][i] += t->gradients[final][i];
  const float *out = record + t->record;
  for (int l = final - 1; l >= 0; l--) {
    out -= t->layer[l].outputs;
    set_outputs(t, l, out, b->sums[l]);
  }
  for (int i = 0; i < b->pixels.n; i++) {
    const int pixel = number_of(b->pixels.at[i], y->w);
    float *x = b->differences + i * y->c;
    read_pixel(t, bytes, last, pixel, x);
    for (int k = 0; k < y->c; k++) x[k] -= b->image[pixel * y->c + k];
  }
  add_gradients(t, y, &b->pixels, b->differences, t->gradients[0], NULL);
}

// What the base gives the gradients of all images that were given to backward_changes.
void backward_base(Torso *t, float *const *gradients) {
  Base *b = &t->base;
  if (!b->summed) return;
  b->summed = 0;
  for (int l = t->layers - 1; l >= 0; l--) {
    Layer *y = &t->layer[l];
    add_weights(t, y, l ? b->outputs[l - 1] : b->image, b->sums[l]);
    add_biases(y, b->sums[l], gradients[2 * l + 1]);
    if (!l) break;
    set_inputs(t, y, b->sums[l], t->gradients[l - 1]);
    mask(t->gradients[l - 1], b->outputs[l - 1], t->layer[l - 1].outputs);
    for (int i = 0; i < t->layer[l - 1].outputs; i++) b->sums[l - 1][i] += t->gradients[l - 1][i];
  }
}
