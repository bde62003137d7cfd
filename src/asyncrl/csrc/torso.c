// The whole torso: what Python calls.

#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "torso.h"

float *floats(long n) {
  void *p = NULL;
  return posix_memalign(&p, 64, sizeof(float) * (size_t)(n + LANES)) ? NULL : memset(p, 0, sizeof(float) * (size_t)(n + LANES));
}

void torso_free(Torso *t) {
  if (!t) return;
  base_free(t);
  for (int l = 0; l < t->layers; l++) {
    free(t->layer[l].forward), free(t->layer[l].backward), free(t->layer[l].gradient), free(t->gradients[l]);
  }
  free(t->linear_cells), free(t->packed), free(t->packed_gradient);
  free(t->image), free(t->active), free(t->rows), free(t->active_pairs), free(t);
}

// Whether this processor multiplies pairs.
int torso_has_pairs(void) { return HAS_PAIRS; }

// spec: c, h, w, hidden, layers, pairs, then oc, k, s of each. NULL where memory is short.
Torso *torso_new(const int *spec) {
  Torso *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  int c = spec[0], h = spec[1], w = spec[2], ok = 1;
  t->hidden = spec[3], t->layers = spec[4], t->pairs = spec[5] && HAS_PAIRS, t->scale = 1;
  long packed = 0, packed_gradient = 0;
  ok &= (t->image = floats((long)c * h * w)) != NULL;
  for (int l = 0; l < t->layers; l++) {
    Layer *y = &t->layer[l];
    const int *s = spec + 6 + 3 * l;
    *y = (Layer){.pairs = t->pairs && c % 2 == 0, .c = c, .h = h, .w = w, .oc = s[0], .k = s[1], .s = s[2]};
    y->oh = (h - y->k) / y->s + 1, y->ow = (w - y->k) / y->s + 1, y->outputs = y->oh * y->ow * y->oc;
    long weights = (long)y->k * y->k * c * y->oc;
    ok &= (y->forward = floats(weights)) && (y->backward = floats(weights)) && (y->gradient = floats(weights));
    ok &= (t->gradients[l] = floats(y->outputs + y->oc)) != NULL;
    if (l < t->layers - 1) t->record += y->outputs;
    packed = larger(packed, (long)c * h * w);
    packed_gradient = larger(packed_gradient, (long)y->oh * (y->ow + 1) * y->oc);
    c = y->oc, h = y->oh, w = y->ow;
  }
  t->inputs = c * h * w;
  if (t->pairs) {
    t->cells = (t->inputs / 2 + LANES - 1) / LANES * LANES;
    ok &= (t->linear_cells = floats((long)t->hidden * t->cells)) != NULL;
    ok &= (t->packed = floats(larger(packed, linear_room(t)))) != NULL;
    ok &= (t->packed_gradient = floats(larger(packed_gradient, linear_gradient_room(t)))) != NULL;
    ok &= (t->active_pairs = calloc((size_t)t->hidden, sizeof(int))) != NULL;
  }
  ok &= base_new(t);
  ok &= (t->active = floats(t->hidden)) && (t->rows = calloc((size_t)t->hidden, sizeof(int)));
  if (ok) return t;
  torso_free(t);
  return NULL;
}

// Numbers to keep of each image for its gradient, besides the linear layer's inputs.
int torso_record(const Torso *t) { return t->record; }

// mean: [h][w][c] or NULL; what the network sees is (byte - mean) * scale.
void torso_inputs(Torso *t, const float *mean, float scale) {
  t->mean = mean, t->scale = scale;
  base_forget(t);
}

// parameters: weight and bias of each layer as PyTorch has them, [oc][c][k][k] and [oc]; of the linear one last.
void torso_load(Torso *t, const float *const *parameters) {
  for (int l = 0; l < t->layers; l++) {
    Layer *y = &t->layer[l];
    const float *from = *parameters++;
    y->bias = *parameters++;
    int run = y->k * y->c;
    for (int o = 0; o < y->oc; o++)
      for (int c = 0; c < y->c; c++)
        for (int ky = 0; ky < y->k; ky++)
          for (int kx = 0; kx < y->k; kx++) {
            float value = *from++;
            int j = kx * y->c + c;
            y->forward[(ky * run + j) * y->oc + o] = value;
            y->backward[(ky * y->oc + o) * run + j] = value;
          }
    if (y->pairs) { // in place
      pair_rows(y->forward, y->oc, y->k * run, y->oc, y->forward);
      if (l) pair_rows(y->backward, run, y->k * y->oc, run, y->backward);
    }
  }
  t->linear = parameters[0], t->linear_bias = parameters[1];
  linear_load(t);
  base_forget(t);
}

