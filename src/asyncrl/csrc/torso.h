// Passes of a torso of convolutions (ReLU after each) and one fully connected layer, and the optimisers' steps.
//
// One thread, 32-bit floats, or factors in bfloat16 (cells.h). For what these networks are, small kernels on few images,
// a library's calls cost more than its arithmetic. Vectors, in the C compiler's own notation, are as wide as the
// processor's (vectors.h). Images are kept with their channels last, weights are repacked for that at each load; the last
// convolution's output is handed to the linear layer in PyTorch's order, so that its weights, nearly all there are, stay
// where they lie (as floats).

#pragma once

#include <stdint.h>

#define MAX_LAYERS 4

typedef struct {
  int pairs;       // whether it multiplies pairs, which are of neighbouring channels: only if their number is even
  int c, h, w;     // of the input
  int oc, k, s;    // output channels, kernel, stride
  int oh, ow;      // of the output
  int outputs;     // oh * ow * oc
  float *forward;  // [k][k * c][oc], of pairs [k][k * c / 2][oc]
  float *backward; // [k][oc][k * c], of pairs [k][oc / 2][k * c]; the first layer's is not used
  float *gradient; // [k][k * c][oc]
  const float *bias;
} Layer;

typedef struct {
  int layers, hidden;
  int pairs;  // whether the linear layer multiplies pairs
  int inputs; // of the linear layer: the last convolution's outputs
  int cells;  // of one image's, if pairs: half as many, in whole vectors
  int record; // floats kept of an image: the outputs of all convolutions but the last
  Layer layer[MAX_LAYERS];
  const float *linear, *linear_bias; // [hidden][inputs], [hidden]: not copied
  float *linear_cells;               // [hidden][cells] if pairs
  const float *mean;                 // [h][w][c] or NULL
  float scale;
  // To work in.
  float *image;                 // [h][w][c], one image as the first layer sees it
  float *gradients[MAX_LAYERS]; // [oh][ow][oc] of each layer, of one image; forward, the last one holds its outputs
  float *active;                // see linear_backward
  int *rows;                    // see linear_backward
  int *active_pairs;            // see linear_backward
  float *packed;                // pairs of whatever is multiplied next
  float *packed_gradient;       // and of its gradient
} Torso;


static inline long larger(long a, long b) { return a > b ? a : b; }

// convolution.c
void read_image(const Torso *t, const uint8_t *bytes, int last);
void convolve(const Torso *t, const Layer *y, const float *in, float *out);
void add_weights(const Torso *t, Layer *y, const float *in, const float *dy);
void set_inputs(const Torso *t, const Layer *y, const float *dy, float *dx);

// linear.c
void linear_load(Torso *t);
void linear(const Torso *t, const float *x, int n, float *out);
long linear_room(const Torso *t);
long linear_gradient_room(const Torso *t);
void linear_backward(Torso *t, const float *x, const float *dy, int n, float *weights, float *bias, float *dx);
