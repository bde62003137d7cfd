"""The one set of parameters that all workers read and write: without locks (Hogwild), unless a discipline says else.

The trainer creates the store and owns it; workers get it through the arguments of their process. Everything lies in one
anonymous shared mapping, so nothing named can be left behind. Each worker writes only its own row of counters; totals
are sums of rows, so nothing is lost without a lock. Parameters and shared statistics are raced on deliberately.
"""

import time
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asyncrl import kernels
from asyncrl.config import Config
from asyncrl.disciplines import Discipline, Hogwild, Locked, Synchronous
from asyncrl.inputs import SharedSums
from asyncrl.optim import adam_step_, linear_anneal, momentum_sgd_step_, rmsprop_step_

if TYPE_CHECKING:
    from asyncrl.worker import Update

# Statistics per optimiser: how many vectors [P], and whether each worker has its own.
STATISTICS = {
    "shared-rmsprop": (("mean_square",), False),
    "rmsprop": (("mean_square",), True),
    "momentum-sgd": (("momentum",), True),
    "adam": (("mean", "mean_square"), True),
    "shared-adam": (("mean", "mean_square"), False),
}
_CACHE_LINE_BYTES = 64


class Counter(IntEnum):
    """Columns of a worker's row of counters."""

    FRAMES = 0
    STEPS = 1
    UPDATES = 2
    EPISODES = 3
    STALENESS = 4  # sum over its updates of the updates that others made between its pull and its push
    TIMEOUTS = 5  # its waits for other workers that were given up


@dataclass(frozen=True)
class StoreSpec:
    """What decides the size of a store."""

    num_parameters: int
    num_workers: int
    statistics: tuple[str, ...]
    own_statistics: bool
    has_target: bool
    num_inputs: int = 0  # numbers of a vector observation that is measured all along

    @classmethod
    def of(cls, config: Config, num_parameters: int, num_inputs: int = 0) -> "StoreSpec":
        """Return the layout that `config` needs for a network of `num_parameters`, and for measuring `num_inputs`."""
        statistics, own = STATISTICS[config.optimizer]
        return cls(num_parameters, config.workers, statistics, own, not config.is_actor_critic, num_inputs)

    @property
    def owners(self) -> int:
        """Number of separate sets of statistics: one per worker, or one for all."""
        return self.num_workers if self.own_statistics else 1

    def arrays(self) -> list[tuple[str, tuple[int, ...], type]]:
        """Return (name, shape, dtype) of every array of the mapping."""
        vector = (self.num_parameters,)
        return [
            ("theta", vector, np.float32),
            ("target", vector if self.has_target else (0,), np.float32),
            ("statistics", (self.owners, len(self.statistics), self.num_parameters), np.float32),
            ("ages", (self.owners, 8), np.int64),  # steps that each set of statistics has seen, in column 0
            # A row of eight int64 is one cache line: workers never write to each other's. The last row is the base
            # that a resumed run starts from.
            ("counters", (self.num_workers + 1, 8), np.int64),
            ("rounds", (self.num_workers, 8), np.int64),  # of the synchronous discipline
            ("heartbeats", (self.num_workers, 8), np.float64),
            ("flags", (8,), np.int64),
            ("input_sums", (self.num_workers + 1, 2, 1 + 2 * self.num_inputs), np.float64),
            ("input_counters", (self.num_workers + 1, 8), np.int64),
        ]


