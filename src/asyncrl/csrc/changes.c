// What is the same in all images is computed once: which places that leaves, and the pass forward.
//
// Most of a game's screen never changes, and an output of a convolution sees little of it. After new parameters, and now
// and then besides, an image is elected that has at each place what most images have there: the base. It goes through
// the convolutions in full, and others only where an output sees a pixel that differs from the base's. The outputs are
// the same numbers as if all had been computed. An image that differs in most places is computed in full.

#include <stdlib.h>
#include <string.h>

#include "torso.h"

#define CALLS 256         // that a base serves without new parameters
#define VOTERS 8          // images that elect the base
#define LEAST_WORK 200000 // products of a first layer that is worth it
#define TRIAL 32          // images after which a base is given up that most of them differ from
#define MOST 0.25f        // share of pixels beyond which it is not worth to look further
#define FEW 12            // one pixel in so many is sooner set by itself than with all others

static int *outputs_seeing(const Layer *y, int inputs, int outputs, int is_last) {
  int *seeing = malloc(sizeof(int) * (size_t)inputs);
  for (int i = 0; seeing && i < inputs; i++) {
    const int first = i < y->k ? 0 : (i - y->k) / y->s + 1, last = i / y->s < outputs ? i / y->s : outputs - 1;
    seeing[i] = is_last ? last : first;
  }
  return seeing;
}

static Places room_for(int n) { return (Places){0, malloc(sizeof(Place) * (size_t)n)}; }

// Returns 0 where memory is short.
int base_new(Torso *t) {
  Base *b = &t->base;
  const Layer *y = &t->layer[0];
  const int pixels = y->h * y->w;
  b->serves = -1;
  if ((long)y->outputs * y->k * y->k * y->c < LEAST_WORK) return 1;
  int ok = (b->bytes = malloc((size_t)(pixels * y->c))) && (b->counts = malloc((size_t)(pixels * y->c)));
  ok &= (b->image = floats((long)pixels * y->c)) && (b->inputs = floats(t->inputs));
  long most = (long)pixels * y->c, strides = 1;
  for (int l = 0; l < t->layers; l++) {
    Layer *z = &t->layer[l];
    ok &= (b->outputs[l] = floats(z->outputs)) && (b->sums[l] = floats(z->outputs));
    ok &= (b->places[l] = room_for(z->oh * z->ow)).at != NULL;
    ok &= (z->first_y = outputs_seeing(z, z->h, z->oh, 0)) && (z->last_y = outputs_seeing(z, z->h, z->oh, 1));
    ok &= (z->first_x = outputs_seeing(z, z->w, z->ow, 0)) && (z->last_x = outputs_seeing(z, z->w, z->ow, 1));
    most = larger(most, z->outputs), strides = larger(strides, z->s);
  }
  ok &= (b->marks = malloc((size_t)pixels)) && (b->pixels = room_for(pixels)).at;
  ok &= (b->unsorted = malloc(sizeof(Place) * (size_t)pixels)) && (b->seen_by = malloc(sizeof(int) * (size_t)pixels));
  ok &= (b->starts = malloc(sizeof(int) * (size_t)(strides * strides + 1))) != NULL;
  return ok && (b->differences = floats(most)) && (b->dx = floats(most));
}

void base_free(Torso *t) {
  Base *b = &t->base;
  for (int l = 0; l < t->layers; l++) {
    Layer *y = &t->layer[l];
    free(b->outputs[l]), free(b->sums[l]), free(b->places[l].at);
    free(y->first_y), free(y->last_y), free(y->first_x), free(y->last_x);
  }
  free(b->bytes), free(b->counts), free(b->image), free(b->inputs), free(b->marks), free(b->pixels.at);
  free(b->unsorted), free(b->starts), free(b->seen_by), free(b->differences), free(b->dx);
}

void base_forget(Torso *t) { t->base.serves = -1; }

