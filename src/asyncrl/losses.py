"""Losses of the paper's methods: summed over time, divided by B, so that B = 1 is exactly the paper's sum.

Every loss is a scalar of `[T, B]` tensors. Returns, targets and advantages are constants here: callers detach.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


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


class ActorCriticLoss(NamedTuple):
    """A3C's loss and its parts."""

    total: Tensor  # policy - entropy_cost * entropy + value_cost * value, to be descended
    policy: Tensor
    value: Tensor
    entropies: Tensor  # [T, B] in nats


def categorical_actor_critic_loss(
    log_policy: Tensor, values: Tensor, actions: Tensor, returns: Tensor, entropy_cost: float, value_cost: float
) -> ActorCriticLoss:
    """Return the loss of Algorithm S3 with its gradient in closed form: a few operations where autograd needs dozens.

    Args:
        log_policy: [T, B, A], log-probabilities.
        values: [T, B].
        actions: [T, B], int64.
        returns: [T, B], constants.
        entropy_cost: beta of section 4.
        value_cost: weight of the value loss.
    """
    return ActorCriticLoss(
        *_CategoricalActorCritic.apply(log_policy, values, actions, returns, entropy_cost, value_cost)
    )


class _CategoricalActorCritic(Function):
    """With l = log pi, R and A = R - V constants: L = sum_t -l(a) A + beta sum_j e^l_j l_j + c/2 (R - V)^2, over B.

    dL/dl_j = -A [j = a] + beta e^l_j (l_j + 1) and dL/dV = -c A, over B.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx,
        log_policy: Tensor,
        values: Tensor,
        actions: Tensor,
        returns: Tensor,
        entropy_cost: float,
        value_cost: float,
    ) -> tuple[Tensor, ...]:
        advantages, taken, policy = returns - values, actions.unsqueeze(-1), log_policy.exp()
        weighted = policy * log_policy
        entropies = -weighted.sum(-1)
        policy_loss = policy_gradient_loss(log_policy.gather(-1, taken).squeeze(-1), advantages)
        loss_of_values = value_loss(values, returns)
        total = policy_loss - entropy_cost * sum_over_time(entropies) + value_cost * loss_of_values
        scaled = advantages / -len(values[0])
        ctx.gradients = (
            weighted.add_(policy).mul_(entropy_cost / len(values[0])).scatter_add_(-1, taken, scaled.unsqueeze(-1)),
            scaled * value_cost,
        )
        ctx.set_materialize_grads(False)  # of the three that have none
        ctx.mark_non_differentiable(policy_loss, loss_of_values, entropies)
        return total, policy_loss, loss_of_values, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_log_policy, of_values = ctx.gradients
        return of_log_policy * gradient, of_values * gradient, None, None, None, None


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
