"""Where a worker's time goes: clocks put around its real calls from outside, so that normal training has none."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from asyncrl import worker
from asyncrl.store import ParameterStore
from asyncrl.torsos import Standardize
from asyncrl.worker import Learner

# What the time of an agent step is divided into, in the order of a pass of Algorithm S3's loop.
SPANS = {
    "pull": "the snapshot, copied from the shared parameters",
    "preprocessing": "bytes to scaled floats, for acting and for training (with our kernels: part of both)",
    "acting": "forward pass for the actions, and to value what was cut",
    "sampling": "draws from the policy",
    "environment": "the game, its preprocessing and the stack of frames",
    "training": "forward pass and losses of the rollout",
    "backward": "the gradient",
    "push": "clip, optimiser step on the shared parameters, counters",
    "bookkeeping": "all else: copies into the rollout, episodes, Python",
}


class Spans:
    """One clock that always runs for exactly one span: the innermost call that is timed."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(SPANS, 0.0)
        self._current, self._since = "bookkeeping", time.perf_counter()

    def timed(self, name: str, function: Callable) -> Callable:
        """Return `function` with its time, but for timed calls within, counted for the span `name`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            outer = self._switch(name)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch(outer)

        return call

    def take(self) -> dict[str, float]:
        """Return the seconds of each span since the last time."""
        self._switch(self._current)
        taken, self._seconds = self._seconds, dict.fromkeys(SPANS, 0.0)
        return taken

    def _switch(self, name: str) -> str:
        now = time.perf_counter()
        self._seconds[self._current] += now - self._since
        before, self._current, self._since = self._current, name, now
        return before


def time_learner_(learner: Learner, store: ParameterStore, spans: Spans) -> None:
    """Put clocks around what `learner` calls. For good: also around functions of this process's `worker` module."""
    algorithm, envs = learner.algorithm, learner.state.envs
    learner.algorithm = dataclasses.replace(
        algorithm, choose=spans.timed("sampling", algorithm.choose), loss=spans.timed("training", algorithm.loss)
    )
    envs.step = spans.timed("environment", envs.step)
    learner.act = spans.timed("acting", learner.act)
    learner.value = spans.timed("acting", learner.value)
    learner.pull = spans.timed("pull", learner.pull)
    store.apply = spans.timed("push", store.apply)
    for network in (learner.network, learner.target):
        for module in () if network is None else network.modules():
            if isinstance(module, Standardize):
                module.forward = spans.timed("preprocessing", module.forward)
    worker.flat_gradient = spans.timed("backward", worker.flat_gradient)
    worker.clip_global_norm_ = spans.timed("push", worker.clip_global_norm_)
