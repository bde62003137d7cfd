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

// corrected: 1 - decay^step, of the mean square; learning_rate: divided by 1 - momentum^step.
void adam_step(
    float *restrict theta, const float *restrict gradient, float *restrict mean, float *restrict mean_square, long n,
    float learning_rate, float momentum, float decay, float corrected, float epsilon
) {
  const float scale = 1 / corrected;
  for (long i = 0; i < n; i++) {
    const float d = gradient[i], m = mean[i] + (1 - momentum) * (d - mean[i]);
    const float square = decay * mean_square[i] + (1 - decay) * d * d;
    mean[i] = m, mean_square[i] = square;
    theta[i] -= learning_rate * m / (__builtin_sqrtf(square * scale) + epsilon);
  }
}