// What most voters have at each place, if it is more than half of them; else what one of them has.
static void elect(Base *b, const uint8_t *images, long bytes, int n) {
  const int voters = n < VOTERS ? n : VOTERS;
  memcpy(b->bytes, images, (size_t)bytes);
  memset(b->counts, 1, (size_t)bytes);
  for (long voter = 1; voter < voters; voter++) {
    const uint8_t *votes = images + voter * n / voters * bytes;
    for (long i = 0; i < bytes; i++) {
      const uint8_t is_same = votes[i] == b->bytes[i], is_even = b->counts[i] == 0;
      b->bytes[i] = is_even ? votes[i] : b->bytes[i];
      b->counts[i] = (uint8_t)(b->counts[i] + (is_same | is_even ? 1 : -1));
    }
  }
}

// See that there is a base for images to come, and these n.
void base_serve(Torso *t, const uint8_t *images, int last, int n) {
  Base *b = &t->base;
  const Layer *final = &t->layer[t->layers - 1];
  if (!b->bytes || n == 0) return;
  if (b->serves > 0) {
    b->serves--;
    return;
  }
  elect(b, images, (long)t->layer[0].c * t->layer[0].h * t->layer[0].w, n);
  read_image(t, b->bytes, last, b->image);
  for (int l = 0; l < t->layers; l++) convolve(t, &t->layer[l], l ? b->outputs[l - 1] : b->image, b->outputs[l]);
  transpose(b->outputs[t->layers - 1], b->inputs, final->oh * final->ow, final->oc);
  b->serves = CALLS;
  b->compared = b->differing = 0;
}

static void mark_pixels(const Torso *t, const uint8_t *bytes, int last) {
  const Layer *y = &t->layer[0];
  const int pixels = y->h * y->w, c = y->c;
  const uint8_t *base = t->base.bytes;
  uint8_t *marks = t->base.marks;
  memset(marks, 0, (size_t)pixels);
  if (last)
    for (int i = 0; i < pixels; i++)
      for (int k = 0; k < c; k++) marks[i] |= bytes[i * c + k] ^ base[i * c + k];
  else
    for (int k = 0; k < c; k++)
      for (int i = 0; i < pixels; i++) marks[i] |= bytes[k * pixels + i] ^ base[k * pixels + i];
}

// Places that are marked, in the order of the phases in which a layer with that stride sees them.
static void list_marked(Base *b, int h, int w, int stride, Places *places) {
  int *starts = b->starts, n = 0;
  memset(starts, 0, sizeof(int) * (size_t)(stride * stride + 1));
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      const uint8_t *mark = b->marks + y * w + x;
      uint64_t eight;
      if (x + 8 <= w && (memcpy(&eight, mark, 8), !eight)) x += 7;
      else if (*mark) {
        const int phase = y % stride * stride + x % stride;
        b->unsorted[n++] = (Place){x, y, phase};
        starts[phase + 1]++;
      }
    }
  for (int phase = 0; phase < stride * stride; phase++) starts[phase + 1] += starts[phase];
  for (int i = 0; i < n; i++) places->at[starts[b->unsorted[i].phase]++] = b->unsorted[i];
  places->n = n;
}

static void mark_outputs(const Layer *y, const Places *inputs, uint8_t *marks) {
  memset(marks, 0, (size_t)(y->oh * y->ow));
  for (int i = 0; i < inputs->n; i++) {
    const Place p = inputs->at[i];
    for (int oy = y->first_y[p.y]; oy <= y->last_y[p.y]; oy++)
      for (int ox = y->first_x[p.x]; ox <= y->last_x[p.x]; ox++) marks[oy * y->ow + ox] = 1;
  }
}

static void list_outputs(Torso *t, int l, const Places *inputs) {
  const Layer *y = &t->layer[l];
  mark_outputs(y, inputs, t->base.marks);
  list_marked(&t->base, y->oh, y->ow, l + 1 < t->layers ? y[1].s : 1, &t->base.places[l]);
}

