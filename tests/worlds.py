"""Small worlds for the tests of many workers: one that is quick, and several that fail in their own ways.

NumPy and Gymnasium only, on import. Workers import them by path, as in "worlds:tiny". What fails only once leaves the
file `failed` in the working directory, which workers share with their trainer.
"""

import ctypes
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Tiny(gymnasium.Env):
    """Four steps an episode; action 1 earns 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space: spaces.Space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space: spaces.Space = spaces.Discrete(2)
        self.render_mode = render_mode
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        return self._observe(), float(action), self.steps == 4, False, {}

    def render(self):
        return np.full((40, 60, 3), 60 * self.steps, np.uint8)

    def _observe(self):
        return np.array([self.steps / 4, self.np_random.uniform(-1, 1), 1.0], np.float32)


class Failing(Tiny):
    """Calls `fail` in its 1000th step, always or if nobody has failed before."""

    def __init__(self, fail: Callable[[], None], *, once: bool) -> None:
        super().__init__()
        self.fail, self.once, self.left = fail, once, 1000

    def step(self, action):
        self.left -= 1
        if self.left == 0 and (_is_first_to_fail() or not self.once):
            self.fail()
        return super().step(action)


def tiny(render_mode: str | None = None) -> gymnasium.Env:
    return Tiny(render_mode)


class Slow(Tiny):
    """Takes a fifth of a second for a step, and leaves a mark in its first."""

    def step(self, action):
        Path("stepping").touch()
        time.sleep(0.2)
        return super().step(action)


class Careless(Tiny):
    """Draws its rewards from the generators that modules share, in place of its own."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module
        random.random()
        np.random.random()  # noqa: NPY002

    def step(self, action):
        import torch

        draws = {"numpy": np.random.random, "random": random.random, "torch": lambda: float(torch.rand(()))}
        observation, _, *rest = super().step(action)
        return observation, draws[self.module](), *rest


def careless(module: str = "numpy") -> gymnasium.Env:
    return Careless(module)


def has_child() -> gymnasium.Env:
    """In a worker start a process of one's own and leave it behind; a file is named after it."""
    if multiprocessing.parent_process() is not None:  # the test's own process would wait for it in the end
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        Path(f"child-{child.pid}").touch()
    return Tiny()


def leaves_program() -> gymnasium.Env:
    """Start a program and leave it behind, with all that it inherits; a file is named after it."""
    Path(f"program-{subprocess.Popen(['sleep', '600']).pid}").touch()
    return Tiny()


class ResetsSlowly(Tiny):
    """Takes a second for its second reset."""

    resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        if self.resets == 2:
            Path("resetting").touch()
            time.sleep(1.0)
        return super().reset(seed=seed)


def resets_slowly() -> gymnasium.Env:
    return ResetsSlowly()


def slow() -> gymnasium.Env:
    return Slow()


class ClosesSlowly(Tiny):
    """Needs three seconds to close, and leaves a mark of its process then."""

    def close(self):
        time.sleep(3.0)
        Path(f"closed-{multiprocessing.current_process().name}").touch()


def closes_slowly() -> gymnasium.Env:
    return ClosesSlowly()


class Odd(Tiny):
    """Gives one `reward` and one first number of an `observation` of its own in its `step`-th step."""

    def __init__(self, reward: float | None, observation: float | None, step: int) -> None:
        super().__init__()
        self.reward, self.observation, self.left = reward, observation, step

    def step(self, action):
        self.left -= 1
        observation, reward, *rest = super().step(action)
        if self.left == 0 and self.observation is not None:
            observation = np.array([self.observation, *observation[1:]])
        return observation, self.reward if self.left == 0 and self.reward is not None else reward, *rest


def odd(reward: str | None = None, observation: str | None = None, step: int = 1000) -> gymnasium.Env:
    return Odd(*(None if number is None else float(number) for number in (reward, observation)), step)


def unbuildable() -> gymnasium.Env:
    raise RuntimeError("the court\nis closed")


class Broken(Tiny):
    """Raises in its first step."""

    def step(self, action):
        _raise()


def broken() -> gymnasium.Env:
    return Broken()


class Hanging(Tiny):
    """Never answers in its first step."""

    def step(self, action):
        time.sleep(3600)


def hangs() -> gymnasium.Env:
    return Hanging()


def raising() -> gymnasium.Env:
    return Failing(_raise, once=False)


def raising_once() -> gymnasium.Env:
    return Failing(_raise, once=True)


def hanging_once() -> gymnasium.Env:
    return Failing(lambda: time.sleep(3600), once=True)


def hanging_soon() -> gymnasium.Env:
    env = Failing(lambda: time.sleep(3600), once=False)
    env.left = 20
    return env


def ending_once() -> gymnasium.Env:
    """End the process as if all were well: a worker that does so is not done."""
    return Failing(lambda: os._exit(0), once=True)


def talkative() -> gymnasium.Env:
    print("hello from an environment")
    os.write(1, b"hello from its C code\n")
    ctypes.CDLL(None).printf(b"and from a buffer of C\n")
    return Tiny()


def renders_none() -> gymnasium.Env:
    env = Tiny()
    env.render = lambda: None  # type: ignore[method-assign]
    return env


def renders_transparency() -> gymnasium.Env:
    env = Tiny()
    env.render = lambda: np.zeros((40, 60, 4), np.uint8)  # type: ignore[method-assign]
    return env


def observes_dict() -> gymnasium.Env:
    env = Tiny()
    env.observation_space = spaces.Dict({"x": env.observation_space})
    return env


class Pictures(Tiny):
    """The same, seen as 84x84 pictures in RGB."""

    def __init__(self, action_space: spaces.Space) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
        self.action_space = action_space

    def _observe(self):
        return np.full((84, 84, 3), 60 * self.steps, np.uint8)


def pictures() -> gymnasium.Env:
    return Pictures(spaces.Discrete(2))


def continuous_pictures() -> gymnasium.Env:
    return Pictures(spaces.Box(-1.0, 1.0, (2,), np.float32))


def takes_many() -> gymnasium.Env:
    env = Tiny()
    env.action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)])
    return env


def _is_first_to_fail() -> bool:
    try:
        Path("failed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _raise() -> None:
    raise RuntimeError("the ball is lost")


class Picture(gymnasium.Env):
    """Uniformly random pictures of any shape; action 1 earns 1; three steps an episode."""

    def __init__(self, shape: tuple[int, ...], dtype: type = np.uint8) -> None:
        self.observation_space = spaces.Box(0, 1 if dtype is bool else 255, shape, dtype)
        self.action_space = spaces.Discrete(2)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        return self._observe(), float(action), self.steps == 3, False, {}

    def _observe(self):
        high = 2 if self.observation_space.dtype == bool else 256
        return self.np_random.integers(0, high, self.observation_space.shape).astype(self.observation_space.dtype)


def cannot_render() -> gymnasium.Env:
    return Picture((1, 12, 12))
