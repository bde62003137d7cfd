"""The worker processes of one training: started, polled, restarted within limits, stopped."""

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.networks import InputStatistics
from asyncrl.processes import Report, last_line, run_worker, start_process
from asyncrl.store import Counter, ParameterStore

MAX_RESTARTS = 5
HANG_SECONDS = 120.0  # without an update, environments being built included
STOP_SECONDS = 3.0  # that a worker has to finish its update before it is killed


@dataclass
class _Slot:
    """One worker's place: the process that fills it now, and its history."""

    process: BaseProcess | None = None
    pipe: Connection | None = None
    restarts: int = 0
    start_at: float = 0.0  # monotonic seconds; when a dead worker may start again
    finished: bool = False


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

    def __init__(self, config, store, statistics, context, generation, announce) -> None:
        self.config: Config = config
        self.store: ParameterStore = store
        self.statistics: InputStatistics | None = statistics
        self.context: BaseContext = context
        self.generation: int = generation
        self.announce = announce
        self.slots = [_Slot() for _ in range(config.workers)]

    def start(self) -> None:
        """Start all workers."""
        for worker in range(len(self.slots)):
            self._start(worker)

    def poll(self, timeout: float) -> list[Report]:
        """Wait up to `timeout` seconds for reports; restart workers that died or hang.

        Raises:
            UserError: if a worker has failed too often.
        """
        waits = [s.pipe for s in self.slots if s.pipe is not None]
        ready = wait(waits, timeout) if waits else (time.sleep(timeout) or [])
        reports = []
        for worker, slot in enumerate(self.slots):
            if slot.pipe in ready:
                reports += self._receive(worker, slot)
            self._supervise(worker, slot)
        return reports

    def drain(self) -> list[Report]:
        """Return what workers said before they stopped, and close their pipes."""
        reports = []
        for worker, slot in enumerate(self.slots):
            if slot.pipe is not None:
                reports += self._receive(worker, slot)
        return reports

    def stop(self) -> None:
        """End all workers: ask, then kill those that have not ended in time."""
        self.store.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for slot in self.slots:
            if slot.process is not None:
                slot.process.join(max(0.0, deadline - time.monotonic()))
                _kill(slot.process)

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
        slot.pipe, theirs = self.context.Pipe(duplex=False)
        self.store.beat(worker)
        args = (self.config, self.store, self.statistics, worker, self.generation, theirs)
        slot.process = start_process(self.context, run_worker, args, f"asyncrl-worker-{worker}")
        theirs.close()  # so that its end shows here as the end of the file

    def _receive(self, worker: int, slot: _Slot) -> list[Report]:
        reports = []
        assert slot.pipe is not None
        try:
            while slot.pipe.poll():
                report = slot.pipe.recv()
                if report.error is not None:
                    self.announce(report.error)
                    self._fail_if_hopeless(slot, last_line(report.error))
                reports.append(report)
        except (EOFError, OSError):
            slot.pipe.close()
            slot.pipe = None
        return reports

    def _supervise(self, worker: int, slot: _Slot) -> None:
        if slot.finished or self.store.stopped:
            return
        if slot.process is None:
            if time.monotonic() >= slot.start_at:
                self._start(worker)
            return
        if slot.process.is_alive():
            if time.monotonic() - self.store.heartbeats[worker, 0] > HANG_SECONDS:
                self._replace(worker, slot, f"made no update for {HANG_SECONDS:.0f} s")
        elif slot.process.exitcode == 0:
            slot.finished = True
        else:
            self._replace(worker, slot, f"ended with exit code {slot.process.exitcode}")

    def _replace(self, worker: int, slot: _Slot, what: str) -> None:
        assert slot.process is not None
        _kill(slot.process)
        self._fail_if_hopeless(slot, f"worker {worker} {what}")
        if slot.pipe is not None:
            slot.pipe.close()
            slot.pipe = None
        slot.process = None
        slot.restarts += 1
        self.generation += 1
        delay = 0.5 * 2**slot.restarts
        slot.start_at = time.monotonic() + delay
        self.announce(f"worker {worker} {what}: starting it again in {delay:.0f} s ({slot.restarts} of {MAX_RESTARTS})")

    def _fail_if_hopeless(self, slot: _Slot, what: str) -> None:
        if slot.restarts >= MAX_RESTARTS:
            raise UserError(f"a worker failed {MAX_RESTARTS + 1} times, the last time: {what}")


def _kill(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()
    process.join()
