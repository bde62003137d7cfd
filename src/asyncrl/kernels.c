// Passes of a torso of convolutions (ReLU after each) and one fully connected layer, and the optimisers' steps.
//
// One thread, 32-bit floats. For what these networks are, small kernels on few images, a library's calls cost more than
// its arithmetic. Vectors are 16 floats wide in the C compiler's own notation: AVX-512 has them, elsewhere the compiler
// takes several narrower ones. Images are kept with their channels last, weights are repacked for that at each load;
// the last convolution's output is handed to the linear layer in PyTorch's order, so that its weights, nearly all there
// are, stay where they lie.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAYERS 4
#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#ifdef __AVX512F__
#define TILE 10 // positions whose sums stay in registers
#else
#define TILE 5
#endif

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t m16 __attribute__((vector_size(64)));
typedef uint8_t b16 __attribute__((vector_size(16), aligned(1), may_alias));

typedef struct {
  int c, h, w;     // of the input
  int oc, k, s;    // output channels, kernel, stride
  int oh, ow;      // of the output
  int outputs;     // oh * ow * oc
  float *forward;  // [k][k * c][oc]
  float *backward; // [k][oc][k * c]
  float *gradient; // [k][k * c][oc]
  const float *bias;
} Layer;

typedef struct {
  int layers, hidden, inputs, record;
  Layer layer[MAX_LAYERS];
  const float *linear, *linear_bias; // [hidden][inputs]: not copied
  const float *mean;                 // [h][w][c] or NULL
  float scale;
  float *image, *gradients[MAX_LAYERS], *active;
  int *rows;
} Torso;

INLINE v16 load(const float *p) { return *(const v16 *)p; }
INLINE void store(float *p, v16 v) { *(v16 *)p = v; }
INLINE v16 zero(void) { return (v16){0}; }
INLINE float sum(v16 v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}
// As PyTorch's: what is not a number stays so, and is noticed.
INLINE v16 relu(v16 v) { return (v16)((__typeof__(v < zero()))v & ~(v < zero())); }

static float *floats(long n) {
  void *p = NULL;
  return posix_memalign(&p, 64, sizeof(float) * (size_t)(n + LANES)) ? NULL : memset(p, 0, sizeof(float) * (size_t)(n + LANES));
}

void torso_free(Torso *t) {
  if (!t) return;
  for (int l = 0; l < t->layers; l++) {
    free(t->layer[l].forward), free(t->layer[l].backward), free(t->layer[l].gradient), free(t->gradients[l]);
  }
  free(t->image), free(t->active), free(t->rows), free(t);
}

// spec: c, h, w, hidden, layers, then oc, k, s of each. NULL where memory is short.
Torso *torso_new(const int *spec) {
  Torso *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  int c = spec[0], h = spec[1], w = spec[2], ok = 1;
  t->hidden = spec[3], t->layers = spec[4], t->scale = 1;
  ok &= (t->image = floats((long)c * h * w)) != NULL;
  for (int l = 0; l < t->layers; l++) {
    Layer *y = &t->layer[l];
    const int *s = spec + 5 + 3 * l;
    *y = (Layer){.c = c, .h = h, .w = w, .oc = s[0], .k = s[1], .s = s[2]};
    y->oh = (h - y->k) / y->s + 1, y->ow = (w - y->k) / y->s + 1, y->outputs = y->oh * y->ow * y->oc;
    long weights = (long)y->k * y->k * c * y->oc;
    ok &= (y->forward = floats(weights)) && (y->backward = floats(weights)) && (y->gradient = floats(weights));
    ok &= (t->gradients[l] = floats(y->outputs)) != NULL;
    if (l < t->layers - 1) t->record += y->outputs;
    c = y->oc, h = y->oh, w = y->ow;
  }
  t->inputs = c * h * w;
  ok &= (t->active = floats(t->hidden)) && (t->rows = calloc((size_t)t->hidden, sizeof(int)));
  if (ok) return t;
  torso_free(t);
  return NULL;
}

// Numbers to keep of each image for its gradient, besides the linear layer's inputs.
int torso_record(const Torso *t) { return t->record; }

