"""The worker processes of one training: started, polled, restarted within limits, stopped."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from asyncrl.children import kill, start_process
from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.inputs import InputStatistics
from asyncrl.processes import Report, last_line, patience, run_worker
from asyncrl.store import Counter, ParameterStore

MAX_RESTARTS = 5  # in a row
HEALTHY_SECONDS = 600.0  # of updates, after which failures before are forgiven: a run may last for days
HANG_SECONDS = 120.0  # without a step
BEST_SECONDS = 30.0  # between checkpoints of a new best score
STOP_SECONDS = 3.0  # that a worker has to finish its update before it is killed
CLOSE_SECONDS = 20.0  # that it may close its environments after that: they may own programs and files
HURRIED_SECONDS = 1.0  # the same after a Ctrl-C
WHERE_SECONDS = 0.2  # to print where it hangs
STALL_SECONDS = 10.0  # between two polls: this process itself was stopped (Ctrl-Z), and the workers with it


@dataclass
class _Slot:
    """One worker's place: the process that fills it now, and its history."""

    process: BaseProcess | None = None
    pipe: Connection | None = None
    restarts: int = 0
    failures: int = 0  # in a row
    error: str | None = None  # the last line of the traceback it ended with
    start_at: float = 0.0  # monotonic seconds; when it started, or when a dead one may start again
    learns_since: float | None = None  # monotonic seconds, its first updates since it started
    finished: bool = False
    is_closing: bool = False  # its environments, after its last report


