"""Evaluation while training goes on: full episodes on a snapshot, in a process of its own."""

import statistics as stats
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from gymnasium import spaces

from asyncrl.config import Config
from asyncrl.evaluate import evaluate
from asyncrl.inputs import InputStatistics
from asyncrl.networks import flatten_parameters_, make_network
from asyncrl.processes import last_line, prepare_process, start_process
from asyncrl.store import Counter, ParameterStore


@dataclass(frozen=True)
class Evaluation:
    """Scores of full episodes played by one snapshot."""

    scores: tuple[float, ...]
    frames: int  # of training at the snapshot
    seconds: float  # of training at the snapshot

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
    """At most one evaluation at a time; the trainer starts it, takes what it found, and stops it."""

    def __init__(self, config: Config, context: BaseContext, spaces_: tuple[spaces.Space, spaces.Space]) -> None:
        self.config, self.context, self.spaces = config, context, spaces_
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._moment = (0, 0.0)  # frames and seconds at the snapshot
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether an evaluation runs."""
        return self._process is not None

    def start(self, store: ParameterStore, statistics: InputStatistics | None, seconds: float) -> None:
        """Evaluate the parameters as they are now."""
        self._moment = (store.total(Counter.FRAMES), seconds)
        self._count += 1
        self._pipe, theirs = self.context.Pipe(duplex=False)
        args = (self.config, self.spaces, statistics, store.theta.numpy().copy(), self._count, theirs)
        self._process = start_process(self.context, run_evaluation, args, "asyncrl-evaluator")
        theirs.close()

    def take(self) -> Evaluation | str | None:
        """Return a finished evaluation, or the line of an error, or None if there is nothing yet."""
        if self._pipe is None or self._process is None:
            return None
        if not self._pipe.poll() and self._process.is_alive():
            return None
        try:
            result = self._pipe.recv()
        except EOFError:
            result = f"the evaluation ended with exit code {self._process.exitcode}"
        self.stop()
        if isinstance(result, str):
            return result
        return Evaluation(tuple(result), *self._moment)

    def stop(self) -> None:
        """End a running evaluation."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def run_evaluation(
    config: Config,
    spaces_: tuple[spaces.Space, spaces.Space],
    statistics: InputStatistics | None,
    parameters: np.ndarray,
    count: int,
    pipe: Connection,
) -> None:
    """Be an evaluator process: play, send the scores or an error's line, end."""
    prepare_process()
    try:
        network = make_network(config, *spaces_, statistics)
        flatten_parameters_(network).numpy()[:] = parameters
        seed = int(np.random.SeedSequence(config.seed, spawn_key=(10_000, count)).generate_state(1)[0] >> 1)
        episodes = evaluate(config, network, episodes=config.eval_episodes, seed=seed)
        pipe.send([episode.score for episode in episodes])
    except BrokenPipeError:
        sys.exit(1)
    except Exception:
        pipe.send(f"the evaluation failed: {last_line(traceback.format_exc())}")
