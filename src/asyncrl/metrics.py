"""Numbers out of workers: gathered by the trainer, kept as rows on disk, shown to whoever watches."""

import contextlib
import math
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asyncrl.errors import UserError
from asyncrl.journals import Events, Journal, JsonLines, event_types
from asyncrl.orders import RECORD, record_file
from asyncrl.processes import Report

RECENT_EPISODES = 100


@dataclass(frozen=True)
class WorkerProgress:
    """One worker's row."""

    worker: int
    state: str  # "starting", "running", "restarting", "done"
    frames: int
    frames_per_second: float
    updates: int
    mean_score: float | None  # of its last episodes
    staleness: float
    restarts: int


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Scores are raw; None until there is one."""

    frames: int
    steps: int
    updates: int
    episodes: int
    seconds: float  # of training, sittings before a resume included
    frames_per_second: float
    updates_per_second: float
    mean_score: float | None  # of the last 100 training episodes
    mean_length: float | None  # of those, in steps
    best_score: float | None  # best mean of 100 so far
    learning_rate: float
    staleness: float  # mean over the last interval
    stats: dict[str, float]  # losses, entropy, gradient norm: means over the last interval
    evaluated_score: float | None
    workers: tuple[WorkerProgress, ...] = ()
    timeouts: int = 0  # waits of one worker for another that were given up (locked and synchronous updates)

    def as_row(self) -> dict[str, Any]:
        """Return what a line of `metrics.jsonl` holds."""
        row = {name: value for name, value in vars(self).items() if name not in ("stats", "workers")}
        return {**row, **self.stats}


@dataclass
class Gatherer:
    """Sums what the workers report between two rows."""

    recent: deque = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))  # (score, steps)
    by_worker: dict[int, deque] = field(default_factory=dict)
    best_score: float | None = None
    updates: int = 0
    sums: Tally = field(default_factory=Tally)
    staleness: Tally = field(default_factory=Tally)
    _before: tuple[dict[str, float], float] = ({}, 0.0)  # stats and mean staleness of the interval before

    def add(self, report: Report) -> None:
        """Take in one worker's report."""
        self.updates += report.updates
        self.sums.update({name: value * report.updates for name, value in report.stats.items()})
        self.staleness.update(report.staleness)
        for episode in report.episodes:
            self.recent.append((episode.score, episode.steps))
            self.by_worker.setdefault(report.worker, deque(maxlen=RECENT_EPISODES)).append(episode.score)
        if len(self.recent) == RECENT_EPISODES:
            self.best_score = max(self.best_score if self.best_score is not None else -math.inf, self.mean_score or 0.0)

    @property
    def mean_score(self) -> float | None:
        """Mean raw score of the last 100 episodes."""
        return sum(score for score, _ in self.recent) / len(self.recent) if self.recent else None

    @property
    def mean_length(self) -> float | None:
        """Mean length of the last 100 episodes, in steps."""
        return sum(steps for _, steps in self.recent) / len(self.recent) if self.recent else None

    def latest_mean(self, episodes: int) -> float | None:
        """Return the mean score of the last `episodes`, or None while there are fewer."""
        scores = [score for score, _ in self.recent][-episodes:]
        return sum(scores) / episodes if len(scores) == episodes else None

    def worker_mean(self, worker: int) -> float | None:
        """Return the mean score of one worker's last episodes."""
        scores = self.by_worker.get(worker)
        return sum(scores) / len(scores) if scores else None

    @property
    def stats(self) -> dict[str, float]:
        """Means of the logged numbers over the present interval, or the one before while this one is empty."""
        return {name: value / self.updates for name, value in self.sums.items()} if self.updates else self._before[0]

    @property
    def mean_staleness(self) -> float:
        """Mean staleness over the present interval, in updates of others, or over the one before."""
        if not self.staleness:
            return self._before[1]
        return sum(lag * count for lag, count in self.staleness.items()) / self.staleness.total()

    def next_interval(self) -> None:
        """Begin a new interval; recent episodes stay."""
        self._before = (self.stats, self.mean_staleness)
        self.updates, self.sums, self.staleness = 0, Tally(), Tally()


