"""Atari 2600 through ale-py's C++ vector environment, with the preprocessing of Mnih et al. (2015).

84x84 luminance, maximum of the last two frames, four frames stacked, each action repeated four times, up to 29 no-ops
at the start, at most 108,000 frames (30 minutes) an episode. Sticky actions are off unless asked for.
"""

import difflib
import re
from typing import Any

import numpy as np

from asyncrl.envs.base import Environments, Step
from asyncrl.errors import MissingPackageError, UserError, install_command

FRAMES_PER_STEP = 4
MAX_EPISODE_FRAMES = 108_000
STICKY_PROBABILITY = 0.25
_NO_LIMIT = 10**9  # of frames, to ale-py


class AtariEnvironments(Environments):
    """B games of one title.

    Paper: it says nothing of fire-on-reset, which DeepMind's papers do not use, nor of the number of no-ops.

    Args:
        rom: name of the game as ale-py's ROM file has it, such as "ms_pacman".
        num_envs: B.
        sticky: repeat the previous action with probability 0.25 (Machado et al., 2018).
        threads: that step the emulators; 1 where the worker is the unit of parallelism.
        max_episode_frames: time limit, in frames after the no-ops.
    """

    frames_per_step = FRAMES_PER_STEP
    rewards_are_scores = True

    def __init__(
        self,
        rom: str,
        num_envs: int,
        *,
        sticky: bool = False,
        threads: int = 1,
        max_episode_frames: int = MAX_EPISODE_FRAMES,
    ) -> None:
        # We count ourselves: where ale-py's own limit strikes, it skips the last frame and shows an older one (0.12.1).
        self._env = _make_vector(rom, num_envs, sticky, num_threads=threads, max_num_frames_per_episode=_NO_LIMIT)
        self._max_steps = max_episode_frames // FRAMES_PER_STEP
        self._steps = np.zeros(num_envs, np.int64)
        self.num_envs = num_envs
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._lives = np.zeros(num_envs, np.int32)

    def reset(self, seed: int | None = None) -> np.ndarray:
        observations, info = self._env.reset(seed=None if seed is None else _seeds(seed, self.num_envs))
        self._lives = info["lives"]
        self._steps[:] = 0
        return observations

    def step(self, actions: np.ndarray) -> Step:
        observations, rewards, terminated, _, info = self._env.step(actions)
        self._steps += 1
        truncated = (self._steps >= self._max_steps) & ~terminated
        ended = terminated | truncated
        # Never `episodic_life`: it really resets the game at each life lost, so that the agent never sees its last.
        lives_lost = (info["lives"] < self._lives) & ~terminated
        final = None
        if ended.any():
            # A reset now replaces the autoreset of the next step, which would ignore the action and earn nothing.
            final = observations
            observations, info = self._env.reset(options={"reset_mask": ended})
            self._steps[ended] = 0
        self._lives = info["lives"]
        return Step(observations, rewards.astype(np.float32), terminated, truncated, lives_lost, final)

    def close(self) -> None:
        self._env.close()


class BareGame:
    """The emulator alone under random actions: no picture is fetched, scaled or stacked. To measure, not to learn.

    Args:
        rom: name of the game as ale-py's ROM file has it.
        seed: of the game and of the actions.
    """

    def __init__(self, rom: str, seed: int) -> None:
        from ale_py import ALEInterface, LoggerMode
        from ale_py.roms import get_rom_path

        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._game = ALEInterface()
        self._game.setInt("random_seed", seed)
        self._game.setFloat("repeat_action_probability", 0.0)
        self._game.loadROM(str(get_rom_path(rom)))
        self._actions = self._game.getMinimalActionSet()
        self._draws = np.random.default_rng(seed)

    def step(self) -> None:
        """Play the frames of one agent step."""
        action = self._actions[self._draws.integers(len(self._actions))]
        for _ in range(FRAMES_PER_STEP):
            self._game.act(action)
        if self._game.game_over():
            self._game.reset_game()


class AtariMirror:
    """A picture in colour of a one-environment game: the same ROM, seed and actions in a second emulator.

    The vector environment has no `render`; equal seeds and actions keep two of them in step, sticky actions included.
    """

    def __init__(self, env_id: str, *, sticky: bool, seed: int) -> None:
        self._env = _make_vector(
            rom_name(env_id), 1, sticky, num_threads=1, grayscale=False, stack_num=1, img_height=210, img_width=160
        )
        self._seed = seed

    def picture(self, actions: np.ndarray | None) -> np.ndarray:
        """Take `actions` [1], or reset where they are None, and return the frame [210, 160, 3]."""
        observations = self._env.reset(seed=_seeds(self._seed, 1))[0] if actions is None else self._env.step(actions)[0]
        return observations[0, 0]

    def close(self) -> None:
        """End the emulator."""
        self._env.close()


def _seeds(first: int, count: int) -> np.ndarray:
    """Return `count` seeds from `first` on, as ale-py takes them: the first after 2**31 - 1 is 0."""
    return (first + np.arange(count)) % 2**31


def _make_vector(rom: str, num_envs: int, sticky: bool, **how: Any) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        rom,
        num_envs,
        noop_max=30,
        reward_clipping=False,  # the learner clips; the raw score is what is logged
        use_fire_reset=False,
        repeat_action_probability=STICKY_PROBABILITY if sticky else 0.0,
        **how,
    )


def near_game(text: str) -> str | None:
    """Return the id of the Atari game that somebody means who writes `text`, as Pnog or SpaceInvaders-v4, if any."""
    try:
        from ale_py.registration import register_v5_envs  # noqa: F401  (imports ale_py, which registers its ids)
    except ImportError:
        return None
    import gymnasium

    games = {_bare(name): name for name in gymnasium.registry if name.startswith("ALE/")}
    near = difflib.get_close_matches(_bare(text), games, n=1, cutoff=0.75)
    return games[near[0]] if near else None


def likeness(one: str, other: str) -> float:
    """Return how much two ids have in common, from 0 to 1, but for what Gymnasium's ids have besides a game's name."""
    return difflib.SequenceMatcher(None, _bare(one), _bare(other)).ratio()


def _bare(env_id: str) -> str:
    """Return a game in small letters: "mspacman" of "ALE/MsPacman-v5" and "MsPacman-ramNoFrameskip-v4"."""
    return re.sub(r"^.*[/:]|-ram(?=-|$|[A-Z])|NoFrameskip|Deterministic|-v\d+$|[ _-]", "", env_id).lower()


def rom_name(env_id: str) -> str:
    """Return the ROM name of an id such as "ALE/MsPacman-v5".

    Raises:
        UserError: if ale-py is missing or knows no such game; names the nearest.
    """
    try:
        from ale_py.registration import register_v5_envs  # noqa: F401  (imports ale_py, which registers its ids)
    except ImportError:
        raise MissingPackageError(f"{env_id} needs ale-py: {install_command('atari')}") from None
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    if spec is None:
        known = [name for name in gymnasium.registry if name.startswith("ALE/")]
        near = difflib.get_close_matches(env_id, known, n=1, cutoff=0.0)
        raise UserError(f"there is no Atari game {env_id}: did you mean {near[0]}?")
    return spec.kwargs["game"]