// [n][m] to [m][n].
void transpose(const float *in, float *out, int n, int m) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < m; j++) out[j * n + i] = in[i * m + j];
}

// images: n of bytes. What the gradient needs: outputs [n][torso_record] of all convolutions but the last, in turn, and
// of that, [n][inputs]; features [n][hidden].
void torso_forward(
    Torso *t, const uint8_t *images, int last, int n, float *record, float *inputs, float *features
) {
  const Layer *first = &t->layer[0], *final = &t->layer[t->layers - 1];
  const long bytes = (long)first->c * first->h * first->w;
  base_serve(t, images, last, n);
  for (int i = 0; i < n; i++) {
    float *out = record + (long)i * t->record;
    if (find_changes(t, images + i * bytes, last, 0)) {
      forward_changes(t, images + i * bytes, last, out, inputs + (long)i * t->inputs);
      continue;
    }
    read_image(t, images + i * bytes, last, t->image);
    const float *in = t->image;
    for (int l = 0; l < t->layers - 1; l++) {
      convolve(t, &t->layer[l], in, out);
      in = out, out += t->layer[l].outputs;
    }
    convolve(t, final, in, t->gradients[t->layers - 1]); // borrowed: backward has it to write to
    transpose(t->gradients[t->layers - 1], inputs + (long)i * t->inputs, final->oh * final->ow, final->oc);
  }
  linear(t, inputs, n, features);
}

static void unpack(const Layer *y, float *to) {
  const int run = y->k * y->c;
  for (int o = 0; o < y->oc; o++)
    for (int c = 0; c < y->c; c++)
      for (int ky = 0; ky < y->k; ky++)
        for (int kx = 0; kx < y->k; kx++) *to++ = y->gradient[(ky * run + kx * y->c + c) * y->oc + o];
}

// dy of a ReLU's input from that of its output, which was `out`.
void mask(float *dy, const float *out, int n) {
  for (int i = 0; i < n; i++) dy[i] = out[i] <= 0 ? 0 : dy[i];
}

// Set the gradients of all parameters, in the order and layout of torso_load.
// dfeatures: [n][hidden], changed; dx: [n][inputs], to work in.
void torso_backward(
    Torso *t, const uint8_t *images, int last, int n, const float *record, const float *inputs, const float *features,
    float *dfeatures, float *dx, float *const *gradients
) {
  const Layer *first = &t->layer[0];
  const long bytes = (long)first->c * first->h * first->w;
  mask(dfeatures, features, n * t->hidden);
  linear_backward(
      t, inputs, dfeatures, n, gradients[2 * t->layers], gradients[2 * t->layers + 1], dx
  );
  for (int l = 0; l < t->layers; l++) {
    const Layer *y = &t->layer[l];
    memset(y->gradient, 0, sizeof(float) * (size_t)(y->k * y->k * y->c * y->oc));
    memset(gradients[2 * l + 1], 0, sizeof(float) * (size_t)y->oc);
  }
  for (int i = 0; i < n; i++) {
    const float *out = record + (long)(i + 1) * t->record;
    const Layer *final = &t->layer[t->layers - 1];
    float *last_dx = dx + (long)i * t->inputs;
    mask(last_dx, inputs + (long)i * t->inputs, t->inputs);
    transpose(last_dx, t->gradients[t->layers - 1], final->oc, final->oh * final->ow);
    if (find_changes(t, images + i * bytes, last, 1)) {
      backward_changes(t, images + i * bytes, last, record + (long)i * t->record);
      continue;
    }
    read_image(t, images + i * bytes, last, t->image);
    for (int l = t->layers - 1; l >= 0; l--) {
      Layer *y = &t->layer[l];
      const float *dy = t->gradients[l];
      const float *in = l ? out - t->layer[l - 1].outputs : t->image;
      add_weights(t, y, in, dy);
      add_biases(y, dy, gradients[2 * l + 1]);
      if (!l) break;
      set_inputs(t, y, dy, t->gradients[l - 1]);
      mask(t->gradients[l - 1], in, t->layer[l - 1].outputs);
      out = in;
    }
  }
  backward_base(t, gradients);
  for (int l = 0; l < t->layers; l++) unpack(&t->layer[l], gradients[2 * l]);
}