WARNING_SECONDS = 600.0  # between two complaints about rows that could not be written


class RunLog:
    """The files a run grows: `metrics.jsonl`, `episodes.jsonl`, TensorBoard events. The trainer opens and closes it.

    A row that cannot be written is lost and announced; no training ends for that.

    Args:
        run_dir: of the run.
        announce: called with a line.

    Raises:
        UserError: if the files cannot be opened.
    """

    def __init__(self, run_dir: Path, announce: Callable[[str], None]) -> None:
        self._run_dir, self._announce = run_dir, announce
        self._warned = -math.inf  # monotonic seconds of the last complaint
        self._order: Journal | None = None  # opened with the first event
        self._order_file = record_file(run_dir, int(time.time()))
        self._events: Events | None = None  # opened with the first row
        self._has_events: bool | None = None  # unknown before the first row
        try:
            with contextlib.ExitStack() as opened:
                self._metrics = JsonLines(run_dir / "metrics.jsonl")
                opened.callback(self._metrics.close)
                self._episodes = JsonLines(run_dir / "episodes.jsonl")
                opened.pop_all()
        except OSError as error:
            raise UserError(f"cannot write to {run_dir}: {error.strerror}") from None

    def episodes(self, report: Report, frames: int, seconds: float) -> None:
        """Keep one row per episode of `report`."""
        rows = []
        for episode in report.episodes:
            row = {"worker": report.worker, **episode._asdict(), "at_frames": frames, "at_seconds": round(seconds, 2)}
            if episode.final_epsilon is None:  # no Q method
                del row["final_epsilon"]
            rows.append(row)
        if rows:
            with self._forgiving():
                self._episodes.write(*rows)

    def order(self, report: Report) -> None:
        """Keep the pulls and pushes of `report`, if its worker noted them."""
        if report.events:
            with self._forgiving():
                self._order = self._order or Journal(self._order_file)
                self._order.write(np.array(report.events, RECORD).tobytes())

    def progress(self, progress: Progress, staleness: dict[int, int]) -> None:
        """Keep one row of metrics, with the histogram of staleness."""
        histogram = {str(lag): count for lag, count in sorted(staleness.items())}
        row = progress.as_row()
        with self._forgiving():
            self._metrics.write({"time": round(time.time(), 2), **row, "staleness_histogram": histogram})
        numbers = {name: x for name, x in row.items() if isinstance(x, int | float) and name not in ("frames", "steps")}
        self._scalars(numbers, progress.frames)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Keep one evaluation."""
        with self._forgiving():
            self._metrics.write({"time": round(time.time(), 2), **row})
        self._scalars({"evaluated_score": row["evaluated_score"]}, row["frames"])

    def close(self) -> None:
        """Close all files."""
        for journal in (self._metrics, self._episodes, self._order, self._events):
            if journal is not None:
                journal.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        with self._forgiving():
            if self._can_import_events():
                self._events = self._events or Events(self._run_dir / "tensorboard")
                self._events.scalars(values, step)

    def _can_import_events(self) -> bool:
        if self._has_events is None:
            try:
                event_types()
                self._has_events = True
            except Exception as error:  # whatever it is, as where packages do not fit together
                self._has_events = False
                why = " ".join(f"{type(error).__name__}: {error}".split())
                self._announce(f"no events for TensorBoard are written, as it cannot be imported: {why}")
        return self._has_events

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if time.monotonic() - self._warned >= WARNING_SECONDS:
                self._warned = time.monotonic()
                self._announce(
                    f"cannot write to {self._run_dir}: {error.strerror or error}; "
                    "the training goes on, without what it would have logged"
                )
