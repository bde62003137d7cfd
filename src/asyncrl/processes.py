"""Worker processes: how they start, what they tell, how they end. The trainer owns every one of them."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
import torch

from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.inputs import InputStatistics
from asyncrl.machine import descendants, end_at_once
from asyncrl.rollout import Episode
from asyncrl.seeding import seed_everything
from asyncrl.store import ParameterStore
from asyncrl.worker import Learner, Update, learn

REPORT_SECONDS = 0.5
BUILD_SECONDS = 180.0  # that building and resetting the environments may take longer than a step
USUAL_ENVS = 64  # of a worker: with more it may take longer
IMPATIENT_SECONDS = 1.0  # a second Ctrl-C sooner than this is a bouncing key and may not cost the checkpoint


@dataclass(frozen=True)
class Report:
    """What a worker tells every half second, and at once when it fails."""

    worker: int
    updates: int = 0
    stats: dict[str, float] = field(default_factory=dict)  # means over those updates
    staleness: dict[int, int] = field(default_factory=dict)  # how many updates had how much
    episodes: list[Episode] = field(default_factory=list)
    events: list[tuple[int, int]] = field(default_factory=list)  # as `orders.RECORD`, if the order is kept
    error: str | None = None  # a traceback
    mistake: str | None = None  # a user's mistake in one line: starting again would not help
    is_last: bool = False  # what follows is closing the environments


@dataclass
class Pending:
    """Sums of a worker's numbers since its last report."""

    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    staleness: dict[int, int] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    events: list[tuple[int, int]] = field(default_factory=list)

    def add(self, update: Update, staleness: int | None) -> None:
        """Count an update, or only its episodes where it was dropped (staleness None)."""
        self.episodes += update.episodes
        if staleness is None:
            return
        self.updates += 1
        for name, value in update.stats.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.staleness[staleness] = self.staleness.get(staleness, 0) + 1

    def report(self, worker: int, *, is_last: bool = False) -> Report:
        means = {name: value / self.updates for name, value in self.sums.items()} if self.updates else {}
        return Report(worker, self.updates, means, self.staleness, self.episodes, self.events, is_last=is_last)


def prepare_process() -> None:
    """Make this process a well-behaved child: one thread, no denormals, deaf to Ctrl-C, gone when the trainer is.

    Where a simulator crashes, and on SIGUSR1, it prints where its threads are.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # its server was busy until now, and nobody is left to work for
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, 2)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.dup2(2, 1)  # what an environment prints must not come between the trainer's lines of JSON
    os.environ.pop("PYTHONSAFEPATH", None)  # of our servers (children.py), not of the environment's programs
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Daemons may have no children, and environments may want some: see `end_children`.
    multiprocessing.current_process()._config["daemon"] = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def end_children() -> None:
    """End what environments have started and their `close` left behind. Python would wait for its own children."""
    for child in multiprocessing.active_children():  # also where `descendants` finds none
        child.kill()
    end_at_once(lambda: descendants(os.getpid()))


def _end_with_parent() -> None:
    """End this process once the one that asked for it has gone, even if an environment hangs or builds for minutes.

    What its environments have started ends with it.
    """
    parent = multiprocessing.parent_process()  # under forkserver it is not our system parent
    if parent is not None:
        parent.join()
        try:
            end_at_once(lambda: descendants(os.getpid()))
        finally:
            os._exit(1)


def run_worker(
    config: Config,
    store: ParameterStore,
    statistics: InputStatistics | None,
    worker: int,
    generation: int,
    pipe: Connection,
) -> None:
    """Be an actor-learner process: learn, report twice a second, end with the trainer or when it says so."""
    prepare_process()
    seed_everything(np.random.SeedSequence(config.seed, spawn_key=(worker, generation, 2)))
    pending, sent, is_built, failure = Pending(), time.monotonic(), False, None

    def report(update: Update, staleness: int | None) -> None:
        nonlocal pending, sent
        pending.add(update, staleness)
        now = time.monotonic()
        if now - sent > REPORT_SECONDS:
            pipe.send(pending.report(worker))
            pending, sent = Pending(), now

    def mark(pulls: bool) -> None:
        if config.record_order:
            pending.events.append((time.monotonic_ns(), 2 * worker + pulls))

    def beat() -> None:
        store.beat(worker, 0.0 if is_built else BUILD_SECONDS * patience(config))

    try:
        beat()
        learner, is_built = Learner(config, worker, generation, statistics, beat=beat), True
        try:
            learn(learner, store, report, mark)
            pipe.send(pending.report(worker, is_last=True))
            pending = Pending()
        except BaseException:
            with contextlib.suppress(Exception):  # what has failed before is what there is to tell
                learner.close()
            raise
        learner.close()
    except UserError as error:
        where = "" if is_built else " (in a worker: it imports nothing of your script)"
        failure = Report(worker, mistake=f"{error}{where}")
    except Exception:
        failure = Report(worker, error=traceback.format_exc())
    end_children()
    if failure is not None:
        with contextlib.suppress(OSError):  # the trainer may be gone
            pipe.send(pending.report(worker))  # what it has counted before
            pipe.send(failure)
        sys.exit(1)


@contextlib.contextmanager
def handling_signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` on Ctrl-C, SIGTERM and a closed terminal; a second Ctrl-C a second later ends at once.

    Only the main thread may do this; in others nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = None

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        now = time.monotonic()
        if asked is None:
            asked = now
            interrupt()
        elif number == signal.SIGINT and now - asked > IMPATIENT_SECONDS:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            signal.raise_signal(signal.SIGINT)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def patience(config: Config) -> float:
    """Return how many times as long as usual a worker may take, for it steps and builds its environments in turn."""
    return max(config.envs_per_worker / USUAL_ENVS, 1.0)


def last_line(text: str) -> str:
    """Return the last line of a traceback: the exception itself."""
    return text.strip().splitlines()[-1] if text.strip() else "no message"
