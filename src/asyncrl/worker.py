"""The actor-learner: `compute_update` is the body of the paper's Algorithm S3, and nothing else."""

import contextlib
import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from asyncrl import kernels
from asyncrl.algorithms import ALGORITHMS, Algorithm, Stats
from asyncrl.config import Config
from asyncrl.envs import Environments, make_envs
from asyncrl.errors import DivergedError
from asyncrl.exploration import annealed_epsilons, draw_final_epsilons
from asyncrl.flat import flat_gradient, flatten_parameters_
from asyncrl.images import is_image
from asyncrl.inputs import InputStatistics, statistics_of, sums_of
from asyncrl.machine import available_cores
from asyncrl.networks import (
    Network,
    attach_passes_,
    attach_tapes_,
    largest_supported_torso,
    make_network,
    set_input_statistics_,
)
from asyncrl.optim import clip_global_norm_
from asyncrl.passes import Passes
from asyncrl.rollout import Episode, Rollout, WorkerState, collect_rollout, start_worker_state
from asyncrl.store import Counter, ParameterStore
from asyncrl.tape import Recorder, playing, recording
from asyncrl.torsos import CoreState

THREADED_PARAMETERS = 200_000  # between the small convolution's 130,000 and the 2013 network's 700,000


@dataclass(frozen=True)
class Update:
    """What one rollout gives to the store: a gradient and counts."""

    gradient: Tensor  # [P], clipped if the configuration says so
    steps: int  # agent steps of all environments of the worker
    frames: int  # emulator frames
    stats: Stats  # numbers to log
    episodes: list[Episode]  # that ended in this rollout
    inputs: np.ndarray | None = None  # [1 + 2 D], sums of vector observations where they are measured


def threads_of(config: Config, network: Network, space: spaces.Space) -> int:
    """Return the threads of arithmetic of each process that trains `config`: several only where one process has all.

    Args:
        config: of the run, or what is to be measured.
        network: that is trained.
        space: of one observation.
    """
    if config.threads is not None:
        return config.threads
    if config.algo != "a2c" or config.device != "cpu":  # on a GPU they would only fight those of the emulators
        return 1
    # A small network gains nothing from threads and loses much where others compute too: each operation waits for the
    # slowest. Of what our kernels compute in part, that part is shared.
    torso = 0 if _library(config) is None else largest_supported_torso(network, space)
    size = torso or sum(parameter.numel() for parameter in network.parameters())
    return available_cores() if size >= THREADED_PARAMETERS else 1


def _library(config: Config) -> ctypes.CDLL | None:
    """Return our kernels where `config` may have them."""
    return kernels.library() if config.kernels != "torch" and config.device == "cpu" else None


