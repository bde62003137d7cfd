"""Measures training speed: real workers on a real store for some seconds, without a run's files."""

import contextlib
import dataclasses
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext

import numpy as np

from asyncrl.a2c import batched
from asyncrl.children import kill, make_context, require_parenthood, start_early, start_process
from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.inputs import InputStatistics
from asyncrl.processes import end_children, last_line, prepare_process
from asyncrl.roofline import floors
from asyncrl.seeding import seed_everything
from asyncrl.spans import Spans, time_learner_
from asyncrl.start import Start, fresh_start, make_store, require_kernels
from asyncrl.store import Counter, ParameterStore
from asyncrl.worker import Learner, Update, learn

ENDLESS_FRAMES = 10**15
WINDOW_SECONDS = 0.25
FLOOR_SECONDS = 0.5  # to measure each of a roofline's parts
STARTUP_SECONDS = 120.0  # to build the environments
END_SECONDS = 300.0  # to finish an update and measure a roofline
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Window:
    """What one worker did in a quarter of a second or one update, whichever is longer."""

    steps: int
    seconds: float
    cpu_seconds: float  # of all threads of the process
    spans: dict[str, float] | None  # seconds; None while the clocks are not in place


@dataclass(frozen=True)
class Speed:
    """What all workers together reached."""

    config: Config
    steps_per_second: float
    frames_per_second: float
    cpu_micros_per_step: float
    cpu_share: float  # of a core that each worker had; far below 1 if others were busy
    memory_megabytes: float  # of the largest worker, shared pages included
    windows: list[Window] = field(repr=False)  # of all workers
    floors: dict[str, float] | None = None  # `roofline.floors`; None unless profiled


@dataclass(frozen=True)
class _Found:
    """What a worker hands over at its end."""

    windows: list[Window] = field(default_factory=list)
    frames_per_step: int = 1
    memory_megabytes: float = 0.0
    floors: dict[str, float] | None = None
    error: str | None = None


def measure_speed(
    config: Config, *, seconds: float, warmup: float, profile: bool = False, start: Start | None = None
) -> Speed:
    """Train for `warmup` and `seconds` and return the speed; nothing is learned that outlasts it.

    Args:
        config: of the training; its end and its files do not matter.
        seconds: to measure. With `profile` the second half has clocks around the workers' calls.
        warmup: seconds after the first update of every worker that are left out.
        profile: also find out where the time goes, and the roofline.
        start: of a training with the same environment and network, to save building it again.

    Raises:
        UserError: if a worker fails, or the environment or configuration is not usable.
    """
    config = trainable(config)
    if profile and config.device != "cpu":  # a GPU works on while the clocks of its calls have stopped
        raise UserError(f"--profile has clocks for CPUs only: leave it out with --device {config.device}")
    require_parenthood()
    context = make_context(config.env)
    start_early(context, config.env)
    start = start or fresh_start(config)
    store = make_store(config, start, context)
    pool = _Pool(config, store, start.statistics, context, seconds / 2 if profile else None, warmup)
    try:
        found = pool.run(seconds)
    finally:
        pool.close()
    return _speed_of(config, found)


def trainable(config: Config) -> Config:
    """Return `config` without an end, and with all environments in one batch where its method has that.

    Raises:
        UserError: for simulated asynchrony, whose speed says nothing, and for a GPU or bfloat16 that is not there.
    """
    if config.schedule == "simulated":
        raise UserError("--schedule simulated takes turns in one process: there is no speed to measure")
    require_kernels(config)
    config = dataclasses.replace(config, frames=ENDLESS_FRAMES, record_order=False)
    return batched(config) if config.algo == "a2c" else config


