"""Plays what a peer has learned so far, by the very protocol that asyncrl's own evaluations follow."""

from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asyncrl.config import Config
from asyncrl.envs import Environments, Step, make_envs
from asyncrl.evaluate import Player, play_episodes
from asyncrl.networks import PolicyValue
from asyncrl.policies import policy_head
from asyncrl.torsos import CoreState

FIRE = 1  # in the action sets of the games that want it
NUM_ENVS = 10


class Scripted(nn.Module):
    """A written policy as a network of ours that remembers nothing; its values are unknown, and nobody asks."""

    def __init__(self, path: Path, envs: Environments) -> None:
        super().__init__()
        self.script = torch.jit.load(str(path))
        self.make_policy = policy_head(envs.action_space, "the game", spherical=False, bounds_mean=False).make

    def initial_state(self, batch: int) -> CoreState:
        """Return the state of a network without memory."""
        return ()

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[PolicyValue, CoreState]:
        logits = self.script(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        return PolicyValue(self.make_policy(logits), torch.zeros(observations.shape[:2])), state


class Firing(Environments):
    """Games that press FIRE by themselves when a game or life begins, as they did for those trained that way."""

    def __init__(self, envs: Environments) -> None:
        self._envs = envs
        self.num_envs, self.frames_per_step = envs.num_envs, envs.frames_per_step
        self.rewards_are_scores = envs.rewards_are_scores
        self.observation_space, self.action_space = envs.observation_space, envs.action_space
        self._begins = np.ones(envs.num_envs, bool)

    def reset(self, seed: int | None = None) -> np.ndarray:
        self._begins[:] = True
        return self._envs.reset(seed)

    def step(self, actions: np.ndarray) -> Step:
        step = self._envs.step(np.where(self._begins, FIRE, actions))
        self._begins = step.terminated | step.truncated | step.lives_lost
        return step

    def close(self) -> None:
        self._envs.close()


def judge(path: Path, env: str, *, episodes: int, fires: bool, seed: int) -> dict[str, Any]:
    """Play `episodes` full games with the policy in `path`, drawing actions; return raw scores.

    Args:
        path: TorchScript from bytes [N, 4, 84, 84] to logits [N, A].
        env: such as "ALE/Pong-v5"; no sticky actions.
        episodes: how many.
        fires: whether FIRE was pressed for it in training.
        seed: of games and draws.
    """
    config = Config(env=env)
    envs = make_envs(config, min(episodes, NUM_ENVS))
    try:
        player = Player(config, Scripted(path, envs), envs.num_envs, "sampled", seed)
        scores = [e.score for e in play_episodes(Firing(envs) if fires else envs, player, episodes, seed)]
    finally:
        envs.close()
    return {"score": fmean(scores), "deviation": pstdev(scores), "episodes": len(scores)}
