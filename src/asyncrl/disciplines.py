"""When a worker may read and write the shared parameters: at any time, one at a time, or in rounds.

The store makes one discipline and calls it; the lines of the worker are the same under each. Whatever a discipline
waits for, it waits for with a time-out: a worker that is killed while others wait for it must not stop them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.synchronize import Lock
from typing import Protocol

import numpy as np

LOCK_SECONDS = 5.0  # a thousand times what an update takes
ROUND_SECONDS = 30.0  # without a sign of anybody: for the slowest worker's rollout, and for all to have started
LAST_ROUND_SECONDS = 1.0  # the same once all are to stop
_POLL_SECONDS = 2e-4
_LOOK_SECONDS = 1e-2  # between looks at what seldom changes
# Columns of a worker's row of `rounds`.
_PULLED, _APPLIED, _ABSENT = 0, 1, 2


class Discipline(Protocol):
    """The rule by which workers share the parameters."""

    def join(self, worker: int) -> None:
        """Let `worker` take part; returns when it may pull."""
        ...

    def leave(self, worker: int) -> None:
        """Let the others no longer wait for `worker`; also called by who found it dead."""
        ...

    def pulling(self, worker: int) -> AbstractContextManager[None]:
        """Enclose the reading of the parameters."""
        ...

    def applying(self, worker: int) -> AbstractContextManager[bool]:
        """Enclose the writing of an update; False inside means that it comes too late and is not to be applied."""
        ...


class Hogwild:
    """No rule (section 4): copies may be torn and updates lost, and it learns all the same."""

    def join(self, worker: int) -> None: ...

    def leave(self, worker: int) -> None: ...

    def pulling(self, worker: int) -> AbstractContextManager[None]:
        return nullcontext()

    def applying(self, worker: int) -> AbstractContextManager[bool]:
        return nullcontext(True)


class Locked:
    """One lock around every copy and every update: nothing torn, nothing lost, staleness as under Hogwild.

    Args:
        lock: shared by the workers.
        timeouts: [W + 1] counts of waits given up; each worker writes its own.
        seconds: after which a holder is taken for dead.
    """

    def __init__(self, lock: Lock, timeouts: np.ndarray, seconds: float = LOCK_SECONDS) -> None:
        self.lock, self.timeouts, self.seconds = lock, timeouts, seconds

    def join(self, worker: int) -> None: ...

    def leave(self, worker: int) -> None: ...

    def pulling(self, worker: int) -> AbstractContextManager[None]:
        return self._held(worker, None)

    def applying(self, worker: int) -> AbstractContextManager[bool]:
        return self._held(worker, True)

    @contextlib.contextmanager
    def _held(self, worker: int, value):
        if not self.lock.acquire(timeout=self.seconds):
            # Its holder was killed or hangs. We take the dead one's place, and release the lock on its behalf below,
            # so that only one wait is lost for each death.
            self.timeouts[worker] += 1
        try:
            yield value
        finally:
            with contextlib.suppress(ValueError):  # released already: two took the place of the same dead holder
                self.lock.release()


class Synchronous:
    """Rounds: all workers pull the same parameters, then push in the order of workers, then the next round begins.

    No lock or barrier: each worker publishes how many rounds it has pulled and applied, and waits for the others' rows.
    Who keeps the others waiting too long is absent from then on, its late update is dropped (its frames count), and it
    joins again some rounds later.

    Args:
        rounds: [W, 8] shared, zero at first; all workers are expected from the beginning.
        timeouts: [W + 1] counts of waits given up; each worker writes its own.
        seconds: that the others wait for a straggler.
        beat: called with a worker again and again while it waits.
        is_stopping: whether all are to stop.
    """

    def __init__(
        self,
        rounds: np.ndarray,
        timeouts: np.ndarray,
        seconds: float = ROUND_SECONDS,
        beat: Callable[[int], None] = lambda worker: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.rounds, self.timeouts, self.seconds = rounds, timeouts, seconds
        self.beat, self.is_stopping = beat, is_stopping

    def join(self, worker: int) -> None:
        row = self.rounds[worker]
        while row[_ABSENT]:
            # Skip the round that may be under way, and the next one may have begun meanwhile: count both as done. The
            # least, as others who join are ahead of those at work; who has applied an update is one ahead of the least.
            present = self.rounds[:, _ABSENT] == 0
            applied = self.rounds[:, _APPLIED]
            row[_PULLED] = row[_APPLIED] = applied[present].min() + 3 if present.any() else applied.max() + 2
            row[_ABSENT] = 0
            # All of them may have made those rounds meanwhile: then nobody would wait for it.
            if present.any() and applied[present].min() >= row[_PULLED]:
                row[_ABSENT] = 1
        # Those rounds are the others' own: however long they take, they are not late. The dead are made to leave.
        while self._behind(worker, _APPLIED, len(self.rounds)).any() and not self.is_stopping():
            self.beat(worker)
            time.sleep(_LOOK_SECONDS)

    def leave(self, worker: int) -> None:
        self.rounds[worker, _ABSENT] = 1

    @contextlib.contextmanager
    def pulling(self, worker: int) -> Iterator[None]:
        yield
        self.rounds[worker, _PULLED] += 1

    @contextlib.contextmanager
    def applying(self, worker: int) -> Iterator[bool]:
        row = self.rounds[worker]
        if row[_ABSENT]:
            self.timeouts[worker] += 1
            yield False
            self.join(worker)
            return
        self._wait(worker, _PULLED, len(self.rounds))
        self._wait(worker, _APPLIED, worker)
        yield True
        row[_APPLIED] += 1
        # Waiting here and not before the next pull lets every worker see the same total of frames, and stop together.
        self._wait(worker, _APPLIED, len(self.rounds), is_done=True)

    def _behind(self, worker: int, column: int, before: int) -> np.ndarray:
        """Return who is present below `before` and has fewer rounds in `column` than `worker` has pulled."""
        others = self.rounds[:before]
        return (others[:, column] < self.rounds[worker, _PULLED]) & (others[:, _ABSENT] == 0)

    def _wait(self, worker: int, column: int, before: int, *, is_done: bool = False) -> None:
        """Wait until nobody is behind, or those who are have let `seconds` pass without anybody's going on.

        `is_done`: nothing is left to do but to wait, which ends once all are to stop.
        """
        seen, since, look = None, time.monotonic(), 0.0
        while (behind := self._behind(worker, column, before)).any():
            if (now := time.monotonic()) >= look:
                look, stops = now + _LOOK_SECONDS, self.is_stopping()
                self.beat(worker)
                if is_done and stops:
                    return
                # All that wait would lose patience at once with whoever is next, who only waited for the last late one.
                if seen is None or not np.array_equal(self.rounds, seen):
                    seen, since = self.rounds.copy(), now
                elif now - since > (LAST_ROUND_SECONDS if stops else self.seconds):
                    # Updates go in turn: all that are behind the first may only be waiting for it, as we are.
                    late = np.flatnonzero(behind)[: 1 if column == _APPLIED and not stops else None]
                    self.rounds[late, _ABSENT] = 1
                    self.timeouts[worker] += 1
            time.sleep(_POLL_SECONDS)
