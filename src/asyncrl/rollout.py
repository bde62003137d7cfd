"""One rollout of a worker: the record, and the stepping that fills it."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asyncrl.config import Config
from asyncrl.envs import Environments, Step
from asyncrl.errors import UserError
from asyncrl.torsos import CoreState

FIRST_ROOM_STEPS = 256  # of the buffers of whole-episode updates
EPISODE_LIMIT_STEPS = 100_000  # of whole-episode updates: an episode must fit into memory, and it must end

# (observations [B, ...], resets [B], state) -> (actions [B, ...], state after)
Act = Callable[[Tensor, Tensor, CoreState], tuple[Tensor, CoreState]]
# (observations [B, ...], state before them) -> values [B]
Value = Callable[[Tensor, CoreState], Tensor]


@dataclass(frozen=True)
class Rollout:
    """What B environments did for T steps under one snapshot of the parameters.

    The tensors are views of the worker's buffers: they hold until its next rollout.
    """

    observations: Tensor  # [T + 1, B, ...]
    actions: Tensor  # [T, B], or [T, B, A] where an action is several numbers
    rewards: Tensor  # [T, B], as the learner sees them (scaled; clipped on Atari)
    discounts: Tensor  # [T, B], gamma, or 0 where the episode ended or a life was lost
    cut_values: Tensor  # [T, B], discounted value of a truncated episode's true final observation, else 0
    resets: Tensor  # [T, B] bool, whether the observation is the first of an episode
    core_state: CoreState  # before the observation at t = 0
    next_actions: Tensor | None  # [B], taken first by the next rollout; only for methods that need them (Sarsa)


class Episode(NamedTuple):
    """A finished episode, as it is logged."""

    environment: int  # index within the worker
    score: float  # sum of raw rewards
    steps: int
    seconds: float  # how long it took
    truncated: bool
    final_epsilon: float | None = None  # of its environment, where a Q method trains


@dataclass
class WorkerState:
    """What a worker carries from rollout to rollout."""

    envs: Environments
    observations: np.ndarray  # [B, ...] to act on next
    resets: np.ndarray  # [B] bool, whether they begin an episode
    core_state: CoreState
    generator: torch.Generator
    buffers: "Buffers"
    scores: np.ndarray  # [B] raw score of the running episodes
    steps: np.ndarray  # [B] their lengths
    started: np.ndarray  # [B] when they began, seconds
    chosen: tuple[Tensor, CoreState] | None = None  # actions kept for `observations`, and the core's state after them
    finished: list[Episode] = field(default_factory=list)


class Buffers:
    """The arrays of a rollout, made once: large allocations in the loop go back to the kernel at every update."""

    def __init__(self, steps: int, observations: np.ndarray) -> None:
        batch = len(observations)
        self.observations = np.empty((steps + 1, *observations.shape), observations.dtype)
        self.rewards = np.empty((steps, batch), np.float32)
        self.discounts = np.empty((steps, batch), np.float32)
        self.cut_values = np.empty((steps, batch), np.float32)
        self.resets = np.empty((steps, batch), bool)

    def make_room(self, t: int) -> None:
        """Have a row `t`: where there is none, make every array twice as long (episodes have any length)."""
        if t >= EPISODE_LIMIT_STEPS:
            raise UserError(f"--t-max none: an episode went on for {t:,} steps: give a --t-max")
        if t < len(self.rewards):
            return
        for name, array in list(vars(self).items()):
            wider = np.empty((2 * len(array), *array.shape[1:]), array.dtype)
            wider[: len(array)] = array
            setattr(self, name, wider)


def start_worker_state(
    config: Config, envs: Environments, core_state: CoreState, seed: np.random.SeedSequence
) -> WorkerState:
    """Reset `envs` and return the state of a worker that has done nothing yet."""
    env_seed, torch_seed = (int(s) for s in seed.generate_state(2) >> 1)
    observations = envs.reset(seed=env_seed)
    batch = envs.num_envs
    return WorkerState(
        envs=envs,
        observations=observations,
        resets=np.ones(batch, bool),
        core_state=core_state,
        generator=torch.Generator().manual_seed(torch_seed),
        buffers=Buffers(config.t_max or FIRST_ROOM_STEPS, observations),
        scores=np.zeros(batch),
        steps=np.zeros(batch, np.int64),
        started=np.full(batch, time.monotonic()),
    )


def collect_rollout(config: Config, worker: WorkerState, act: Act, value: Value, keeps_action: bool) -> Rollout:
    """Act for `t_max` steps and return what happened; at B = 1 stop at the end of the episode, as Algorithm S3 does.

    Without a `t_max` only that end stops it (supplement 9), which more environments must then reach together.

    Args:
        config: of the run.
        worker: changed in place.
        act: chooses actions under the snapshot; advances the core's state.
        value: values what follows a truncated episode; does not advance anything.
        keeps_action: whether the last observation's action is chosen here and taken first by the next rollout.

    Raises:
        UserError: without a `t_max`, if the episodes do not end together, or one does not end.
    """
    buffers, first_state = worker.buffers, worker.core_state
    actions = []
    for t in itertools.count() if config.t_max is None else range(config.t_max):
        buffers.make_room(t)
        buffers.observations[t] = worker.observations
        buffers.resets[t] = worker.resets
        action, worker.core_state = _choose(worker, act)
        actions.append(action)
        step = worker.envs.step(action.numpy())
        stops = _record(config, worker, step, value, t)
        if (worker.envs.num_envs == 1 or config.t_max is None) and stops.any():
            _require_together(stops)
            break
    steps = len(actions)
    buffers.observations[steps] = worker.observations
    if keeps_action:
        worker.chosen = _choose(worker, act)
    return Rollout(
        observations=torch.from_numpy(buffers.observations[: steps + 1]),
        actions=torch.stack(actions),
        rewards=torch.from_numpy(buffers.rewards[:steps]),
        discounts=torch.from_numpy(buffers.discounts[:steps]),
        cut_values=torch.from_numpy(buffers.cut_values[:steps]),
        resets=torch.from_numpy(buffers.resets[:steps]),
        core_state=first_state,
        next_actions=worker.chosen[0] if worker.chosen else None,
    )


def _require_together(stops: np.ndarray) -> None:
    if not stops.all():
        raise UserError(
            f"--t-max none updates after whole episodes, but environment {int(stops.argmax())} of {len(stops)} ended "
            "before the others: give --envs-per-worker 1 (--algo a2c: --workers 1 too), or a --t-max"
        )


def _choose(worker: WorkerState, act: Act) -> tuple[Tensor, CoreState]:
    if worker.chosen is not None:
        chosen, worker.chosen = worker.chosen, None
        return chosen
    observations, resets = torch.from_numpy(worker.observations), torch.from_numpy(worker.resets)
    with torch.no_grad():
        return act(observations, resets, worker.core_state)


def _record(config: Config, worker: WorkerState, step: Step, value: Value, t: int) -> np.ndarray:
    buffers = worker.buffers
    clips = config.clip_rewards == "on" or (config.clip_rewards == "auto" and worker.envs.rewards_are_scores)
    np.multiply(step.rewards.clip(-1, 1) if clips else step.rewards, config.reward_scale, out=buffers.rewards[t])
    ended = step.terminated | step.truncated
    # Paper: silent on lives; where they count, losing one ends the return but neither the game nor the LSTM's memory.
    stops = ended | step.lives_lost if config.life_loss_ends else ended
    np.multiply(~stops, config.gamma, out=buffers.discounts[t])
    buffers.cut_values[t] = 0.0
    if config.bootstrap_on_truncation and step.truncated.any():
        assert step.final_observations is not None
        with torch.no_grad():
            values = value(torch.from_numpy(step.final_observations), worker.core_state).numpy()
        goes_on = step.truncated & ~step.lives_lost if config.life_loss_ends else step.truncated
        buffers.cut_values[t] = np.where(goes_on, config.gamma * values, 0.0)
    worker.observations, worker.resets = step.observations, ended
    _count(worker, step, ended)
    return stops


def _count(worker: WorkerState, step: Step, ended: np.ndarray) -> None:
    worker.scores += step.rewards
    worker.steps += 1
    if not ended.any():
        return
    now = time.monotonic()
    for i in np.flatnonzero(ended):
        score, steps, seconds = float(worker.scores[i]), int(worker.steps[i]), now - worker.started[i]
        worker.finished.append(Episode(int(i), score, steps, float(seconds), bool(step.truncated[i])))
    worker.scores[ended], worker.steps[ended], worker.started[ended] = 0.0, 0, now