// mean: [h][w][c] or NULL; what the network sees is (byte - mean) * scale.
void torso_inputs(Torso *t, const float *mean, float scale) { t->mean = mean, t->scale = scale; }

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
  }
  t->linear = parameters[0], t->linear_bias = parameters[1];
}

// Bytes [c][h][w], or [h][w][c] if `last`, to floats [h][w][c].
static void read_image(const Torso *t, const uint8_t *bytes, int last) {
  const Layer *y = &t->layer[0];
  const int pixels = y->h * y->w, c = y->c, n = pixels * c;
  const float scale = t->scale;
  float *out = t->image;
  const float *mean = t->mean;
  int pixel = 0;
  if (!last && c == 4) { // four frames
    const uint8_t *p0 = bytes, *p1 = p0 + pixels, *p2 = p1 + pixels, *p3 = p2 + pixels;
    const b16 low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    const b16 high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    for (; pixel + 16 <= pixels; pixel += 16) {
      b16 a = *(const b16 *)(p0 + pixel), b = *(const b16 *)(p1 + pixel);
      b16 e = *(const b16 *)(p2 + pixel), f = *(const b16 *)(p3 + pixel);
      // Even channels with even ones and odd with odd, twice: a e b f in turn.
      b16 ae[2] = {__builtin_shuffle(a, e, low), __builtin_shuffle(a, e, high)};
      b16 bf[2] = {__builtin_shuffle(b, f, low), __builtin_shuffle(b, f, high)};
      for (int half = 0; half < 2; half++) {
        b16 quarter[2] = {__builtin_shuffle(ae[half], bf[half], low), __builtin_shuffle(ae[half], bf[half], high)};
        for (int q = 0; q < 2; q++) {
          int at = pixel * 4 + (half * 2 + q) * LANES;
          v16 v = __builtin_convertvector(quarter[q], v16);
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
  for (; pixel < pixels; pixel++)
    for (int i = 0; i < c; i++) {
      int at = pixel * c + i;
      out[at] = ((float)bytes[i * pixels + pixel] - (mean ? mean[at] : 0)) * scale;
    }
}

INLINE void convolve_tile(const Layer *y, const float *in, float *out, int o, const int P, const int V) {
  v16 acc[TILE][2];
  const int run = y->k * y->c, step = y->s * y->c, row = y->w * y->c, oc = y->oc;
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
    for (int v = 0; v < V; v++) acc[p][v] = load(y->bias + o + v * LANES);
  for (int ky = 0; ky < y->k; ky++) {
    const float *x = in + ky * row, *weights = y->forward + ky * run * oc + o;
    for (int j = 0; j < run; j++) {
      v16 w[2];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) w[v] = load(weights + j * oc + v * LANES);
#pragma GCC unroll 16
      for (int p = 0; p < P; p++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) acc[p][v] += x[p * step + j] * w[v];
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(out + p * oc + o + v * LANES, relu(acc[p][v]));
}

#define CASE(N, CALL) \
  case N: { \
    enum { P = N }; \
    CALL; \
    break; \
  }
#if TILE == 10
#define WIDE_CASES(CALL) CASE(10, CALL) CASE(9, CALL) CASE(8, CALL) CASE(7, CALL) CASE(6, CALL)
#else
#define WIDE_CASES(CALL)
#endif
#define ALL_CASES(CALL) WIDE_CASES(CALL) CASE(5, CALL) CASE(4, CALL) CASE(3, CALL) CASE(2, CALL) CASE(1, CALL)

static void convolve(const Layer *y, const float *in, float *out) {
  const int tiles = (y->ow + TILE - 1) / TILE, width = (y->ow + tiles - 1) / tiles;
  for (int oy = 0; oy < y->oh; oy++)
    for (int ox = 0; ox < y->ow; ox += width) {
      const int n = y->ow - ox < width ? y->ow - ox : width;
      const float *from = in + (oy * y->s * y->w + ox * y->s) * y->c;
      float *to = out + (oy * y->ow + ox) * y->oc;
      int o = 0;
      for (; o + 2 * LANES <= y->oc; o += 2 * LANES) switch (n) { ALL_CASES(convolve_tile(y, from, to, o, P, 2)) }
      for (; o < y->oc; o += LANES) switch (n) { ALL_CASES(convolve_tile(y, from, to, o, P, 1)) }
    }
}

// [n][m] to [m][n].
static void transpose(const float *in, float *out, int n, int m) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < m; j++) out[j * n + i] = in[i * m + j];
}

// One image: bound by reading the weights.
INLINE void linear_one(const Torso *t, const float *x, float *out, int o) {
  v16 acc[8];
#pragma GCC unroll 16
  for (int i = 0; i < 8; i++) acc[i] = zero();
  const float *w = t->linear + (long)o * t->inputs;
  for (int k = 0; k < t->inputs; k += LANES) {
    v16 xs = load(x + k);
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) acc[i] += xs * load(w + (long)i * t->inputs + k);
  }
  for (int i = 0; i < 8; i++) out[o + i] += sum(acc[i]);
}

// Add the products of 4 images and 4 rows of weights over `n` inputs.
INLINE void linear_tile(const float *x, const float *w, int inputs, int n, float *out, int hidden) {
  v16 acc[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) acc[i] = zero();
  for (int k = 0; k < n; k += LANES) {
    v16 xs[4];
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) xs[i] = load(x + (long)i * inputs + k);
#pragma GCC unroll 16
    for (int o = 0; o < 4; o++) {
      v16 ws = load(w + (long)o * inputs + k);
#pragma GCC unroll 16
      for (int i = 0; i < 4; i++) acc[4 * i + o] += xs[i] * ws;
    }
  }
  // Sums of 16 vectors at once: halves of two make one, four times.
  const m16 even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
#pragma GCC unroll 16
  for (int width = 8; width; width /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < width; i++)
      acc[i] = __builtin_shuffle(acc[2 * i], acc[2 * i + 1], even) +
               __builtin_shuffle(acc[2 * i], acc[2 * i + 1], even + 1);
  for (int i = 0; i < 4; i++)
    for (int o = 0; o < 4; o++) out[(long)i * hidden + o] += acc[0][4 * i + o];
}

#define CHUNK 512 // inputs at once, so that those of 8 images stay in the first-level cache

static void linear(const Torso *t, const float *x, int n, float *out) {
  const int hidden = t->hidden, inputs = t->inputs, tiled = n / 4 * 4;
  for (int i = 0; i < n; i++) memcpy(out + (long)i * hidden, t->linear_bias, sizeof(float) * (size_t)hidden);
  for (int k = 0; k < inputs && tiled; k += CHUNK) {
    const int width = inputs - k < CHUNK ? inputs - k : CHUNK;
    for (int o = 0; o < hidden; o += 4)
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

// images: n of bytes. What the gradient needs: outputs [n][torso_record] of all convolutions but the last, in turn, and
// of that, [n][inputs]; features [n][hidden].
void torso_forward(
    Torso *t, const uint8_t *images, int last, int n, float *record, float *inputs, float *features
) {
  const Layer *first = &t->layer[0], *final = &t->layer[t->layers - 1];
  const long bytes = (long)first->c * first->h * first->w;
  for (int i = 0; i < n; i++) {
    read_image(t, images + i * bytes, last);
    const float *in = t->image;
    float *out = record + (long)i * t->record;
    for (int l = 0; l < t->layers - 1; l++) {
      convolve(&t->layer[l], in, out);
      in = out, out += t->layer[l].outputs;
    }
    convolve(final, in, t->gradients[t->layers - 1]);
    transpose(t->gradients[t->layers - 1], inputs + (long)i * t->inputs, final->oh * final->ow, final->oc);
  }
  linear(t, inputs, n, features);
}

INLINE void weights_tile(
    const Layer *y, const float *in, const float *dy, float *gradient, int ky, int j, int o, const int P
) {
  v16 acc[16];
  const int step = y->s * y->c, row = y->w * y->c, oc = y->oc;
  float *to = gradient + (ky * y->k * y->c + j) * oc + o;
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) acc[p] = load(to + p * oc);
  for (int oy = 0; oy < y->oh; oy++) {
    const float *x = in + (oy * y->s + ky) * row + j, *d = dy + oy * y->ow * oc + o;
    for (int ox = 0; ox < y->ow; ox++, x += step, d += oc) {
      v16 dv = load(d);
#pragma GCC unroll 16
      for (int p = 0; p < P; p++) acc[p] += x[p] * dv;
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) store(to + p * oc, acc[p]);
}

// Add the gradient of the packed weights.
static void add_weights(Layer *y, const float *in, const float *dy) {
  const int run = y->k * y->c;
  for (int ky = 0; ky < y->k; ky++)
    for (int o = 0; o < y->oc; o += LANES) {
      int j = 0;
      for (; j + 16 <= run; j += 16) weights_tile(y, in, dy, y->gradient, ky, j, o, 16);
      for (; j + 4 <= run; j += 4) weights_tile(y, in, dy, y->gradient, ky, j, o, 4);
      for (; j < run; j++) weights_tile(y, in, dy, y->gradient, ky, j, o, 1);
    }
}

INLINE void inputs_tile(const Layer *y, const float *dy, float *dx, int ky, int j, const int P, const int V) {
  v16 acc[TILE][4];
  const int run = y->k * y->c, step = y->s * y->c, oc = y->oc;
  const float *weights = y->backward + ky * oc * run + j;
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[p][v] = zero();
  for (int o = 0; o < oc; o++) {
    v16 w[4];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) w[v] = load(weights + o * run + v * LANES);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++)
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[p][v] += dy[p * oc + o] * w[v];
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) // positions overlap: one after the other
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      float *to = dx + p * step + j + v * LANES;
      store(to, load(to) + acc[p][v]);
    }
}

