"""Small worlds that isolate one ability each and train in seconds. NumPy only.

`asyncrl/Catch-v0` sees, `asyncrl/MemoryChain-v0` remembers, `asyncrl/TimeLimitChain-v0` tells a time limit from an end,
`asyncrl/Target-v0` takes continuous actions. Catch and MemoryChain follow bsuite's tasks of those names.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from asyncrl.envs.options import require_whole

MOST, LONGEST = 1024, 10**9  # of a size, and of steps

Observed = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class Catch(gymnasium.Env[np.ndarray, np.int64]):
    """Move a paddle under a falling ball: reward 1 for a catch, -1 for a miss, at the end of the episode.

    Observation uint8 [1, rows, columns], 255 where ball and paddle are. Actions: left, stay, right.

    Args:
        rows: height of the board; an episode has rows - 1 steps.
        columns: width of the board.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012  (Gymnasium's own type)

    def __init__(self, rows: int = 10, columns: int = 5, render_mode: str | None = None) -> None:
        self.rows, self.columns = require_whole("rows", rows, 2, MOST), require_whole("columns", columns, 1, MOST)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (1, rows, columns), np.uint8)
        self.action_space = spaces.Discrete(3)
        self._ball, self._paddle = np.zeros(2, int), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._ball = np.array([0, self.np_random.integers(self.columns)])
        self._paddle = self.columns // 2
        return self._observe(), {}

    def step(self, action: np.int64) -> Observed:
        self._paddle = int(np.clip(self._paddle + int(action) - 1, 0, self.columns - 1))
        self._ball[0] += 1
        ended = bool(self._ball[0] == self.rows - 1)
        reward = (1.0 if self._ball[1] == self._paddle else -1.0) if ended else 0.0
        return self._observe(), reward, ended, False, {}

    def render(self) -> np.ndarray:
        """Return the board enlarged, [16 rows, 16 columns, 3]."""
        return np.repeat(self._observe()[0].repeat(16, 0).repeat(16, 1)[..., None], 3, axis=-1)

    def _observe(self) -> np.ndarray:
        board = np.zeros((1, self.rows, self.columns), np.uint8)
        board[0, self._ball[0], self._ball[1]] = board[0, -1, self._paddle] = 255
        return board


class MemoryChain(gymnasium.Env[np.ndarray, np.int64]):
    """Recall at the end what was shown at the beginning: reward 1 or -1. Without memory the mean is 0.

    Observation float32 [3]: the cue (-1 or 1, first step only), the share of time that has passed, whether to answer.
    Actions: answer -1 or 1; only the last one counts.

    Args:
        length: steps between the cue and the question.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, length: int = 10, render_mode: str | None = None) -> None:
        self.length, self.render_mode = require_whole("length", length, 1, LONGEST), render_mode
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._cue, self._time = 1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._cue, self._time = 2 * int(self.np_random.integers(2)) - 1, 0
        return self._observe(), {}

    def step(self, action: np.int64) -> Observed:
        ended = self._time == self.length
        reward = float((2 * int(action) - 1) * self._cue) if ended else 0.0
        self._time += not ended
        return self._observe(), reward, ended, False, {}

    def _observe(self) -> np.ndarray:
        cue = self._cue if self._time == 0 else 0
        return np.array([cue, self._time / self.length, self._time == self.length], np.float32)


class TimeLimitChain(gymnasium.Env[np.ndarray, np.int64]):
    """Walk a ring of states for reward 1 a step, cut after a few steps by a time limit that the agent cannot see.

    The world never ends, so every state is worth 1 / (1 - gamma). Who treats the cut as death learns far less.
    Observation float32 [states], one-hot. Actions do not matter: 0 or 1.

    Args:
        states: of the ring.
        limit: steps after which an episode is truncated.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, states: int = 5, limit: int = 10, render_mode: str | None = None) -> None:
        self.states, self.limit = require_whole("states", states, 1, MOST), require_whole("limit", limit, 1, LONGEST)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (states,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._state, self._time = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._state, self._time = int(self.np_random.integers(self.states)), 0
        return self._observe(), {}

    def step(self, action: np.int64) -> Observed:
        self._state, self._time = (self._state + 1) % self.states, self._time + 1
        return self._observe(), 1.0, False, self._time == self.limit, {}

    def _observe(self) -> np.ndarray:
        return np.eye(self.states, dtype=np.float32)[self._state]


class Target(gymnasium.Env[np.ndarray, np.ndarray]):
    """Drive a point to a target: reward minus the distance, each step, for 20 steps (then truncated).

    Observation float32 [2 dimensions]: position and target, each in [-1, 1]. Action: a velocity in [-1, 1]^dimensions,
    of which a quarter is moved.

    Args:
        dimensions: of the space.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    _STEPS = 20

    def __init__(self, dimensions: int = 2, render_mode: str | None = None) -> None:
        self.dimensions, self.render_mode = require_whole("dimensions", dimensions, 1, MOST), render_mode
        self.observation_space = spaces.Box(-1.0, 1.0, (2 * dimensions,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (dimensions,), np.float32)
        self._position = self._target = np.zeros(dimensions)
        self._time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._position, self._target = self.np_random.uniform(-1, 1, (2, self.dimensions))
        self._time = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Observed:
        self._position = np.clip(self._position + 0.25 * np.clip(action, -1, 1), -1, 1)
        self._time += 1
        distance = float(np.linalg.norm(self._position - self._target))
        return self._observe(), -distance, False, self._time == self._STEPS, {}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._position, self._target]).astype(np.float32)
