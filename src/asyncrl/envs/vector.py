"""Any Gymnasium environment behind our interface, stepped one after the other in the worker's process."""

import contextlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from asyncrl.envs.actions import ActionMap
from asyncrl.envs.base import Environments, Step
from asyncrl.errors import UserError, shortened

_LARGEST = np.finfo(np.float32).max  # what networks compute with


class GymnasiumEnvironments(Environments):
    """B copies of a Gymnasium environment.

    Args:
        make: builds one environment.
        num_envs: B.
        beat: called as each is built or reset, which may take long.
    """

    frames_per_step = 1
    rewards_are_scores = False

    def __init__(
        self, make: Callable[[], gymnasium.Env], num_envs: int, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.num_envs, self._beat = num_envs, beat
        # Not Gymnasium's SyncVectorEnv: it gathers infos, which nobody reads here, for 2 to 10 us a step.
        self._envs: list[gymnasium.Env] = []
        try:
            self._build(make)
        except BaseException:
            with contextlib.suppress(Exception):  # what has failed before is what there is to tell
                self.close()
            raise

    def _build(self, make: Callable[[], gymnasium.Env]) -> None:
        for _ in range(self.num_envs):
            self._envs.append(make())
            self._beat()
        if len({id(env.unwrapped) for env in self._envs}) < self.num_envs:
            raise UserError("the same environment was given twice: make a new one at each call")
        self.observation_space, self.action_space = self._envs[0].observation_space, self._envs[0].action_space
        for env in self._envs:
            if (env.observation_space, env.action_space) != (self.observation_space, self.action_space):
                raise UserError(f"an environment must have the same spaces each time that it is made: {env}")
        self._actions = ActionMap(self.action_space)
        self._no_lives_lost = np.zeros(self.num_envs, bool)
        self._has_floats = np.issubdtype(self.observation_space.dtype, np.floating)

    def reset(self, seed: int | None = None) -> np.ndarray:
        seeds = [None] * self.num_envs if seed is None else range(seed, seed + self.num_envs)
        batch = self._batch([self._reset(env, seed) for env, seed in zip(self._envs, seeds, strict=True)])
        self._require_finite(batch)
        return batch

    def _reset(self, env: gymnasium.Env, seed: int | None = None) -> Any:
        observation, _ = env.reset(seed=seed)
        self._beat()
        return observation

    def step(self, actions: np.ndarray) -> Step:
        observations = []
        rewards, (terminated, truncated) = np.empty(self.num_envs, np.float32), np.empty((2, self.num_envs), bool)
        for i, action in enumerate(self._actions.to_environment(actions)):
            observation, reward, terminated[i], truncated[i], _ = self._envs[i].step(action)
            rewards[i] = reward if isinstance(reward, float) else _number(reward)
            observations.append(observation)
        if not np.isfinite(rewards).all():
            raise UserError(f"an environment gave the reward {rewards[~np.isfinite(rewards)][0]}: give finite numbers")
        batch, final = self._batch(observations), None
        self._require_finite(batch, terminated)
        ended = terminated | truncated
        if ended.any():
            final = np.where(np.abs(batch) <= _LARGEST, batch, 0) if self._has_floats else batch
            for i in np.flatnonzero(ended):
                observations[i] = self._reset(self._envs[i])
            batch = self._batch(observations)
            self._require_finite(batch)
        # Both flags at once mean that the world ended: nothing is left to bootstrap from.
        return Step(batch, rewards, terminated, truncated & ~terminated, self._no_lives_lost, final)

    def close(self) -> None:
        failures = []
        while self._envs:
            try:
                self._envs.pop().close()
            except Exception as error:
                failures.append(error)  # the others are to be closed all the same
        if failures:
            raise failures[0]

    def _batch(self, observations: list[Any]) -> np.ndarray:
        """Return a new array [B, ...] of the space's own type, which `np.stack` checks each observation against."""
        space = self.observation_space
        assert space.shape is not None
        return np.stack(observations, out=np.empty((self.num_envs, *space.shape), space.dtype))

    def _require_finite(self, batch: np.ndarray, terminated: np.ndarray | None = None) -> None:
        """Complain of what would stay in the statistics of inputs for good.

        Where a world terminated, nobody looks at what it showed last: one that blew up may have ended in infinity.
        """
        if self._has_floats and not (np.abs(batch) <= _LARGEST).all():
            seen = batch if terminated is None else batch[~terminated]
            if (odd := seen[~(np.abs(seen) <= _LARGEST)]).size:
                raise UserError(f"an environment observed {odd[0]}: give finite numbers, of float32's range")


def _number(reward: Any) -> float:
    """Return a reward that is no Python float: NumPy's numbers, and arrays of one."""
    try:
        return np.asarray(reward, np.float64).item()
    except (TypeError, ValueError, RuntimeError):  # the last one for a tensor with a gradient
        raise UserError(f"an environment gave the reward {shortened(str(reward))}: give one number") from None


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
    def render_frames_per_second(self) -> float:
        """Pictures per second at which the environment looks natural."""
        return float(self._film.metadata.get("render_fps", 30))


class _Film(gymnasium.Wrapper):
    """Takes a picture where an episode ended: the next one begins before anybody could ask."""

    last: np.ndarray | None = None

    def step(self, action: Any) -> Any:
        result = super().step(action)
        ended = result[2] or result[3]
        self.last = self.render() if ended else None
        return result

    def render(self) -> np.ndarray:  # type: ignore[override]
        picture = np.asarray(super().render())
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise NotImplementedError("the environment renders no arrays of colours: bytes [H, W, 3]")
        return picture
