"""Between the learner's actions and the environment's. Only here are actions shifted, rescaled and clipped.

The learner counts choices from 0 and writes continuous actions as one row of unbounded numbers, of which [-1, 1] spans
a finite range of the environment; it never sees what becomes of them, so its log-probabilities are of what it drew.
"""

from typing import Any

import numpy as np
from gymnasium import spaces


class ActionMap:
    """Turns actions [B, ...] of a learner into those of a space, and back.

    Args:
        space: of one environment's actions.
    """

    def __init__(self, space: spaces.Space) -> None:
        self.space = space
        if isinstance(space, spaces.Box):
            finite = np.isfinite(space.low) & np.isfinite(space.high)
            self._centre = np.where(finite, _half(space.low, finite) + _half(space.high, finite), 0.0)
            reach = np.where(finite, _half(space.high, finite) - _half(space.low, finite), 1.0)
            self._reach = np.where(reach > 0, reach, 1.0)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return what the environments get: rescaled from [-1, 1] where both bounds are finite, then clipped."""
        space = self.space
        if isinstance(space, spaces.Box):
            actions = self._centre + self._reach * actions.reshape(-1, *space.shape)
            return np.clip(actions, space.low, space.high).astype(space.dtype)
        return actions + space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else actions

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the learner's name of actions that the environments would take."""
        space = self.space
        if isinstance(space, spaces.Box):
            return ((actions - self._centre) / self._reach).reshape(len(actions), -1).astype(np.float32)
        return actions - space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else actions

    def sample(self, batch: int) -> np.ndarray:
        """Return random actions [B, ...] of a learner, drawn by the space's own generator."""
        drawn: list[Any] = [self.space.sample() for _ in range(batch)]
        return self.from_environment(np.stack(drawn))


def _half(bound: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Return half of `bound` in float64, 0 where it is infinite: the difference of two halves cannot overflow."""
    return np.where(finite, bound, 0.0).astype(np.float64) / 2
