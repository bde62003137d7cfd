"""Play whole episodes with frozen parameters, as an evaluation protocol: full games, raw scores, no learning."""

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Literal, SupportsIndex, get_args

import numpy as np
import torch
from torch import Tensor

from asyncrl.algorithms import ALGORITHMS
from asyncrl.config import Config
from asyncrl.envs import Environments, make_envs
from asyncrl.errors import UserError
from asyncrl.exploration import epsilon_greedy
from asyncrl.networks import Network, PolicyValue
from asyncrl.rollout import Episode
from asyncrl.seeding import seeded
from asyncrl.torsos import CoreState

Mode = Literal["sampled", "greedy"]
EVALUATION_EPSILON = 0.01  # of Q methods in "sampled" mode
EPISODE_LIMIT_STEPS = 100_000  # of an evaluated episode: where nothing limits its time it may have no end
_MAX_ENVS = 10


class Player:
    """A frozen network that plays B environments. Keeps the core's state; knows nothing of learning.

    Args:
        config: of the run the network comes from.
        network: with the parameters to play; not changed.
        batch: B.
        mode: "sampled" draws from the policy (Q methods: epsilon 0.01), "greedy" takes the likeliest action or mean.
        seed: of the draws.

    Raises:
        UserError: for another mode.
    """

    def __init__(self, config: Config, network: Network, batch: int, mode: Mode, seed: int) -> None:
        self.algorithm = ALGORITHMS[config.algo]
        self.network = network
        self.generator = torch.Generator().manual_seed(seed)
        self.state: CoreState = network.initial_state(batch)
        self.resets = torch.ones(batch, dtype=torch.bool)
        self.epsilons = torch.empty(batch)
        self.choose_as(mode)

    def choose_as(self, mode: Mode) -> None:
        """Choose actions in this mode from now on.

        Raises:
            UserError: if there is no such mode.
        """
        if mode not in get_args(Mode):
            raise UserError(f"there is no mode {mode!r}: {' and '.join(get_args(Mode))} are all")
        self.mode = mode
        self.epsilons.fill_(0.0 if mode == "greedy" else EVALUATION_EPSILON)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return actions [B] for observations [B, ...] and advance the core's state."""
        with torch.no_grad():
            batch = torch.from_numpy(observations)[None]
            outputs, self.state = self.network(batch, self.resets[None], self.state)
            actions = self._choose(outputs)
        self.resets = torch.zeros_like(self.resets)
        return actions.numpy()

    def forget(self, ended: np.ndarray) -> None:
        """Begin a new episode in the environments that `ended` [B]."""
        self.resets = torch.from_numpy(ended)

    def _choose(self, outputs: PolicyValue | Tensor) -> Tensor:
        if isinstance(outputs, PolicyValue):
            if self.mode == "greedy":
                return outputs.policy.mode()[0]
            return self.algorithm.choose(outputs, None, self.generator)
        return epsilon_greedy(outputs[0], self.epsilons, self.generator)


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Let torch have one thread meanwhile.

    A few images are no work for several: on busy cores they wait for each other, and an evaluation took four times as
    long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def evaluate(
    config: Config,
    network: Network,
    *,
    episodes: int,
    mode: Mode = "sampled",
    seed: int = 0,
    beat: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Play `episodes` full episodes (of 100,000 steps at most) and return them.

    Each of several environments plays its share, fixed beforehand: taking the first to finish would favour short ones.

    Args:
        config: names the environment; its sticky setting holds here too.
        network: with the parameters to play.
        episodes: how many, at least 1.
        mode: see `Player`.
        seed: of environments and draws.
        beat: called after every step.

    Raises:
        UserError: for less than one episode, another mode or no proper seed.
    """
    if not isinstance(episodes, SupportsIndex) or operator.index(episodes) < 1:
        raise UserError(f"{episodes!r} episodes: it must be a whole number, at least one")
    if not isinstance(seed, SupportsIndex) or not 0 <= operator.index(seed) < 2**31:
        raise UserError(f"the seed is {seed!r}: it must be a whole number between 0 and 2147483647")
    num_envs = min(episodes, _MAX_ENVS)
    with seeded(np.random.SeedSequence(seed, spawn_key=(2,))):
        envs = make_envs(config, num_envs)
        try:
            with single_threaded():
                return play_episodes(envs, Player(config, network, num_envs, mode, seed), episodes, seed, beat)
        finally:
            envs.close()


def _shares(episodes: int, num_envs: int) -> np.ndarray:
    return np.array([episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)])


def play_episodes(
    envs: Environments, player: Player, episodes: int, seed: int, beat: Callable[[], None] = lambda: None
) -> list[Episode]:
    """Play `episodes` full episodes in `envs`, each environment its share; `evaluate` says more.

    One without an end, as where nothing limits its time and the policy goes in circles, is cut after
    EPISODE_LIMIT_STEPS; what follows counts as another.
    """
    wanted = _shares(episodes, envs.num_envs)
    # Environments get this seed and those after it: of two evaluations with neighbouring seeds none may be the same.
    observations = envs.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1))
    scores, steps = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int)
    finished: list[Episode] = []
    while (wanted > 0).any():
        step = envs.step(player.act(observations))
        beat()
        observations = step.observations
        scores += step.rewards
        steps += 1
        truncated = step.truncated | (steps >= EPISODE_LIMIT_STEPS)
        ended = step.terminated | truncated
        player.forget(ended)
        for i in np.flatnonzero(ended & (wanted > 0)):
            finished.append(Episode(int(i), float(scores[i]), int(steps[i]), 0.0, bool(truncated[i])))
        wanted = wanted - ended
        scores[ended], steps[ended] = 0.0, 0
    return finished
