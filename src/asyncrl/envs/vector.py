"""Any Gymnasium environment behind our interface, stepped one after the other in the worker's process."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from asyncrl.envs.actions import ActionMap
from asyncrl.envs.base import Environments, Step


class GymnasiumEnvironments(Environments):
    """B copies of a Gymnasium environment.

    Args:
        make: builds one environment.
        num_envs: B.
    """

    frames_per_step = 1
    rewards_are_scores = False

    def __init__(self, make: Callable[[], gymnasium.Env], num_envs: int) -> None:
        self._env = SyncVectorEnv([make] * num_envs, copy=True, autoreset_mode=AutoresetMode.DISABLED)
        self.num_envs = num_envs
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._actions = ActionMap(self.action_space)
        self._no_lives_lost = np.zeros(num_envs, bool)

    def reset(self, seed: int | None = None) -> np.ndarray:
        observations, _ = self._env.reset(seed=seed)
        return observations

    def step(self, actions: np.ndarray) -> Step:
        observations, rewards, terminated, truncated, _ = self._env.step(self._actions.to_environment(actions))
        ended = terminated | truncated
        final = None
        if ended.any():
            final = observations
            observations, _ = self._env.reset(options={"reset_mask": ended})
        # Both flags at once mean that the world ended: nothing is left to bootstrap from.
        return Step(
            observations, rewards.astype(np.float32), terminated, truncated & ~terminated, self._no_lives_lost, final
        )

    def close(self) -> None:
        self._env.close()


class FilmedEnvironment(GymnasiumEnvironments):
    """One environment that shows itself, also as an episode ended.

    Args:
        make: builds it, able to render arrays.
    """

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._film = _Film(make())
        super().__init__(lambda: self._film, 1)

    def picture(self) -> np.ndarray:
        """Return the picture [H, W, 3] after the last step, or at the start."""
        return self._film.render() if self._film.last is None else self._film.last

    @property
    def render_frames_per_second(self) -> int:
        """Pictures per second at which the environment looks natural."""
        return int(self._film.metadata.get("render_fps", 30))


class _Film(gymnasium.Wrapper):
    """Takes a picture after each step: where the episode ended, the next one begins before anybody could ask."""

    last: np.ndarray | None = None

    def step(self, action: Any) -> Any:
        result = super().step(action)
        self.last = self.render()
        return result

    def render(self) -> np.ndarray:  # type: ignore[override]
        picture = np.asarray(super().render())
        if picture.ndim != 3:
            raise NotImplementedError("the environment renders no arrays of colours")
        return picture