class _Pool:
    """Owner of the measured processes: starts all, ends all. None is restarted."""

    def __init__(
        self,
        config: Config,
        store: ParameterStore,
        statistics: InputStatistics | None,
        context: BaseContext,
        profile_after: float | None,
        warmup: float,
    ) -> None:
        self.store, self.warmup, self._workers, self._context = store, warmup, config.workers, context
        self._shared = (config, store, statistics, warmup, profile_after)
        self.processes, self.pipes = [], []

    def run(self, seconds: float) -> list[_Found]:
        """Start all, let them work, then stop them and return what they found, each from the end of the warm-up on."""
        try:
            self._start()
        except (OSError, EOFError) as error:  # no more processes, memory or files, or a server that has died
            raise UserError(f"a worker could not be started: {str(error) or 'its server ended'}") from None
        self._wait(lambda: _all_have_begun(self.store), STARTUP_SECONDS)
        self._wait(lambda: False, self.warmup + seconds)
        self.store.stop()
        return [self._receive(pipe) for pipe in self.pipes]

    def _start(self) -> None:
        for worker in range(self._workers):
            pipe, theirs = self._context.Pipe(duplex=False)
            self.pipes.append(pipe)
            with contextlib.closing(theirs):
                args = (*self._shared, worker, theirs)
                self.processes.append(start_process(self._context, run_measured, args, f"asyncrl-bench-{worker}"))

    def close(self) -> None:
        """End every process."""
        kill(*self.processes)
        for pipe in self.pipes:
            pipe.close()

    def _wait(self, is_done: Callable[[], bool], seconds: float) -> None:
        """Wait until `is_done`, or for `seconds`; whoever reports before he is asked to has failed."""
        deadline = time.monotonic() + seconds
        while not is_done() and time.monotonic() < deadline:
            for pipe in wait(self.pipes, POLL_SECONDS):
                self._receive(pipe)  # type: ignore[arg-type]

    def _receive(self, pipe: Connection) -> _Found:
        if not pipe.poll(END_SECONDS):
            raise UserError(f"a worker has not ended {END_SECONDS:g} s after it was asked to: it hangs")
        try:
            found = pipe.recv()
        except EOFError:
            found = _Found(error="a worker ended without a word")
        if found.error is not None:
            raise UserError(found.error)
        return found


def run_measured(
    config: Config,
    store: ParameterStore,
    statistics: InputStatistics | None,
    warmup: float,
    profile_after: float | None,
    worker: int,
    pipe: Connection,
) -> None:
    """Be a measured actor-learner process: learn until the store says stop, then tell."""
    prepare_process()
    seed_everything(np.random.SeedSequence(config.seed, spawn_key=(worker, 0, 2)))
    try:
        learner = Learner(config, worker, 0, statistics)
        try:
            windows = _learn_in_windows(learner, store, warmup, profile_after)
            memory = _resident_megabytes()  # before the floors, which need much
            least = None if profile_after is None else floors(learner, store, FLOOR_SECONDS)
        finally:
            learner.close()
        pipe.send(_Found(windows, learner.state.envs.frames_per_step, memory, least))
    except UserError as error:
        pipe.send(_Found(error=str(error)))
        sys.exit(1)
    except Exception:
        pipe.send(_Found(error=last_line(traceback.format_exc())))
        sys.exit(1)
    finally:
        end_children()


def _all_have_begun(store: ParameterStore) -> bool:
    return bool(store.counters[:-1, Counter.UPDATES].all())


def _learn_in_windows(
    learner: Learner, store: ParameterStore, warmup: float, profile_after: float | None
) -> list[Window]:
    """Do the work of a worker and return what happened after the warm-up, window by window."""
    windows: list[Window] = []
    spans: Spans | None = None
    steps, began, cpu_began = 0, math.inf, 0.0
    start = math.inf  # of the first window: when every worker had begun, and the warm-up was over

    def report(update: Update, staleness: int | None) -> None:
        nonlocal spans, steps, began, cpu_began, start
        steps += update.steps
        now = time.perf_counter()
        if start == math.inf and _all_have_begun(store):
            start = now + warmup
        if now < start or (began < now < began + WINDOW_SECONDS):
            return
        cpu = time.process_time()
        if began < now:
            windows.append(Window(steps, now - began, cpu - cpu_began, None if spans is None else spans.take()))
        if spans is None and profile_after is not None and now - start >= profile_after:
            spans = Spans()
            time_learner_(learner, store, spans)
        steps, began, cpu_began = 0, now, cpu

    learn(learner, store, report)
    return windows


def _resident_megabytes() -> float:
    """Return the largest memory that this process has had resident; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if os.uname().sysname == "Darwin" else 1 << 10)


def _speed_of(config: Config, found: list[_Found]) -> Speed:
    rates, cpu_seconds, seconds, steps = [], 0.0, 0.0, 0
    for worker in found:
        plain = [window for window in worker.windows if window.spans is None]
        if not plain:
            raise UserError("no update was finished in time: measure for longer (bench --seconds, tune --budget)")
        worker_steps = sum(window.steps for window in plain)
        rates.append(worker_steps / sum(window.seconds for window in plain))
        cpu_seconds += sum(window.cpu_seconds for window in plain)
        seconds += sum(window.seconds for window in plain)
        steps += worker_steps
    least = [worker.floors for worker in found if worker.floors is not None]
    return Speed(
        config=config,
        steps_per_second=sum(rates),
        frames_per_second=sum(rates) * found[0].frames_per_step,
        cpu_micros_per_step=cpu_seconds / steps * 1e6,
        cpu_share=cpu_seconds / seconds,
        memory_megabytes=max(worker.memory_megabytes for worker in found),
        windows=[window for worker in found for window in worker.windows],
        floors={name: sum(f[name] for f in least) / len(least) for name in least[0]} if least else None,
    )