#define INPUT_TILE 5
// dx: [h][w][c], from dy [oh][ow][oc]. c is a multiple of 16, as it is of outputs.
static void set_inputs(const Layer *y, const float *dy, float *dx) {
  const int run = y->k * y->c;
  memset(dx, 0, sizeof(float) * (size_t)(y->h * y->w * y->c));
  for (int oy = 0; oy < y->oh; oy++)
    for (int ky = 0; ky < y->k; ky++) {
      float *to = dx + (oy * y->s + ky) * y->w * y->c;
      for (int ox = 0; ox < y->ow; ox += INPUT_TILE) {
        const float *from = dy + (oy * y->ow + ox) * y->oc;
        const int n = y->ow - ox < INPUT_TILE ? y->ow - ox : INPUT_TILE;
        float *at = to + ox * y->s * y->c;
        int j = 0;
        for (; j + 4 * LANES <= run; j += 4 * LANES)
          switch (n) { CASE(5, inputs_tile(y, from, at, ky, j, P, 4)) CASE(4, inputs_tile(y, from, at, ky, j, P, 4))
                       CASE(3, inputs_tile(y, from, at, ky, j, P, 4)) CASE(2, inputs_tile(y, from, at, ky, j, P, 4))
                       CASE(1, inputs_tile(y, from, at, ky, j, P, 4)) }
        for (; j < run; j += LANES)
          for (int p = 0; p < n; p++) inputs_tile(y, from + p * y->oc, at + p * y->s * y->c, ky, j, 1, 1);
      }
    }
}