// Products for one output; for all; and for one input, of which at most so many outputs see it.
static long per_output(const Layer *y) { return (long)y->k * y->k * y->c * y->oc; }
static long in_full(const Layer *y) { return per_output(y) * y->oh * y->ow; }
static long per_input(const Layer *y) {
  const int seeing = (y->k + y->s - 1) / y->s;
  return (long)seeing * seeing * y->c * y->oc;
}

// Whether it is cheaper to compute all of an image, by the numbers of products. What each costs beside those of a whole
// image was measured; a pixel's part is mostly that of finding it.
static int is_too_much(const Torso *t, int is_backward) {
  const Base *b = &t->base;
  long full = 0, of_places = 0;
  for (int l = 0; l < t->layers; l++) {
    const Layer *y = &t->layer[l];
    full += in_full(y) << (is_backward && l);
    if (!is_backward) of_places += per_output(y) * b->places[l].n;
    else if (l) of_places += 2 * per_input(y) * b->places[l - 1].n;
  }
  const long of_pixels = per_input(&t->layer[0]) * b->pixels.n;
  return (is_backward ? 6 : 3) * (float)of_pixels + 1.4f * (float)of_places > (float)full;
}

// Find places for find_changes, or return 0.
static int list_changes(Torso *t, int is_backward) {
  Base *b = &t->base;
  const Layer *y = &t->layer[0];
  int n = 0;
  for (int i = 0; i < y->h * y->w; i++) n += b->marks[i] != 0;
  if (n > MOST * (float)(y->h * y->w)) return 0;
  list_marked(b, y->h, y->w, y->s, &b->pixels);
  for (int l = 0; l < t->layers; l++) list_outputs(t, l, l ? &b->places[l - 1] : &b->pixels);
  return !is_too_much(t, is_backward);
}

// Returns 0 if there is no base, or too much differs: then the image is to be computed in full.
int find_changes(Torso *t, const uint8_t *bytes, int last, int is_backward) {
  Base *b = &t->base;
  if (b->serves < 0 || (b->compared >= TRIAL && 2 * b->differing > b->compared)) return 0;
  mark_pixels(t, bytes, last);
  const int found = list_changes(t, is_backward);
  b->compared++, b->differing += !found;
  return found;
}

// Give the base's image, as floats, another's pixels where that differs.
static void set_pixels(Torso *t, const uint8_t *bytes, int last) {
  const Layer *y = &t->layer[0];
  for (int i = 0; i < t->base.pixels.n; i++) {
    const int pixel = number_of(t->base.pixels.at[i], y->w);
    read_pixel(t, bytes, last, pixel, t->base.image + pixel * y->c);
  }
}

// After find_changes. record and inputs: of one image, as of torso_forward.
void forward_changes(Torso *t, const uint8_t *bytes, int last, float *record, float *inputs) {
  Base *b = &t->base;
  const int final = t->layers - 1, positions = t->layer[final].oh * t->layer[final].ow, oc = t->layer[final].oc;
  float *out = t->gradients[final]; // borrowed
  const int are_few = FEW * b->pixels.n < t->layer[0].h * t->layer[0].w;
  if (are_few) set_pixels(t, bytes, last);
  else read_image(t, bytes, last, t->image);
  const float *in = are_few ? b->image : t->image;
  for (int l = 0; l < final; l++) {
    memcpy(record, b->outputs[l], sizeof(float) * (size_t)t->layer[l].outputs);
    convolve_at(t, &t->layer[l], in, record, &b->places[l]);
    in = record, record += t->layer[l].outputs;
  }
  convolve_at(t, &t->layer[final], in, out, &b->places[final]);
  memcpy(inputs, b->inputs, sizeof(float) * (size_t)t->inputs);
  for (int i = 0; i < b->places[final].n; i++) {
    const int p = number_of(b->places[final].at[i], t->layer[final].ow);
    for (int o = 0; o < oc; o++) inputs[o * positions + p] = out[p * oc + o];
  }
  if (are_few) set_pixels(t, b->bytes, last);
}
