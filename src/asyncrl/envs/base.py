"""What a worker sees of its environments: B of them stepped as one batch, with autoreset hidden."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from gymnasium import spaces


class Step(NamedTuple):
    """What B environments answered to one action each."""

    observations: np.ndarray  # [B, ...] to act on next: where an episode ended, the first of the next one
    rewards: np.ndarray  # [B] float32, raw
    terminated: np.ndarray  # [B] bool: the world ended; nothing follows
    truncated: np.ndarray  # [B] bool: a limit cut the episode; the world would have gone on
    lives_lost: np.ndarray  # [B] bool: a life was lost and the game is not over
    final_observations: np.ndarray | None  # [B, ...] true last observations where an episode ended; None if none did


class Environments(ABC):
    """B environments of one worker. An environment that ends is reset at once, so that there are no dead steps."""

    num_envs: int
    frames_per_step: int  # emulator frames that one agent step advances
    rewards_are_scores: bool  # whether rewards are game scores of arbitrary scale, which the learner clips (Atari)
    observation_space: spaces.Space  # of one environment
    action_space: spaces.Space  # of one environment

    @abstractmethod
    def reset(self, seed: int | None = None) -> np.ndarray:
        """Reset every environment; return the observations [B, ...]."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """Apply actions [B, ...] as the learner writes them: see `ActionMap`."""

    @abstractmethod
    def close(self) -> None:
        """Release the simulators. May be called more than once."""