class Learner:
    """One worker's private things: environments, the snapshot theta' and its network, exploration.

    Whoever makes it closes it. `network` reads `snapshot`, so that pulling into `snapshot` is all that synchronises it.
    PyTorch has as many threads from then on as this learner wants.

    Args:
        config: of the run.
        worker: index.
        generation: of its seeds: a worker that starts again must not repeat its first episodes.
        statistics: of the network's inputs.
        shared: a learner whose networks this one uses, both computing their updates right after their pulls.
        beat: called at every step, and as each environment is built or reset: an update may take minutes.
    """

    def __init__(
        self,
        config: Config,
        worker: int,
        generation: int = 0,
        statistics: InputStatistics | None = None,
        shared: "Learner | None" = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.worker, self.beat = config, worker, beat
        self.algorithm: Algorithm = ALGORITHMS[config.algo]
        self.device = torch.device(config.device)
        self.progress = 0.0  # share of the run that had passed at the last pull
        # A2C has one worker, alone with the cores.
        threads = available_cores() if config.algo == "a2c" else 1
        envs = make_envs(config, config.envs_per_worker, threads, beat)
        try:
            self._begin(envs, generation, statistics, shared)
        except BaseException:  # simulators are programs of their own, and this process may go on
            with contextlib.suppress(Exception):
                envs.close()
            raise

    def _begin(
        self, envs: Environments, generation: int, statistics: InputStatistics | None, shared: "Learner | None"
    ) -> None:
        config, worker = self.config, self.worker
        self.measures = config.standardize_inputs and not is_image(envs.observation_space)
        self.target: Network | None = None
        self.target_copy = -1  # which one is in the target's snapshot; -1 for none yet
        if shared is not None:
            self.network, self.snapshot, self.tapes = shared.network, shared.snapshot, shared.tapes
            self.passes = shared.passes
            self.target, self.target_snapshot = shared.target, shared.target_snapshot
        else:
            self._make_networks(envs, statistics)
        core_state = _moved(self.network.initial_state(envs.num_envs), self.device)
        self.state: WorkerState = start_worker_state(config, envs, core_state, _seeds(config, worker, generation)[0])
        self.final_epsilons = draw_final_epsilons(
            envs.num_envs,
            config.final_epsilons,
            config.final_epsilon_probabilities,
            np.random.default_rng(_seeds(config, worker, 0)[1]),  # for the whole run: not anew by a resume or restart
        )
        self.epsilons: Tensor = torch.ones(envs.num_envs)

    def _make_networks(self, envs: Environments, statistics: InputStatistics | None) -> None:
        spaces_ = envs.observation_space, envs.action_space
        self.network: Network = make_network(self.config, *spaces_, statistics).to(self.device)
        self.snapshot = flatten_parameters_(self.network)  # [P], theta'
        threads = threads_of(self.config, self.network, spaces_[0])
        self.passes = self._attach_passes(self.network, self.snapshot, spaces_[0], threads)
        # PyTorch's threads wait by spinning between its operations: our kernels' shall have the cores.
        torch.set_num_threads(1 if self.passes else threads)
        # Where an action is kept for the next rollout (Sarsa) it was chosen by the parameters of the last.
        self.tapes: Sequence[Recorder] = []
        if not self.algorithm.keeps_next_action:
            self.tapes = self.passes or attach_tapes_(self.network)
        self.target_snapshot = torch.empty(0)
        if self.algorithm.uses_target:
            self.target = make_network(self.config, *spaces_, statistics).to(self.device)
            self.target_snapshot = flatten_parameters_(self.target)  # [P], theta-
            self._attach_passes(self.target, self.target_snapshot, spaces_[0], threads)

    def _attach_passes(self, network: Network, flat: Tensor, space: Any, threads: int) -> list[Passes]:
        library = _library(self.config)
        if library is None:
            return []
        return attach_passes_(network, library, space, flat, self.config.kernels == "bf16", threads)

    def pull(self, store: ParameterStore) -> int:
        """Synchronise with the store (Algorithm S3: theta' = theta); return the updates made before."""
        with store.discipline.pulling(self.worker):
            frames = store.total(Counter.FRAMES)
            self.progress = frames / self.config.frames
            if store.inputs is not None:
                statistics = statistics_of(store.inputs.merged())
                for network in (self.network, self.target):
                    if network is not None:
                        set_input_statistics_(network, statistics)
            if self.target is not None:
                if (copy := store.target_copy()) != self.target_copy:  # once in thousands of frames
                    self.target_snapshot.copy_(store.target)
                    self.target_copy = copy
                epsilons = annealed_epsilons(self.final_epsilons, frames, self.config.epsilon_end_frames)
                self.epsilons = torch.from_numpy(epsilons).float()
            return store.pull(self.snapshot)

    def close(self) -> None:
        """Close the environments."""
        self.state.envs.close()

    def act(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """Choose actions [B] for observations [B, ...]; return them and the core's state after."""
        self.beat()
        with recording(self.tapes):
            outputs, state = self.network(observations.to(self.device)[None], resets.to(self.device)[None], state)
        if self.device.type != "cpu":
            outputs = _moved(outputs, "cpu")
        return self.algorithm.choose(outputs, self.epsilons, self.state.generator), state

    def value(self, observations: Tensor, state: CoreState) -> Tensor:
        """Value observations [B, ...] that no action follows, with the target parameters where there are any."""
        network = self.network if self.target is None else self.target
        no_resets = torch.zeros(1, len(observations), dtype=torch.bool, device=self.device)
        outputs, _ = network(observations.to(self.device)[None], no_resets, state)
        return self.algorithm.value(outputs)[0].cpu()


def _seeds(config: Config, worker: int, generation: int) -> list[np.random.SeedSequence]:
    """Return the seeds of a worker's environments and draws, and of its final epsilons."""
    return np.random.SeedSequence(config.seed, spawn_key=(worker, generation)).spawn(2)


def _moved(values: Any, device: torch.device | str) -> Any:
    """Return a tensor, or a (named) tuple of tensors, on `device`; on the CPU, where it is already, itself."""
    if isinstance(values, Tensor):
        return values.to(device)
    if hasattr(values, "_fields"):
        return type(values)(*(_moved(value, device) for value in values))
    return None if values is None else tuple(_moved(value, device) for value in values)


def _on_device(rollout: Rollout, device: torch.device) -> Rollout:
    if device.type == "cpu":
        return rollout
    return Rollout(**{name: _moved(value, device) for name, value in vars(rollout).items()})


def compute_update(learner: Learner) -> Update:
    """Do one pass of Algorithm S3's loop under the present snapshot: act for t_max steps, return the gradient.

    Raises:
        DivergedError: if the gradient is not finite, which is then never pushed: a single one would make all shared
            parameters so, for all workers.
        UserError: if whole episodes (`t_max` None) do not end together, or do not end.
    """
    config, algorithm, worker = learner.config, learner.algorithm, learner.state
    for tape in learner.tapes:
        tape.rewind()
    rollout = collect_rollout(config, worker, learner.act, learner.value, algorithm.keeps_next_action)
    inputs = sums_of(rollout.observations[:-1].numpy()) if learner.measures else None
    rollout = _on_device(rollout, learner.device)
    gradient = torch.empty_like(learner.snapshot)
    for passes in learner.passes:
        passes.write_into(gradient)
    with playing(learner.tapes):
        loss, stats = algorithm.loss(learner.network, learner.target, rollout, config, learner.progress)
    gradient = flat_gradient(loss, learner.network, gradient).cpu()
    stats["gradient_norm"] = clip_global_norm_(gradient, config.max_grad_norm)
    if not math.isfinite(stats["gradient_norm"]):
        raise DivergedError("a gradient")
    steps = rollout.rewards.numel()
    episodes, worker.finished = worker.finished, []
    if learner.target is not None:
        finals = learner.final_epsilons
        episodes = [episode._replace(final_epsilon=float(finals[episode.environment])) for episode in episodes]
    return Update(gradient, steps, steps * worker.envs.frames_per_step, stats, episodes, inputs)


def learn(
    learner: Learner,
    store: ParameterStore,
    report: Callable[[Update, int | None], None],
    mark: Callable[[bool], None] = lambda pulls: None,
) -> None:
    """Pull, compute, push, until the store says stop or all frames are done.

    `report` gets each update with its staleness, or None where it came too late for the discipline and was dropped;
    `mark` is called with True before a pull, with False after a push.
    """
    store.discipline.join(learner.worker)
    try:
        while not store.stopped and store.total(Counter.FRAMES) < learner.config.frames:
            mark(True)
            # Paper: Algorithm 1 acts on the shared parameters; here all its I_AsyncUpdate steps act on one snapshot.
            # With one step the two are the same.
            pulled_updates = learner.pull(store)
            update = compute_update(learner)
            staleness = store.apply(learner.worker, update, pulled_updates)
            mark(False)
            report(update, staleness)
    finally:
        store.discipline.leave(learner.worker)
