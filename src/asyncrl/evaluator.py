"""Evaluation while training goes on: full episodes on a snapshot, in a process of its own."""

import contextlib
import statistics as stats
import sys
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from asyncrl.children import kill, start_process
from asyncrl.config import Config
from asyncrl.evaluate import evaluate
from asyncrl.flat import flatten_parameters_
from asyncrl.inputs import InputStatistics, statistics_of
from asyncrl.networks import make_network
from asyncrl.processes import end_children, last_line, prepare_process
from asyncrl.store import Counter, ParameterStore

MAX_FAILURES = 5  # in a row, after which there are no more evaluations
PAUSE_SECONDS = 15.0  # after the first failure; each time twice as long
HANG_SECONDS = 600.0  # without a step, environments being built included: a machine may be very busy
BEAT_SECONDS = 5.0  # between two signs of life
LOOK_SECONDS = 10.0  # at least, between evaluations that only look whether a Q method may stop ...
LOOK_SHARE = 0.15  # ... and at most this share of the time
STALL_SECONDS = 10.0  # between two looks of the trainer: it was stopped itself (Ctrl-Z), and the evaluation with it


@dataclass(frozen=True)
class Evaluation:
    """Scores of full episodes played by one snapshot."""

    scores: tuple[float, ...]
    frames: int  # of training at the snapshot
    seconds: float  # of training at the snapshot
    parameters: np.ndarray = field(repr=False)  # [P], the snapshot's
    input_sums: np.ndarray | None = field(repr=False)  # [1 + 2 D], the snapshot's, where they are measured

    def restore(self, store: ParameterStore) -> None:
        """Make the snapshot that was played the store's parameters again, once no worker writes there any more."""
        store.theta.copy_(torch.from_numpy(self.parameters))
        if store.inputs is not None and self.input_sums is not None:
            store.inputs.restore(self.input_sums)

    @property
    def mean(self) -> float:
        """Mean raw score."""
        return stats.fmean(self.scores)

    def as_row(self) -> dict[str, Any]:
        """Return what is logged."""
        return {
            "evaluated_score": self.mean,
            "evaluated_deviation": stats.pstdev(self.scores),
            "evaluated_episodes": len(self.scores),
            "frames": self.frames,
            "seconds": self.seconds,
        }

    def as_line(self) -> str:
        """Return what is announced."""
        minutes, seconds = divmod(round(self.seconds), 60)
        return (
            f"evaluated {self.mean:.2f} +- {stats.pstdev(self.scores):.2f} over {len(self.scores)} full episodes "
            f"at {self.frames:,} frames, {minutes}:{seconds:02d}"
        )


