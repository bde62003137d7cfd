"""Losses of the paper's methods: summed over time, divided by B, so that B = 1 is exactly the paper's sum.

Every function takes `[T, B]` tensors and returns a scalar. Targets and advantages are constants here: callers detach.
"""

import math

import torch
from torch import Tensor


def sum_over_time(losses: Tensor) -> Tensor:
    """Return the sum over T divided by B of `losses` [T, B]: the paper accumulates, it does not average."""
    return losses.sum() / losses.shape[1]


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return -log pi(a_t|s_t) A_t, whose descent is the ascent of Algorithm S3; both arguments [T, B]."""
    return sum_over_time(-log_probs * advantages)


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Return 1/2 (R_t - V(s_t))^2; both arguments [T, B].

    Paper: Algorithm S3 prints d(R - V)^2 without a coefficient; the authors halve the value gradients (`value_cost`).
    """
    return sum_over_time(0.5 * (returns - values).square())


def q_loss(q_taken: Tensor, targets: Tensor) -> Tensor:
    """Return (y_t - Q(s_t, a_t))^2 as Algorithms 1 and S2 print it, without a half; both arguments [T, B]."""
    return sum_over_time((targets - q_taken).square())


def categorical_entropy(log_policy: Tensor) -> Tensor:
    """Return the entropy [T, B] in nats of log-probabilities [T, B, A]."""
    return -(log_policy.exp() * log_policy).sum(-1)


def gaussian_log_prob(actions: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return log N(a; mean, variance) [T, B], summed over action dimensions; `variance` broadcasts to [T, B, A]."""
    squares = (actions - mean).square() / variance
    return -0.5 * (squares + torch.log(2 * math.pi * variance)).sum(-1)


def gaussian_entropy(variance: Tensor, num_dimensions: int) -> Tensor:
    """Return the entropy [T, B] of a diagonal Gaussian from its variances [T, B, 1] (spherical) or [T, B, A]."""
    per_dimension = 0.5 * (torch.log(2 * math.pi * variance) + 1)
    return per_dimension.expand(*variance.shape[:-1], num_dimensions).sum(-1)