INLINE void linear_weights_tile(
    const float *x, const float *dy, int hidden, int n, const int *o, float *out, int inputs, const int O,
    const int V
) {
  v16 acc[4][4];
#pragma GCC unroll 16
  for (int i = 0; i < O; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[i][v] = zero();
  for (int r = 0; r < n; r++) {
    v16 xs[4];
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
  v16 acc[4][4];
#pragma GCC unroll 16
  for (int i = 0; i < N; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) acc[i][v] = zero();
  for (int a = 0; a < active; a++) {
    const int o = t->rows[a];
    v16 w[4];
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
      v16 d = load(dy + (long)r * t->hidden + o);
      store(t->active + o, load(t->active + o) + d * d);
    }
  for (int o = 0; o < t->hidden; o++)
    if (t->active[o] != 0) t->rows[active++] = o; // also where it is not a number
  return active;
}

static void linear_backward(
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
    for (; a + 4 <= active; a += 4) {
      if (wide) linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, 4, 4);
      else linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, 4, 1);
    }
    for (; a < active; a++) {
      if (wide) linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, 1, 4);
      else linear_weights_tile(x + k, dy, t->hidden, n, t->rows + a, weights + k, inputs, 1, 1);
    }
    for (; i + 4 <= n; i += 4) {
      if (wide) linear_inputs_tile(t, dy, i, k, active, dx, 4, 4);
      else linear_inputs_tile(t, dy, i, k, active, dx, 4, 1);
    }
    for (; i < n; i++) {
      if (wide) linear_inputs_tile(t, dy, i, k, active, dx, 1, 4);
      else linear_inputs_tile(t, dy, i, k, active, dx, 1, 1);
    }
    k += wide ? 4 * LANES : LANES;
  }
}