class Evaluator:
    """At most one evaluation at a time; the trainer starts it, takes what it found, and stops it.

    One that fails or hangs is announced and tried again after a pause, but not for ever: training does not need it.
    """

    def __init__(self, config: Config, context: BaseContext, spaces_: tuple[spaces.Space, spaces.Space]) -> None:
        self.config, self.context, self.spaces = config, context, spaces_
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._played: tuple[int, float, np.ndarray, np.ndarray | None] | None = None  # the snapshot, as in Evaluation
        self._unstarted: str | None = None  # why there is no process
        self._count = 0
        self._failures = 0  # in a row
        self._next = 0.0  # monotonic seconds before which nothing is tried again
        self._heard = self._looked = 0.0  # when it last gave a sign of life, and when we last looked for one
        self._started = time.monotonic()
        self._took = 0.0  # seconds, the last one that succeeded

    @property
    def ready(self) -> bool:
        """Whether an evaluation may start: none runs, and the last one has not failed just now, or too often."""
        is_free = self._process is None and self._unstarted is None
        return is_free and self._failures < MAX_FAILURES and time.monotonic() >= self._next

    def is_due(self, recent_score: float | None) -> bool:
        """Whether to start one now, `recent_score` being the mean of the latest training episodes."""
        if not self.ready:
            return False
        goal, seconds = self.config.stop_at_score, time.monotonic() - self._started
        if goal is not None and recent_score is not None and recent_score >= goal:
            return True
        if self.config.eval_every is not None:
            return seconds >= self.config.eval_every
        # Q methods explore with an epsilon of up to 0.5: their training scores do not tell when to look.
        looks = goal is not None and not self.config.is_actor_critic
        return looks and seconds >= max(LOOK_SECONDS, self._took / LOOK_SHARE)

    def start(self, store: ParameterStore, statistics: InputStatistics | None, seconds: float) -> None:
        """Evaluate the parameters as they are now.

        Args:
            store: of the run.
            statistics: of the inputs, where the store does not measure them.
            seconds: of training until now.
        """
        sums = None if store.inputs is None else store.inputs.merged()
        statistics = statistics if sums is None else statistics_of(sums)
        self._played = (store.total(Counter.FRAMES), seconds, store.theta.numpy().copy(), sums)
        self._count += 1
        self._heard = self._looked = self._started = time.monotonic()
        try:
            self._pipe, theirs = self.context.Pipe(duplex=False)
            with contextlib.closing(theirs):
                args = (self.config, self.spaces, statistics, self._played[2], self._count, theirs)
                self._process = start_process(self.context, run_evaluation, args, "asyncrl-evaluator")
        except (OSError, EOFError) as error:  # no more processes, memory or files, or a server that has died
            self._unstarted = f"the evaluation could not be started: {str(error) or 'its server ended'}"

    def take(self) -> Evaluation | str | None:
        """Return a finished evaluation, or a line that says what went wrong, or None if there is nothing yet."""
        result = self._receive()
        if result is None:
            return None
        self.stop()
        if isinstance(result, str):
            return self._failed(result)
        assert self._played is not None
        self._failures, self._took = 0, time.monotonic() - self._started
        return Evaluation(tuple(result), *self._played)

    def _receive(self) -> list[float] | str | None:
        """Return scores, or what went wrong, or None while the evaluation goes on."""
        if self._unstarted is not None:
            return self._unstarted
        if self._pipe is None or self._process is None:
            return None
        now = time.monotonic()
        if now - self._looked > STALL_SECONDS:
            self._heard = now
        self._looked = now
        alive = self._process.is_alive()  # asked first: who has ended has said all
        try:
            while self._pipe.poll():
                if (result := self._pipe.recv()) is not None:
                    return result
                self._heard = now
        except (EOFError, OSError):
            alive = False
        if not alive:
            self._process.join(1.0)  # for its exit code
            return f"the evaluation ended with exit code {self._process.exitcode}"
        return f"the evaluation made no step for {HANG_SECONDS:.0f} s" if now - self._heard > HANG_SECONDS else None

    def _failed(self, line: str) -> str:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            return f"{line}: {self._failures} failures in a row, the training goes on without evaluations"
        pause = PAUSE_SECONDS * 2 ** (self._failures - 1)
        self._next = time.monotonic() + pause
        return f"{line}: trying again in {pause:.0f} s ({self._failures} of {MAX_FAILURES})"

    def stop(self) -> None:
        """End a running evaluation."""
        if self._process is not None:
            kill(self._process)
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = self._unstarted = None


def run_evaluation(
    config: Config,
    spaces_: tuple[spaces.Space, spaces.Space],
    statistics: InputStatistics | None,
    parameters: np.ndarray,
    count: int,
    pipe: Connection,
) -> None:
    """Be an evaluator process: play, give signs of life (None), send the scores or an error's line, end."""
    prepare_process()
    sent = time.monotonic()

    def beat() -> None:
        nonlocal sent
        if time.monotonic() - sent > BEAT_SECONDS:
            pipe.send(None)
            sent = time.monotonic()

    try:
        network = make_network(config, *spaces_, statistics)
        flatten_parameters_(network).numpy()[:] = parameters
        seed = int(np.random.SeedSequence(config.seed, spawn_key=(10_000, count)).generate_state(1)[0] >> 1)
        episodes = evaluate(config, network, episodes=config.eval_episodes, seed=seed, beat=beat)
        pipe.send([episode.score for episode in episodes])
    except BrokenPipeError:
        sys.exit(1)
    except Exception:
        pipe.send(f"the evaluation failed: {last_line(traceback.format_exc())}")
    finally:
        end_children()