class WorkerPool:
    """Owner of the workers. Each has a pipe of its own, so that a killed one can leave nothing locked.

    Args:
        config: of the run.
        store: shared with the workers.
        statistics: of the network's inputs.
        context: start method.
        generation: number of restarts before, of all workers; new environments never repeat old seeds.
        announce: called with a line of text when a worker dies or hangs.
    """

    exhausted = False  # processes always have something to do

    def __init__(
        self,
        config: Config,
        store: ParameterStore,
        statistics: InputStatistics | None,
        context: BaseContext,
        generation: int,
        announce: Callable[[str], None],
    ) -> None:
        self.config, self.store, self.statistics, self.context = config, store, statistics, context
        self.generation, self.announce = generation, announce
        self.slots = [_Slot() for _ in range(config.workers)]
        self._mistake: str | None = None  # for which the training ends, once all that was reported with it is taken
        self._polled = time.monotonic()

    def start(self) -> None:
        """Start all workers."""
        for worker in range(len(self.slots)):
            self._start(worker)
        self._polled = time.monotonic()

    def poll(self, timeout: float) -> list[Report]:
        """Wait up to `timeout` seconds for reports; restart workers that died or hang.

        Then call `require_health`, once what was reported is taken.
        """
        if time.monotonic() - self._polled > STALL_SECONDS:
            for worker, beat in enumerate(self.store.heartbeats[:, 0]):
                self.store.beat(worker, grace=max(beat - time.monotonic(), 0.0))
        # Who had ended before the reading has been read to his last word.
        ended = [slot.process is not None and not slot.process.is_alive() for slot in self.slots]
        reports = self._receive(timeout)
        self._mistake = next((report.mistake for report in reports if report.mistake is not None), None)
        for worker, slot in enumerate(self.slots):
            if self._mistake is None:
                self._supervise(worker, slot, ended[worker])
        self._polled = time.monotonic()
        return reports

    def require_health(self) -> None:
        """Complain if a worker has failed too often, or for a reason that only the user can mend.

        Raises:
            UserError: with that reason.
        """
        if self._mistake is not None:
            raise UserError(self._mistake)

    def wants_checkpoint(self, seconds: float, is_best: bool) -> bool:
        """Return whether to save, `seconds` after the last time."""
        return seconds >= self.config.checkpoint_every or (is_best and seconds >= BEST_SECONDS)

    def checkpoint_state(self) -> dict[str, int]:
        """Return what a checkpoint must keep."""
        return {"generation": self.generation}

    def stop(self) -> list[Report]:
        """Ask all workers to end, kill those that learn on for too long; return what they still had to say.

        From then on nobody writes into the store. Environments may still be closing: see `close`.
        """
        self.store.stop()
        deadline, reports = time.monotonic() + STOP_SECONDS, []
        # Whose pipe is open lives, also where the forkserver, which would know it, has gone with a closed terminal.
        while any(s.pipe is not None and not s.is_closing for s in self.slots) and time.monotonic() < deadline:
            reports += self._receive(timeout=0.05)  # a full pipe would keep its worker from ending
        kill(*(slot.process for slot in self.slots if slot.process is not None and not slot.is_closing))
        return reports + self._receive(timeout=0)

    def close(self, *, hurries: bool = False) -> None:
        """Let environments be closed for a while, then end every process, whatever happens."""
        deadline = time.monotonic() + (HURRIED_SECONDS if hurries else CLOSE_SECONDS)
        try:
            for slot in self.slots:
                if slot.process is not None and slot.is_closing:
                    slot.process.join(max(deadline - time.monotonic(), 0.0))
            self._receive(timeout=0)  # tells what went wrong there
        finally:
            kill(*(slot.process for slot in self.slots if slot.process is not None))

    def state(self, worker: int) -> str:
        """Return what a worker is doing, in one word."""
        slot = self.slots[worker]
        if slot.finished:
            return "done"
        if slot.process is None:
            return "restarting"
        return "running" if self.store.counters[worker, Counter.UPDATES] else "starting"

    def restarts(self, worker: int) -> int:
        """Return how often a worker was started again."""
        return self.slots[worker].restarts

    def _start(self, worker: int) -> None:
        slot = self.slots[worker]
        slot.start_at, slot.learns_since = time.monotonic(), None
        slot.is_closing = False
        self.store.beat(worker)
        try:
            slot.pipe, theirs = self.context.Pipe(duplex=False)
            with contextlib.closing(theirs):  # here, so that its end shows as the end of the file
                args = (self.config, self.store, self.statistics, worker, self.generation, theirs)
                slot.process = start_process(self.context, run_worker, args, f"asyncrl-worker-{worker}")
        except (OSError, EOFError) as error:  # no more processes, memory or files, or a server that has died
            self._start_again(worker, slot, f"could not be started: {str(error) or 'its server ended'}")

    def _receive(self, timeout: float) -> list[Report]:
        """Wait up to `timeout` seconds for something to read; return all there is."""
        slots = {slot.pipe: slot for slot in self.slots if slot.pipe is not None}
        ready = wait(list(slots), timeout)
        return [report for pipe, slot in slots.items() if pipe in ready for report in self._read(slot)]

    def _read(self, slot: _Slot) -> list[Report]:
        reports = []
        assert slot.pipe is not None
        try:
            while slot.pipe.poll():
                reports.append(slot.pipe.recv())
        except (EOFError, OSError):
            slot.pipe.close()
            slot.pipe = None
        for report in reports:
            slot.is_closing |= report.is_last
            if report.updates and slot.learns_since is None:
                slot.learns_since = time.monotonic()
            if report.error is not None:
                self.announce(report.error)
                slot.error = last_line(report.error)
        return reports

    def _supervise(self, worker: int, slot: _Slot, ended: bool) -> None:
        if slot.finished or self.store.stopped:
            return
        if slot.process is None:
            if time.monotonic() >= slot.start_at:
                self._start(worker)
            return
        if ended and slot.process.exitcode == 0 and self.store.total(Counter.FRAMES) >= self.config.frames:
            slot.finished = True
        elif ended:
            self._replace(worker, slot, f"ended with exit code {slot.process.exitcode}")
        elif time.monotonic() - self.store.heartbeats[worker, 0] > (limit := HANG_SECONDS * patience(self.config)):
            _ask_where(slot.process)
            self._replace(worker, slot, f"made no step for {limit:.0f} s")

    def _replace(self, worker: int, slot: _Slot, what: str) -> None:
        assert slot.process is not None
        kill(slot.process)
        self.store.discipline.leave(worker)  # so that nobody waits for it
        self._start_again(worker, slot, what)

    def _start_again(self, worker: int, slot: _Slot, what: str) -> None:
        """Have a worker that is gone start again after a while, unless it has failed too often."""
        if slot.learns_since is not None and time.monotonic() - slot.learns_since > HEALTHY_SECONDS:
            slot.failures = 0
        slot.failures += 1
        if slot.failures > MAX_RESTARTS:
            self._mistake = f"worker {worker} failed {slot.failures} times in a row, at last: {slot.error or what}"
            return
        if slot.pipe is not None:
            slot.pipe.close()
            slot.pipe = None
        slot.process = slot.error = None
        slot.restarts += 1
        self.generation += 1
        delay = 0.5 * 2**slot.failures
        slot.start_at = time.monotonic() + delay
        self.announce(f"worker {worker} {what}: starting it again in {delay:.0f} s ({slot.failures} of {MAX_RESTARTS})")


def _ask_where(process: BaseProcess) -> None:
    """Have a process that hangs print where, before it is killed (`prepare_process`)."""
    if process.pid is not None and process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGUSR1)
        time.sleep(WHERE_SECONDS)
