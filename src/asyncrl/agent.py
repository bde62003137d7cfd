"""A trained agent in your hands: act, evaluate. Loading one builds no environment and runs nobody's code."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from asyncrl.checkpoint import Checkpoint, load_checkpoint, restore_network
from asyncrl.config import Config
from asyncrl.config_file import read_run_config
from asyncrl.envs.actions import ActionMap
from asyncrl.envs.make import is_import_path, opened_envs
from asyncrl.errors import UserError, blaming
from asyncrl.evaluate import Mode, Player, evaluate
from asyncrl.networks import Network
from asyncrl.pointers import find_checkpoint
from asyncrl.rollout import Episode
from asyncrl.seeding import put_back_after
from asyncrl.spaces_json import decode_space, other_space
from asyncrl.trust import repeat, require_repeated


class Agent:
    """A frozen network that acts.

    Args:
        config: of its run.
        network: with its parameters.
        checkpoint: where they come from.
        env: the environment as the user repeated it, where `may_import` (trust.py) wants that before it is built.
        env_options: that the user wants it made with instead of those of its run; None keeps those.
    """

    def __init__(
        self,
        config: Config,
        network: Network,
        checkpoint: Checkpoint,
        env: str | None,
        env_options: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        if env_options is not None:
            self.config = dataclasses.replace(config, env_options=env_options)  # type: ignore[arg-type]
        self.network = network
        self.checkpoint = checkpoint
        self._repeated_env, self._has_other_options = env, env_options is not None
        self._player: Player | None = None

    @functools.cached_property
    def _actions(self) -> ActionMap:
        return ActionMap(decode_space(self.checkpoint.state["spaces"]["action"]))

    @functools.cached_property
    def _observations(self) -> spaces.Space:
        return decode_space(self.checkpoint.state["spaces"]["observation"])

    def act(self, observation: np.ndarray, *, mode: Mode = "sampled") -> int | np.ndarray:
        """Return the environment's action for one observation as it gave it (Atari: uint8 [4, 84, 84]).

        With an LSTM the agent remembers from call to call: call `reset` where an episode begins.

        Raises:
            UserError: for another shape.
        """
        if self._player is None:
            self._player = Player(self.config, self.network, 1, mode, self.config.seed)
        self._player.choose_as(mode)
        given, expected = np.shape(observation), self._observations.shape
        if given != expected:
            raise UserError(f"an observation of shape {given}: this agent takes one of {expected} at a time")
        # A copy: torch takes no flipped pictures, and warns of arrays that may not be written to.
        batch = np.array(observation, order="C")[None]
        action = self._actions.to_environment(self._player.act(batch))[0]
        return int(action) if isinstance(self._actions.space, spaces.Discrete) else action

    def reset(self) -> None:
        """Forget the episode so far."""
        if self._player is not None:
            self._player.forget(np.ones(1, bool))

    def require_playable(self) -> None:
        """Check that its environment may be made and is one it can play.

        Raises:
            UserError: if making it may import code and the user has not repeated its name, or if the user's options
                make one with other observations or actions.
        """
        env, own_options = self.config.env, self._has_other_options
        repeated = env if own_options and not is_import_path(env) else self._repeated_env
        require_repeated(self.config, repeated)
        if own_options:
            with put_back_after(), opened_envs(self.config, 1) as envs:
                name = other_space((envs.observation_space, envs.action_space), self.checkpoint.state["spaces"])
            if name is not None:
                raise UserError(f"--env-options make {env} with another {name} space than the agent was trained with")

    def evaluate(
        self, episodes: int = 30, *, mode: Mode = "sampled", seed: int = 0, sticky: bool | None = None
    ) -> list[Episode]:
        """Play full episodes and return them, raw scores in `.score`.

        Args:
            episodes: how many.
            mode: "sampled" from the policy (Q methods: epsilon 0.01) or "greedy".
            seed: of environments and draws.
            sticky: sticky actions; None keeps the run's setting.

        Raises:
            UserError: for less than one episode or no proper seed, or if the environment cannot be made or fails.
        """
        self.require_playable()
        config = self.config if sticky is None else dataclasses.replace(self.config, sticky=sticky)
        with blaming(f"{config.env} failed"):
            return evaluate(config, self.network, episodes=episodes, mode=mode, seed=seed)


def load(
    path: str | Path,
    checkpoint: str = "latest",
    *,
    env: str | Callable[..., Any] | None = None,
    network: Callable[..., Any] | None = None,
    env_options: str | Mapping[str, Any] | None = None,
) -> Agent:
    """Return the agent of a run, or of one of its checkpoints.

    Args:
        path: folder of the run or of the checkpoint.
        checkpoint: "latest" or "best", if `path` is a run.
        env: repeats the run's environment if that is an import path, a function, or not ours and made with options, and
            the agent is to be evaluated.
        network: repeats the run's network if that is a function.
        env_options: to play in another variant of the run's environment: what to make it with instead, as a dictionary
            or as `--env-options` has it. Its observations and actions must be the same.

    Raises:
        UserError: if it is missing, damaged, or of another game than its run says.
    """
    found = load_checkpoint(find_checkpoint(Path(path), checkpoint))
    config = repeat(read_run_config(found.path.parent.parent), env, network)
    return Agent(config, restore_network(config, found), found, None if env is None else config.env, env_options)