// dy of a ReLU's input from that of its output, which was `out`.
static void mask(float *dy, const float *out, int n) {
  for (int i = 0; i < n; i++) dy[i] = out[i] <= 0 ? 0 : dy[i];
}

static void unpack(const Layer *y, float *to) {
  const int run = y->k * y->c;
  for (int o = 0; o < y->oc; o++)
    for (int c = 0; c < y->c; c++)
      for (int ky = 0; ky < y->k; ky++)
        for (int kx = 0; kx < y->k; kx++) *to++ = y->gradient[(ky * run + kx * y->c + c) * y->oc + o];
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
    memset(t->layer[l].gradient, 0, sizeof(float) * (size_t)(first[l].k * first[l].k * first[l].c * first[l].oc));
    memset(gradients[2 * l + 1], 0, sizeof(float) * (size_t)first[l].oc);
  }
  for (int i = 0; i < n; i++) {
    const float *out = record + (long)(i + 1) * t->record;
    const Layer *final = &t->layer[t->layers - 1];
    float *last_dx = dx + (long)i * t->inputs;
    mask(last_dx, inputs + (long)i * t->inputs, t->inputs);
    transpose(last_dx, t->gradients[t->layers - 1], final->oc, final->oh * final->ow);
    read_image(t, images + i * bytes, last);
    for (int l = t->layers - 1; l >= 0; l--) {
      Layer *y = &t->layer[l];
      const float *dy = t->gradients[l];
      const float *in = l ? out - t->layer[l - 1].outputs : t->image;
      float *bias = gradients[2 * l + 1];
      add_weights(y, in, dy);
      for (int p = 0; p < y->oh * y->ow; p++)
        for (int o = 0; o < y->oc; o += LANES) store(bias + o, load(bias + o) + load(dy + p * y->oc + o));
      if (!l) break;
      set_inputs(y, dy, t->gradients[l - 1]);
      mask(t->gradients[l - 1], in, t->layer[l - 1].outputs);
      out = in;
    }
  }
  for (int l = 0; l < t->layers; l++) unpack(&t->layer[l], gradients[2 * l]);
}

// Steps of the optimisers on n parameters, each in one pass over memory.

void rmsprop_step(
    float *restrict theta, const float *restrict gradient, float *restrict mean_square, long n, float learning_rate,
    float decay, float epsilon
) {
  for (long i = 0; i < n; i++) {
    const float d = gradient[i], square = decay * mean_square[i] + (1 - decay) * d * d;
    mean_square[i] = square;
    theta[i] -= learning_rate * d / __builtin_sqrtf(square + epsilon);
  }
}

// corrected: 1 - decay^step, of the mean square; learning_rate: divided by 1 - 0.9^step.
void adam_step(
    float *restrict theta, const float *restrict gradient, float *restrict mean, float *restrict mean_square, long n,
    float learning_rate, float decay, float corrected, float epsilon
) {
  const float scale = 1 / corrected;
  for (long i = 0; i < n; i++) {
    const float d = gradient[i], m = mean[i] + 0.1f * (d - mean[i]);
    const float square = decay * mean_square[i] + (1 - decay) * d * d;
    mean[i] = m, mean_square[i] = square;
    theta[i] -= learning_rate * m / (__builtin_sqrtf(square * scale) + epsilon);
  }
}