class ParameterStore:
    """Flat shared parameters `theta` [P], target parameters, optimiser statistics, counters, heartbeats, stop flag.

    Create one with `context` to share it with processes, or without for one process. It survives being passed as an
    argument of `Process` under any start method; it is never pickled otherwise.
    """

    def __init__(self, spec: StoreSpec, config: Config, context: BaseContext | None = None) -> None:
        self.spec = spec
        self.config = config
        size = sum(_padded(_num_bytes(shape, dtype)) for _, shape, dtype in spec.arrays())
        # RawArray: an unlinked file handed over by descriptor; it avoids a full /dev/shm by itself.
        self._memory = context.RawArray("b", size + _CACHE_LINE_BYTES) if context else bytearray(size + 64)
        self._lock = context.Lock() if context and config.update == "locked" else None
        self._is_shared = context is not None
        self._map()

    def __getstate__(self) -> dict:
        return {name: getattr(self, name) for name in ("spec", "config", "_memory", "_lock", "_is_shared")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._map()

    def _map(self) -> None:
        memory = np.frombuffer(self._memory, dtype=np.uint8)
        offset = -memory.ctypes.data % _CACHE_LINE_BYTES
        views: dict[str, np.ndarray] = {}
        for name, shape, dtype in self.spec.arrays():
            size = _num_bytes(shape, dtype)
            views[name] = memory[offset : offset + size].view(dtype).reshape(shape)
            offset += _padded(size)
        self.theta = torch.from_numpy(views["theta"])  # [P]
        self.target = torch.from_numpy(views["target"])  # [P], or [0] without target parameters
        self.statistics = torch.from_numpy(views["statistics"])  # [owners, statistics, P]
        self.ages = views["ages"]  # [owners, 8]
        self.counters = views["counters"]  # [W + 1, Counter]
        self.heartbeats = views["heartbeats"]  # [W, 8], seconds on the monotonic clock in column 0
        self._flags = views["flags"]
        self.inputs = SharedSums(views["input_sums"], views["input_counters"]) if self.spec.num_inputs else None
        self.discipline = self._make_discipline(views["rounds"])
        self._library = kernels.library() if self.config.kernels != "torch" else None

    def _make_discipline(self, rounds: np.ndarray) -> Discipline:
        timeouts = self.counters[:, Counter.TIMEOUTS]
        if self._lock is not None:
            return Locked(self._lock, timeouts)
        if self._is_shared and self.config.update == "synchronous":
            return Synchronous(rounds, timeouts, beat=self.beat, is_stopping=lambda: self.stopped)
        return Hogwild()  # also where one process does everything, one thing after the other

    @property
    def stopped(self) -> bool:
        """Whether workers have been asked to stop."""
        return bool(self._flags[0])

    def stop(self) -> None:
        """Ask all workers to stop after their current update."""
        self._flags[0] = 1

    def total(self, counter: Counter) -> int:
        """Return the sum over workers of `counter`, runs before a resume included."""
        return int(self.counters[:, counter].sum())

    def resume_counters(self, base: np.ndarray) -> None:
        """Go on from the totals [Counter] of a run before this one, and from its last copy to the target."""
        self.counters[-1, : len(base)] = base
        self._flags[1] = self._epoch()

    def target_copy(self) -> int:
        """Return a number that is another after each copy to the target parameters."""
        return int(self._flags[2])

    def beat(self, worker: int, grace: float = 0.0) -> None:
        """Record that `worker` is alive, and will be in `grace` seconds."""
        self.heartbeats[worker, 0] = time.monotonic() + grace

    def learning_rate(self) -> float:
        """Return the annealed learning rate at the present global frame."""
        start = self.config.initial_learning_rate
        fraction = self.total(Counter.FRAMES) / self.config.frames
        return linear_anneal(start, start * self.config.final_learning_rate_fraction, fraction)

    def pull(self, into: Tensor) -> int:
        """Copy theta into `into` [P] (Algorithm S3: theta' <- theta); return the updates made before the copy."""
        updates = self.total(Counter.UPDATES)
        into.copy_(self.theta)
        return updates

    def apply(self, worker: int, update: "Update", pulled_updates: int) -> int | None:
        """Apply `update` of `worker` to theta when the discipline lets it, count it, return its staleness.

        Args:
            worker: index of the worker; only this worker may use it.
            update: gradient [P] and counts.
            pulled_updates: what the `pull` before the rollout returned.

        Returns:
            Updates of others between that pull and this push; None where it was too late and is dropped.
        """
        with self.discipline.applying(worker) as in_time:
            staleness = self.total(Counter.UPDATES) - pulled_updates
            if in_time:
                self._step(worker, update.gradient)
            if self.inputs is not None and update.inputs is not None:
                self.inputs.add(worker, update.inputs)
            row = self.counters[worker]
            row[Counter.FRAMES] += update.frames
            row[Counter.STEPS] += update.steps
            row[Counter.EPISODES] += len(update.episodes)
            if in_time:
                row[Counter.STALENESS] += staleness
                row[Counter.UPDATES] += 1
            if self.spec.has_target:
                self._copy_target_at_crossing(worker)
        return staleness if in_time else None

    def _step(self, worker: int, gradient: Tensor) -> None:
        config, rate = self.config, self.learning_rate()
        owner = worker if self.spec.own_statistics else 0
        statistics = self.statistics[owner]
        self.ages[owner, 0] += 1
        match config.optimizer:
            case "shared-rmsprop" | "rmsprop":
                rmsprop_step_(
                    self.theta,
                    gradient,
                    statistics[0],
                    learning_rate=rate,
                    decay=config.decay,
                    epsilon=config.optimizer_epsilon,
                    library=self._library,
                )
            case "momentum-sgd":
                momentum_sgd_step_(self.theta, gradient, statistics[0], learning_rate=rate, decay=config.decay)
            case "adam" | "shared-adam":
                decays = adam_decays(config, self.spec.owners)
                adam_step_(
                    self.theta,
                    gradient,
                    statistics[0],
                    statistics[1],
                    step=int(self.ages[owner, 0]),
                    learning_rate=rate,
                    momentum=decays[0],
                    decay=decays[1],
                    epsilon=config.optimizer_epsilon,
                    library=self._library,
                )

    def _copy_target_at_crossing(self, worker: int) -> None:
        # Paper: `T mod I_target == 0` can be stepped over, as T grows by whole rollouts of all workers: test for a
        # crossing. Two workers may both see it; the second copy does no harm, as it has a number of its own.
        epoch = self._epoch()
        if epoch > self._flags[1]:
            self.target.copy_(self.theta)
            self._flags[2] = epoch * self.spec.num_workers + worker
            self._flags[1] = epoch  # afterwards: who is killed before has not copied

    def _epoch(self) -> int:
        return self.total(Counter.FRAMES) // self.config.target_interval_frames


def adam_decays(config: Config, owners: int) -> tuple[float, float]:
    """Return beta1 and beta2 of one of `owners` sets of moments: each sees others' updates only as time that passes.

    With decays per own update sixteen workers stay at -20 where two have learned Pong (docs/log.md).
    """
    updates = max(owners / 2, 1.0)
    return config.adam_beta1**updates, config.decay**updates


def _num_bytes(shape: tuple[int, ...], dtype: type) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _padded(size: int) -> int:
    return -(-size // _CACHE_LINE_BYTES) * _CACHE_LINE_BYTES
