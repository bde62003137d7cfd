"""Optimiser steps against their formulas, element by element, and against torch's where torch has the same one."""

import math

import numpy as np
import pytest
import torch

from asyncrl.optim import adam_step_, clip_global_norm_, linear_anneal, momentum_sgd_step_, rmsprop_step_

P, STEPS = 7, 12
GRADIENTS = np.random.default_rng(0).normal(scale=[1e-3, 0.1, 1, 3, 10, 100, 0], size=(STEPS, P))


def tensors() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.linspace(-1, 1, P, dtype=torch.float64), [torch.from_numpy(g) for g in GRADIENTS]


def test_rmsprop_has_epsilon_inside_the_root() -> None:
    theta, gradients = tensors()
    mean_square, slow, g = torch.zeros_like(theta), theta.tolist(), [0.0] * P
    for d in gradients:
        rmsprop_step_(theta, d, mean_square, learning_rate=0.01, decay=0.9, epsilon=0.1)
        for i in range(P):
            g[i] = 0.9 * g[i] + 0.1 * d[i].item() ** 2
            slow[i] -= 0.01 * d[i].item() / math.sqrt(g[i] + 0.1)
    np.testing.assert_allclose(theta, slow, rtol=1e-12)
    np.testing.assert_allclose(mean_square, g, rtol=1e-12)


def test_a_constant_gradient_brings_rmsprop_to_its_closed_form() -> None:
    """After n steps the mean square is (1 - decay^n) d^2; from zero, so the first steps are long."""
    theta, mean_square = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    d, moved = 2.0, 0.0
    for n in range(1, 6):
        rmsprop_step_(theta, torch.full_like(theta, d), mean_square, learning_rate=0.1, decay=0.99, epsilon=0.1)
        moved -= 0.1 * d / math.sqrt((1 - 0.99**n) * d * d + 0.1)
    assert theta.item() == pytest.approx(moved, rel=1e-12)


def test_rmsprop_differs_from_torchs_which_has_epsilon_outside() -> None:
    ours, theirs = torch.zeros(1), torch.nn.Parameter(torch.zeros(1))
    rmsprop_step_(ours, torch.ones(1), torch.zeros(1), learning_rate=0.1, decay=0.99, epsilon=0.1)
    theirs.grad = torch.ones(1)
    torch.optim.RMSprop([theirs], lr=0.1, alpha=0.99, eps=0.1).step()
    assert ours.item() == pytest.approx(-0.1 / math.sqrt(0.01 + 0.1), rel=1e-5)
    assert theirs.item() == pytest.approx(-0.1 / (math.sqrt(0.01) + 0.1), rel=1e-5)


def test_momentum_averages_gradients() -> None:
    theta, gradients = tensors()
    momentum, slow, m = torch.zeros_like(theta), theta.numpy().copy(), np.zeros(P)
    for d in gradients:
        momentum_sgd_step_(theta, d, momentum, learning_rate=0.05, decay=0.9)
        m = 0.9 * m + (1 - 0.9) * d.numpy()
        slow = slow - 0.05 * m
    np.testing.assert_allclose(theta, slow, rtol=1e-12)


def test_adam_is_torchs_adam() -> None:
    theta, gradients = tensors()
    mean, mean_square, theirs = torch.zeros_like(theta), torch.zeros_like(theta), torch.nn.Parameter(theta.clone())
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.99), eps=1e-5)
    for step, d in enumerate(gradients, start=1):
        adam_step_(theta, d, mean, mean_square, step=step, learning_rate=0.01, momentum=0.8, decay=0.99, epsilon=1e-5)
        theirs.grad = d.clone()
        optimizer.step()
        torch.testing.assert_close(theta, theirs.data, rtol=1e-12, atol=1e-14)


def test_steps_leave_the_gradient_alone() -> None:
    gradient = torch.ones(3)
    rmsprop_step_(torch.zeros(3), gradient, torch.zeros(3), learning_rate=1, decay=0.5, epsilon=0.1)
    momentum_sgd_step_(torch.zeros(3), gradient, torch.zeros(3), learning_rate=1, decay=0.5)
    zeros = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    adam_step_(zeros[0], gradient, zeros[1], zeros[2], step=1, learning_rate=1, momentum=0.9, decay=0.5, epsilon=0.1)
    assert torch.equal(gradient, torch.ones(3))


def test_clipping_keeps_direction_and_returns_the_norm_before() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert clip_global_norm_(gradient, None) == 5
    assert clip_global_norm_(gradient, 6.0) == 5
    assert gradient.tolist() == [3, 4]
    assert clip_global_norm_(gradient, 2.5) == 5
    np.testing.assert_allclose(gradient, [1.5, 2.0], rtol=1e-6)


def test_a_zero_gradient_survives_clipping() -> None:
    gradient = torch.zeros(2)
    assert clip_global_norm_(gradient, 1.0) == 0
    assert gradient.tolist() == [0, 0]


def test_clipping_takes_norms_whose_squares_no_float_holds():
    gradient = torch.tensor([3e20, 4e20])
    assert clip_global_norm_(gradient, None) == math.inf  # nor do an optimiser's statistics hold them
    assert clip_global_norm_(gradient, 1.0) == pytest.approx(5e20)
    torch.testing.assert_close(gradient, torch.tensor([0.6, 0.8]))
    assert clip_global_norm_(torch.tensor([math.inf, 1.0]), 1.0) == math.inf


def test_annealing_is_linear_and_clamped() -> None:
    fractions = (-1, 0, 0.25, 1, 3)
    assert [linear_anneal(8.0, 4.0, f) for f in fractions] == [8, 8, 7, 4, 4]
