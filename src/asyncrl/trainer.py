"""The trainer: starts workers, watches them, restarts the dead, keeps what they learn, and stops them cleanly."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asyncrl.a2c import batched, make_batched_worker
from asyncrl.checkpoint import Checkpoint, restore_store
from asyncrl.children import make_context, require_parenthood, start_early
from asyncrl.config import Config
from asyncrl.evaluator import Evaluation, Evaluator
from asyncrl.flat import flatten_parameters_
from asyncrl.inputs import statistics_of
from asyncrl.metrics import RECENT_EPISODES, Gatherer, Progress, RunLog, WorkerProgress
from asyncrl.networks import set_input_statistics_
from asyncrl.pool import WorkerPool
from asyncrl.processes import Report, handling_signals
from asyncrl.saving import Saving
from asyncrl.simulate import Simulation
from asyncrl.spaces_json import encode_space, plain_space
from asyncrl.start import fresh_start, make_store, require_kernels, restored_start
from asyncrl.store import Counter

LOG_SECONDS = 10.0
SHOW_SECONDS = 0.5
RECENT_FOR_STOPPING = 30
_SPACES = ("observation", "action")


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    reason: str  # "frames", "time", "score", "order" (replayed to its end) or "interrupted"
    progress: Progress
    evaluation: Evaluation | None  # the last one


class Trainer:
    """One training, from fresh or restored parameters to the last checkpoint.

    Args:
        config: of the run.
        run_dir: must exist when `run` is called; nothing is written to it before.
        show: called twice a second with the progress.
        announce: called with a line of text when something worth telling happens.
        checkpoint: to go on from.
        context: start method of the processes.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        *,
        show: Callable[[Progress], None],
        announce: Callable[[str], None],
        checkpoint: Checkpoint | None = None,
        context: BaseContext | None = None,
    ) -> None:
        config = batched(config) if config.algo == "a2c" else config
        require_kernels(config)
        self.config, self.run_dir, self.show, self.announce = config, run_dir, show, announce
        self.saving = Saving(run_dir / "checkpoints", announce)
        if context is None:
            context = make_context(config.env)
            evaluates = config.eval_every is not None or config.stop_at_score is not None
            if evaluates or not config.is_in_one_process:
                require_parenthood()
            if not config.is_in_one_process:
                start_early(context, config.env)
        start = fresh_start(config) if checkpoint is None else restored_start(config, checkpoint)
        self.spaces, self.network, self.statistics = start.spaces, start.network, start.statistics
        self.store = make_store(config, start, None if config.is_in_one_process else context)
        self.theta = flatten_parameters_(self.network)  # [P]; the trainer's own copy, for checkpoints
        state: dict[str, Any] = {"seconds": 0.0, "generation": -1, "best_score": None}
        if checkpoint is not None:
            restore_store(self.store, checkpoint)
            state = checkpoint.state
        self.seconds_before = state["seconds"]
        self.gatherer = Gatherer(best_score=state["best_score"])
        self.interrupted = False
        self.pool = self._make_pool(context, state["generation"] + 1, state.get("order_position", 0))
        observations, actions = map(plain_space, self.spaces)  # whose class may be one of the user's script
        self.evaluator = Evaluator(config, context, (observations, actions))
        self.evaluation: Evaluation | None = None
        self._best_saved = self.saving.best_score(state["best_score"])
        self._timeouts = self.store.total(Counter.TIMEOUTS)
        self.started = time.monotonic()
        self._begin_rates()

    def _make_pool(self, context: BaseContext, generation: int, position: int) -> WorkerPool | Simulation:
        """Return who does the work. Only this, and what it has to say about checkpoints, differs between schedules."""
        args = (self.config, self.store, self.statistics)
        if self.config.algo == "a2c":
            return make_batched_worker(*args, generation, lambda: self.interrupted)
        if self.config.schedule == "simulated":
            return Simulation(*args, generation, position=position, is_interrupted=lambda: self.interrupted)
        return WorkerPool(*args, context, generation, self.announce)

    @property
    def seconds(self) -> float:
        """Seconds of training, sittings before a resume included."""
        return self.seconds_before + time.monotonic() - self.started

    def run(self) -> Outcome:
        """Train until done; whatever happens, leave a checkpoint and no process.

        Raises:
            UserError: if workers keep failing (carries the last error's line, the traceback having been announced), or
                checkpoints cannot be written.
        """
        self.log = RunLog(self.run_dir, self.announce)
        self.started = time.monotonic()
        self._begin_rates()
        with handling_signals(self._interrupt):
            try:
                self.pool.start()
                reason = self._watch()
            finally:
                self._stop()
        return Outcome(reason, self.progress(), self.evaluation)

    def _interrupt(self) -> None:
        self.interrupted = True

    def _watch(self) -> str:
        """Serve workers until there is a reason to stop; return it."""
        shown = logged = saved = time.monotonic()
        while (reason := self._reason_to_stop()) is None:
            self._take(self.pool.poll(timeout=0.2))
            self.pool.require_health()
            now = time.monotonic()
            if now - shown >= SHOW_SECONDS:
                self.show(self.progress())
                self._announce_timeouts()
                shown = now
            if now - logged >= LOG_SECONDS:
                self._log_interval()
                logged = now
            if self.pool.wants_checkpoint(now - saved, self._is_best()):
                self._save()
                saved = now
            if self.evaluator.is_due(self.gatherer.latest_mean(RECENT_FOR_STOPPING)):
                self.evaluator.start(self.store, self.statistics, self.seconds)
            self._take_evaluation()
        return reason

    def _take(self, reports: list[Report]) -> None:
        for report in reports:
            self.gatherer.add(report)
            self.log.episodes(report, self.store.total(Counter.FRAMES), self.seconds)
            self.log.order(report)

    def _reason_to_stop(self) -> str | None:
        config = self.config
        if self.interrupted:
            return "interrupted"
        if self.store.total(Counter.FRAMES) >= config.frames:
            return "frames"
        if self.pool.exhausted:
            return "order"
        if config.max_time is not None and self.seconds >= config.max_time:
            return "time"
        return "score" if self._has_reached_goal() else None

    def _has_reached_goal(self) -> bool:
        goal = self.config.stop_at_score
        return goal is not None and self.evaluation is not None and self.evaluation.mean >= goal

    def _take_evaluation(self) -> None:
        evaluation = self.evaluator.take()
        if evaluation is None:
            return
        if isinstance(evaluation, str):
            self.announce(evaluation)
            return
        self.evaluation = evaluation
        self.log.evaluation(evaluation.as_row())
        self.announce(evaluation.as_line())

    def _announce_timeouts(self) -> None:
        timeouts = self.store.total(Counter.TIMEOUTS)
        if timeouts > self._timeouts:
            self.announce(f"{timeouts - self._timeouts} wait(s) for a worker timed out: the others went on without it")
        self._timeouts = timeouts

    def _log_interval(self) -> None:
        self.log.progress(self.progress(), dict(self.gatherer.staleness))
        self.gatherer.next_interval()

    def _stop(self) -> None:
        """Stop all work, write what is left (the last metrics and the last checkpoint), end every process."""
        try:
            self._end_work()
        finally:
            try:
                self.evaluator.stop()
                self.log.close()
            finally:  # last, as it may take its time, and a second Ctrl-C may cut it short
                self.pool.close(hurries=self.interrupted)

    def _end_work(self) -> None:
        """Let workers end, and write the last checkpoint whatever fails before; a second Ctrl-C waits for nothing."""
        reports = None
        try:
            reports = self.pool.stop()
            self._take(reports)
            self._log_interval()
        except Exception:
            self._save_last(has_stopped=reports is not None)
            raise
        self._save_last(has_stopped=True)

    def _save_last(self, *, has_stopped: bool) -> None:
        if has_stopped and self._has_reached_goal() and self.evaluation is not None:
            self.evaluation.restore(self.store)  # others have learned on; what is kept is what was evaluated
        self._save(is_last=True)

    def _save(self, *, is_last: bool = False) -> None:
        is_best = self._is_best()
        best = self.gatherer.mean_score if is_best else self._best_saved
        self.theta.copy_(self.store.theta)
        learned: list[Tensor] = [p for p in self.network.parameters() if p.requires_grad]
        if self.store.inputs is not None:
            statistics = statistics_of(self.store.inputs.merged())
            set_input_statistics_(self.network, statistics)
            learned += map(torch.from_numpy, statistics)
        if not all(bool(numbers.isfinite().all()) for numbers in learned):
            self.announce("no checkpoint is kept: the parameters are no finite numbers any more")
            return
        if self.saving.save(self.store, self.network, self._state(best), is_best=is_best, is_last=is_last):
            self._best_saved = best

    def _is_best(self) -> bool:
        """Whether the mean of the last 100 training episodes beats that of the best checkpoint."""
        mean = self.gatherer.latest_mean(RECENT_EPISODES)
        return mean is not None and (self._best_saved is None or mean > self._best_saved)

    def _state(self, best_score: float | None) -> dict:
        return {
            "env": self.config.env,
            "algo": self.config.algo,
            "spaces": {name: encode_space(space) for name, space in zip(_SPACES, self.spaces, strict=True)},
            "frames": self.store.total(Counter.FRAMES),
            "seconds": self.seconds,
            "counters": self.store.counters.tolist(),
            "best_score": best_score,
            **self.pool.checkpoint_state(),
            "evaluation": None if self.evaluation is None else self.evaluation.as_row(),
        }

    def progress(self) -> Progress:
        """Return where the run stands now."""
        rates = self._rates()
        totals = self.store.counters.sum(0)
        return Progress(
            frames=int(totals[Counter.FRAMES]),
            steps=int(totals[Counter.STEPS]),
            updates=int(totals[Counter.UPDATES]),
            episodes=int(totals[Counter.EPISODES]),
            seconds=self.seconds,
            frames_per_second=float(rates[:, Counter.FRAMES].sum()),
            updates_per_second=float(rates[:, Counter.UPDATES].sum()),
            mean_score=self.gatherer.mean_score,
            mean_length=self.gatherer.mean_length,
            best_score=self.gatherer.best_score,
            learning_rate=self.store.learning_rate(),
            staleness=self.gatherer.mean_staleness,
            timeouts=int(totals[Counter.TIMEOUTS]),
            stats=self.gatherer.stats,
            evaluated_score=None if self.evaluation is None else self.evaluation.mean,
            workers=tuple(self._worker_progress(worker, rates) for worker in range(self.config.workers)),
        )

    def _begin_rates(self) -> None:
        self._before = self.store.counters.copy()
        self._marks = deque([(self.started, self._before)])

    def _rates(self) -> np.ndarray:
        """Return counts per second [W + 1, Counter] over about the last ten seconds."""
        now, counters = time.monotonic(), self.store.counters.copy()
        if (counters == self._before).all():
            self._marks.clear()  # workers that still start are not slow
        self._marks.append((now, counters))
        while len(self._marks) > 2 and now - self._marks[1][0] >= LOG_SECONDS:
            self._marks.popleft()
        (then, before), (_, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(now - then, SHOW_SECONDS)

    def _worker_progress(self, worker: int, rates: np.ndarray) -> WorkerProgress:
        counters = self.store.counters[worker]
        updates = int(counters[Counter.UPDATES])
        return WorkerProgress(
            worker=worker,
            state=self.pool.state(worker),
            frames=int(counters[Counter.FRAMES]),
            frames_per_second=float(rates[worker, Counter.FRAMES]),
            updates=updates,
            mean_score=self.gatherer.worker_mean(worker),
            staleness=counters[Counter.STALENESS] / max(updates, 1),
            restarts=self.pool.restarts(worker),
        )
