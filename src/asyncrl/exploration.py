"""Epsilon-greedy exploration as the paper's Q methods use it (supplement 8)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asyncrl.optim import linear_anneal


def draw_final_epsilons(
    num_envs: int, epsilons: Sequence[float], probabilities: Sequence[float], generator: np.random.Generator
) -> np.ndarray:
    """Draw the final epsilon [B] of each environment from `epsilons` [N] with `probabilities` [N].

    Paper: it draws one per thread and leaves open whether it is drawn again later; we draw once per environment.
    """
    return generator.choice(epsilons, size=num_envs, p=np.array(probabilities) / sum(probabilities))


def annealed_epsilons(final_epsilons: np.ndarray, frames: int, anneal_frames: int) -> np.ndarray:
    """Return epsilons [B] at the global count `frames`, annealed linearly from 1 over `anneal_frames` frames."""
    fraction = frames / anneal_frames if anneal_frames else 1.0
    return np.array([linear_anneal(1.0, final, fraction) for final in final_epsilons])


def epsilon_greedy(q_values: Tensor, epsilons: Tensor, generator: torch.Generator) -> Tensor:
    """Return actions [B]: greedy in `q_values` [B, A], uniformly random with probability `epsilons` [B]."""
    batch, num_actions = q_values.shape
    explores = torch.rand(batch, generator=generator) < epsilons
    random_actions = torch.randint(num_actions, (batch,), generator=generator)
    return torch.where(explores, random_actions, q_values.argmax(-1))
