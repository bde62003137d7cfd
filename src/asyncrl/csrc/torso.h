// Passes of a torso of convolutions (ReLU after each) and one fully connected layer, and the optimisers' steps.
//
// A Torso is one thread's at a time. It has 32-bit floats, or factors in bfloat16 (cells.h). For what these networks
// are, small kernels on few images, a library's calls cost more than its arithmetic. Vectors, in the C compiler's own
// notation, are as wide as the processor's (vectors.h). Images are kept with their channels last, weights are repacked
// for that at each load; the last convolution's output is handed to the linear layer in PyTorch's order, so that its
// weights, nearly all there are, stay where they lie (as floats).

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
  int *first_y, *last_y, *first_x, *last_x; // outputs that see a row or column of the input: [h], [h], [w], [w]
} Layer;

// A place in an image or among a layer's outputs. `phase`: which weights of the layer after it see it.
typedef struct {
  int x, y, phase;
} Place;
typedef struct {
  int n;
  Place *at;
} Places;

// What other images are compared with (changes.c).
typedef struct {
  int serves;                 // how many more calls of torso_forward before there is another; -1 if there is none
  int compared, differing;    // images, and those of them that differ too much
  uint8_t *bytes, *counts;    // as images are given, and to elect it with
  float *image;               // [h][w][c]; while another image is computed, that image
  float *outputs[MAX_LAYERS]; // [oh][ow][oc] of each layer
  float *inputs;              // of the linear layer
  // Of an image that is compared: pixels that differ, and of each layer the outputs that see one of them.
  Places pixels, places[MAX_LAYERS];
  uint8_t *marks;  // [h * w], to find them with
  Place *unsorted; // [h * w], to sort by phases
  int *starts;     // of each phase among them
  // Of the images of a gradient.
  int summed;              // how many there are
  float *sums[MAX_LAYERS]; // [oh][ow][oc], gradients of a layer's outputs
  int *seen_by;            // see add_gradients
  float *differences, *dx; // of changed pixels or outputs [n][channels]: from the base, and their gradient
} Base;

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
  // [oh][ow][oc] of each layer, of one image, then zeros [oc]; forward, the last one holds its outputs.
  float *gradients[MAX_LAYERS];
  float *active;                // see linear_backward
  int *rows;                    // see linear_backward
  int *active_pairs;            // see linear_backward
  float *packed;                // pairs of whatever is multiplied next
  float *packed_gradient;       // and of its gradient
  Base base;
} Torso;

static inline long larger(long a, long b) { return a > b ? a : b; }

// convolution.c
void read_image(const Torso *t, const uint8_t *bytes, int last, float *out);
void read_pixel(const Torso *t, const uint8_t *bytes, int last, int pixel, float *out);
void convolve(const Torso *t, const Layer *y, const float *in, float *out);
void convolve_at(const Torso *t, const Layer *y, const float *in, float *out, const Places *places);
void add_weights(const Torso *t, Layer *y, const float *in, const float *dy);
void add_biases(const Layer *y, const float *dy, float *gradient);
void set_inputs(const Torso *t, const Layer *y, const float *dy, float *dx);

// torso.c
float *floats(long n);
void transpose(const float *in, float *out, int n, int m);
void mask(float *dy, const float *out, int n);

// Of a place among rows of `w`.
static inline int number_of(Place p, int w) { return p.y * w + p.x; }

// changes.c
int base_new(Torso *t);
void base_free(Torso *t);
void base_forget(Torso *t);
void base_serve(Torso *t, const uint8_t *images, int last, int n);
int find_changes(Torso *t, const uint8_t *bytes, int last, int is_backward);
void forward_changes(Torso *t, const uint8_t *bytes, int last, float *record, float *inputs);

// differences.c
void backward_changes(Torso *t, const uint8_t *bytes, int last, const float *record);
void backward_base(Torso *t, float *const *gradients);

// linear.c
void linear_load(Torso *t);
void linear(const Torso *t, const float *x, int n, float *out);
long linear_room(const Torso *t);
long linear_gradient_room(const Torso *t);
void linear_backward(Torso *t, const float *x, const float *dy, int n, float *weights, float *bias, float *dx);
