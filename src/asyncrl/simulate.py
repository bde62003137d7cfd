"""Simulated asynchrony: W workers in one process, interleaved in an order that is drawn from the seed or replayed.

The same worker, store and updates as with processes; only who goes next is decided here. An update is computed at its
pull, and waits for its push as a gradient: so all workers share one network, and W is bounded by environments and
gradients alone. Equal seeds give equal bits.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch

from asyncrl.config import Config
from asyncrl.errors import UserError, blaming
from asyncrl.inputs import InputStatistics
from asyncrl.orders import Event, drawn_order, recorded_order, rounds
from asyncrl.processes import Pending, Report
from asyncrl.seeding import keep_generators, seed_everything
from asyncrl.store import Counter, ParameterStore
from asyncrl.worker import Learner, Update, compute_update

_ORDER_KEY = 2_000_000  # of the seed; workers' keys are their numbers


class _Interrupted(BaseException):
    """Ends what a learner is at. No `Exception`: it is nobody's mistake."""


class Simulation:
    """The place of a `WorkerPool` without processes: the trainer polls it, and polling is what makes it work.

    It runs in eras. An era ends where the frames cross a multiple of `era_frames`: nobody pulls until all that
    was pulled is pushed; the trainer saves; then environments are built, seeded and reset anew. A resumed run begins
    with that too, so that N + N frames equal 2N. (An interrupted one ends its era early, and is no such equal; nor is
    one that goes on from a checkpoint within an era, as a long one has.)

    Args:
        config: of the run.
        store: not shared with anybody.
        statistics: of the network's inputs.
        generation: number of the first era; each draws other seeds.
        position: events of a recorded order that were used before.
        is_interrupted: asked at every step of every worker; once it says yes nobody begins or goes on with an update.
    """

    def __init__(
        self,
        config: Config,
        store: ParameterStore,
        statistics: InputStatistics | None,
        generation: int,
        *,
        position: int = 0,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.store, self.statistics = config, store, statistics
        self.generation, self.position = generation, position
        self._is_interrupted = is_interrupted
        self.exhausted = False  # whether a recorded order is at its end
        self.learners: list[Learner] = []
        self._recorded = None if config.replay is None else recorded_order(config.replay, config.workers)
        self._in_flight: dict[int, tuple[Update, int]] = {}  # by worker: pulled, not pushed; with the updates before
        self._said: list[Report] = []
        self._closing = self._era_is_over = False
        self._put_off_at: int | None = None  # where in a recorded order the next era begins, if not behind this one
        self._before = (torch.get_num_threads(), flushes_denormals())
        self._put_back = keep_generators()

    def start(self) -> None:
        """Build all environments.

        Until `stop` this thread flushes denormals, torch has a learner's threads, and global generators are ours.
        """
        self._before = (torch.get_num_threads(), flushes_denormals())
        self._put_back = keep_generators()
        torch.set_flush_denormal(True)
        with contextlib.suppress(_Interrupted):
            self._begin_era()

    def poll(self, timeout: float) -> list[Report]:
        """Let workers pull and push for `timeout` seconds or until the era ends; return what they did.

        Raises:
            UserError: if one fails, as where its environment raises.
        """
        with contextlib.suppress(_Interrupted):
            self._beat()
            if self._era_is_over and not self.exhausted:
                self.generation += 1
                self._begin_era()
            deadline = time.monotonic() + timeout
            while not self._era_is_over and time.monotonic() < deadline:
                self._advance()
        return self._reports()

    def stop(self) -> list[Report]:
        """Push what was pulled; return what there is to report."""
        self._closing = True
        try:
            while self.learners and not self._era_is_over:
                self._advance()
        finally:
            threads, flushes = self._before
            torch.set_num_threads(threads)
            torch.set_flush_denormal(flushes)
            self._put_back()
        return self._reports()

    def close(self, *, hurries: bool = False) -> None:
        """Close all environments, however long that takes."""
        self._close()

    def require_health(self) -> None:
        """Do nothing: a mistake ends `poll`."""

    def wants_checkpoint(self, seconds: float, is_best: bool) -> bool:
        """Return whether an era is over, or goes on for long; the latter saves only and changes nothing of the run.

        Not when an order is replayed: it would have to go on in the middle of updates.
        """
        return self._era_is_over or (self._recorded is None and seconds >= self.config.checkpoint_every)

    def checkpoint_state(self) -> dict[str, int]:
        """Return what a checkpoint must keep."""
        return {"generation": self.generation, "order_position": self.position}

    def state(self, worker: int) -> str:
        """Return what a worker is doing, in one word."""
        return "running" if self.learners else "done"

    def restarts(self, worker: int) -> int:
        """Return 0: nobody dies here."""
        return 0

    def _begin_era(self) -> None:
        self._close()
        if self.store.inputs is not None:  # sums of floats depend on their order: here as after a resume
            self.store.inputs.restore(self.store.inputs.merged())
        seed_everything(np.random.SeedSequence(self.config.seed, spawn_key=(0, self.generation, 2)))
        for worker in range(self.config.workers):
            shared = self.learners[0] if self.learners else None
            with self._blaming(f"worker {worker} cannot begin"):
                learner = Learner(self.config, worker, self.generation, self.statistics, shared, beat=self._beat)
                self.learners.append(learner)
        self._order = self._make_order()
        every, frames = self.config.era_frames, self.store.total(Counter.FRAMES)
        self._end_frames = min(self.config.frames, (frames // every + 1) * every)
        self._closing = self._era_is_over = False
        self._put_off_at = None

    def _beat(self) -> None:
        if self._is_interrupted():
            raise _Interrupted

    def _make_order(self) -> Iterator[Event]:
        config = self.config
        if self._recorded is not None:
            return islice(self._recorded, self.position, None)
        if config.update == "synchronous":
            return rounds(config.workers)
        seed = np.random.SeedSequence(config.seed, spawn_key=(_ORDER_KEY, self.generation))
        return drawn_order(config.workers, config.delays, np.random.default_rng(seed))

    def _advance(self) -> None:
        """Do what comes next in the order."""
        if self._closing and not self._in_flight:
            self._end_era()
            return
        event = next(self._order, None)
        if event is None:
            # Who had pulled when the recording stopped never pushes.
            self._in_flight.clear()
            self.exhausted = self._put_off_at is None
            self._end_era()
            return
        self.position += 1
        worker, pulls = event
        if pulls and self._closing:
            self._in_flight.pop(worker, None)  # of a worker that was killed while the order was recorded
            if self._put_off_at is None:
                self._put_off_at = self.position - 1
        if pulls and not self._closing:
            learner = self.learners[worker]
            pulled_updates = learner.pull(self.store)
            try:
                with self._blaming(f"worker {worker} failed"):  # nobody would restart it here
                    self._in_flight[worker] = compute_update(learner), pulled_updates
            except _Interrupted:
                self._put_off_at = self.position - 1  # a recorded order goes on with this pull
                raise
        elif not pulls and worker in self._in_flight:  # a recorded worker may have been killed in between
            self._push(worker, *self._in_flight.pop(worker))

    @contextlib.contextmanager
    def _blaming(self, what: str) -> Iterator[None]:
        try:
            with blaming(what):
                yield
        except UserError:
            self._beat()  # Ctrl-C reaches what environments have started, too: if one fails of it, that is no mistake
            raise

    def _end_era(self) -> None:
        """End the era; a recorded order goes on with the first pull that its end has put off.

        Pushes that come after that pull and are done already find nobody in flight.
        """
        if self._put_off_at is not None:
            self.position = self._put_off_at
        self._era_is_over = True

    def _push(self, worker: int, update: Update, pulled_updates: int) -> None:
        staleness = self.store.apply(worker, update, pulled_updates)
        pending = Pending()
        pending.add(update, staleness)
        self._said.append(pending.report(worker))  # one by one: their order must not depend on when we are polled
        if self.store.total(Counter.FRAMES) >= self._end_frames:
            self._closing = True

    def _reports(self) -> list[Report]:
        reports, self._said = self._said, []
        return reports

    def _close(self) -> None:
        with contextlib.ExitStack() as closing:  # each is closed, whatever the others do
            while self.learners:
                learner = self.learners.pop()
                closing.enter_context(blaming(f"the environments of worker {learner.worker} cannot be closed"))
                closing.callback(learner.close)


def flushes_denormals() -> bool:
    """Return whether this thread takes numbers too small for full precision as 0, which torch can set but not tell."""
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    return bool(tiny / 2 == 0)
