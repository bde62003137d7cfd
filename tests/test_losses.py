"""Losses and their gradients, against loops and closed forms."""

import math

import numpy as np
import torch
from torch.distributions import Categorical, Normal

from asyncrl import losses

T, B, A = 5, 4, 3
RNG = np.random.default_rng(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape))


def test_losses_are_summed_over_time_and_divided_by_the_batch() -> None:
    each = draw(T, B)
    by_hand = sum(sum(each[t, b].item() for t in range(T)) for b in range(B)) / B
    assert math.isclose(losses.sum_over_time(each).item(), by_hand)


def test_with_one_environment_the_gradient_is_the_papers_sum() -> None:
    values, returns = draw(T, 1).requires_grad_(), draw(T, 1)
    (gradient,) = torch.autograd.grad(losses.value_loss(values, returns), values)
    torch.testing.assert_close(gradient, values.detach() - returns)


def test_value_loss_has_the_half_and_q_loss_has_not() -> None:
    predicted, wanted = torch.tensor([[1.0], [3.0]], requires_grad=True), torch.tensor([[4.0], [1.0]])
    assert losses.value_loss(predicted, wanted).item() == (9 + 4) / 2
    assert losses.q_loss(predicted, wanted).item() == 9 + 4
    (gradient,) = torch.autograd.grad(losses.q_loss(predicted, wanted), predicted)
    assert gradient.squeeze(1).tolist() == [-6, 4]


def test_policy_gradient_raises_the_log_probability_of_what_paid() -> None:
    log_probs, advantages = draw(T, B).requires_grad_(), draw(T, B)
    (gradient,) = torch.autograd.grad(losses.policy_gradient_loss(log_probs, advantages), log_probs)
    torch.testing.assert_close(-gradient, advantages / B)


def test_the_closed_form_of_the_actor_critic_loss_is_what_autograd_makes_of_its_parts() -> None:
    torch.manual_seed(3)
    logits = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    values = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    actions, returns = torch.randint(5, (4, 3)), torch.randn(4, 3, dtype=torch.float64)
    log_policy = torch.log_softmax(logits, -1)
    closed = losses.categorical_actor_critic_loss(log_policy, values, actions, returns, 0.3, 0.7)

    taken = log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    entropies = losses.categorical_entropy(log_policy)
    policy_loss = losses.policy_gradient_loss(taken, returns - values.detach())
    value_loss = losses.value_loss(values, returns)
    total = policy_loss - 0.3 * losses.sum_over_time(entropies) + 0.7 * value_loss

    for ours, theirs in zip(closed, (total, policy_loss, value_loss, entropies), strict=True):
        torch.testing.assert_close(ours, theirs)
    ours = torch.autograd.grad(2 * closed.total, [logits, values], retain_graph=True)
    theirs = torch.autograd.grad(2 * total, [logits, values])
    torch.testing.assert_close(ours, theirs)


def test_categorical_entropy_is_minus_sum_p_log_p() -> None:
    log_policy = torch.log_softmax(3 * draw(T, B, A), -1)
    slow = [[-sum(math.exp(x) * x for x in log_policy[t, b].tolist()) for b in range(B)] for t in range(T)]
    np.testing.assert_allclose(losses.categorical_entropy(log_policy), slow, rtol=1e-12)
    torch.testing.assert_close(losses.categorical_entropy(log_policy), Categorical(logits=log_policy).entropy())
    uniform = torch.full((1, 1, A), math.log(1 / A))
    assert math.isclose(losses.categorical_entropy(uniform).item(), math.log(A), rel_tol=1e-6)


def test_entropy_of_a_nearly_certain_policy_has_a_finite_gradient() -> None:
    logits = torch.tensor([[[200.0, 0.0, -200.0]]], requires_grad=True)
    entropy = losses.categorical_entropy(torch.log_softmax(logits, -1)).sum()
    (gradient,) = torch.autograd.grad(entropy, logits)
    assert torch.isfinite(gradient).all()


def test_gaussian_log_probability_is_summed_over_dimensions() -> None:
    actions, mean, per_dimension, spherical = draw(T, B, A), draw(T, B, A), draw(T, B, A).exp(), draw(T, B, 1).exp()
    for variance in (per_dimension, spherical):
        wanted = Normal(mean, variance.sqrt().expand(T, B, A)).log_prob(actions).sum(-1)
        torch.testing.assert_close(losses.gaussian_log_prob(actions, mean, variance), wanted)


def test_gaussian_entropy_is_the_papers_per_dimension() -> None:
    """Supplement 9: 1/2 (log(2 pi sigma^2) + 1)."""
    for variance in (draw(T, B, A).exp(), draw(T, B, 1).exp()):
        wanted = Normal(0.0, variance.sqrt().expand(T, B, A)).entropy().sum(-1)
        torch.testing.assert_close(losses.gaussian_entropy(variance, A), wanted)
    assert math.isclose(
        losses.gaussian_entropy(torch.tensor([[[0.25]]]), 1).item(),
        0.5 * (math.log(2 * math.pi * 0.25) + 1),
        rel_tol=1e-6,
    )
