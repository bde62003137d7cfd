"""Epsilon-greedy exploration as the paper's Q methods use it (supplement 8)."""

import numpy as np
import torch
from torch import Tensor

from asyncrl.optim import linear_anneal

FINAL_EPSILONS = (0.1, 0.01, 0.5)
FINAL_EPSILON_PROBABILITIES = (0.4, 0.3, 0.3)


def draw_final_epsilons(num_envs: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the final epsilon [B] of each environment from {0.1, 0.01, 0.5} with probabilities {0.4, 0.3, 0.3}.

    Paper: it draws one per thread and leaves open whether it is drawn again later; we draw once per environment.
    """
    return generator.choice(FINAL_EPSILONS, size=num_envs, p=FINAL_EPSILON_PROBABILITIES)


def annealed_epsilons(final_epsilons: np.ndarray, frames: int, anneal_frames: int) -> np.ndarray:
    """Return epsilons [B] at the global count `frames`, annealed linearly from 1 over `anneal_frames` frames."""
    fraction = frames / max(anneal_frames, 1)
    return np.array([linear_anneal(1.0, final, fraction) for final in final_epsilons])


def epsilon_greedy(q_values: Tensor, epsilons: Tensor, generator: torch.Generator) -> Tensor:
    """Return actions [B]: greedy in `q_values` [B, A], uniformly random with probability `epsilons` [B]."""
    batch, num_actions = q_values.shape
    explores = torch.rand(batch, generator=generator) < epsilons
    random_actions = torch.randint(num_actions, (batch,), generator=generator)
    return torch.where(explores, random_actions, q_values.argmax(-1))
