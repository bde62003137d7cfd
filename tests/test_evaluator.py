"""Evaluation in a process of its own: the snapshot is played, failures pause and end, hangs are noticed."""

import dataclasses
import time
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

import asyncrl
from asyncrl import evaluator as module
from asyncrl.children import make_context
from asyncrl.config import Config
from asyncrl.evaluator import Evaluation, Evaluator
from asyncrl.flat import flatten_parameters_
from asyncrl.start import fresh_start
from asyncrl.store import ParameterStore, StoreSpec

TINY = Config(env="worlds:tiny", workers=1, envs_per_worker=1, frames=10**9, eval_episodes=7)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Bench:
    """An evaluator, and a store with theta = 0: every action is as likely."""

    def __init__(self, config: Config) -> None:
        self.begin = fresh_start(config)
        count = sum(p.numel() for p in self.begin.network.parameters())
        self.context = make_context("ALE/Pong-v5")
        self.store = ParameterStore(StoreSpec.of(config, count), config, self.context)
        self.evaluator = Evaluator(config, self.context, self.begin.spaces)

    def play(self) -> Evaluation | str:
        self.evaluator.start(self.store, self.begin.statistics, 12.0)
        assert not self.evaluator.ready
        deadline = time.monotonic() + 60
        while (found := self.evaluator.take()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found


def test_the_snapshot_is_played():
    bench = Bench(TINY)
    found = bench.play()
    assert isinstance(found, Evaluation)
    assert len(found.scores) == 7 and all(0 <= score <= 4 for score in found.scores) and found.seconds == 12.0
    assert found.as_row()["evaluated_score"] == pytest.approx(np.mean(found.scores))
    assert bench.evaluator.ready
    bench.store.theta.fill_(1.0)
    found.restore(bench.store)
    assert (bench.store.theta == 0).all()


def test_vectors_of_two_dimensions_are_standardized_there_too():
    def make() -> gymnasium.Env:
        return gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 4)

    settings = {"workers": 1, "eval_every": 0.1, "eval_episodes": 2, "stop_at_score": 1.0, "announce": str}
    run = asyncrl.train(make, frames=10**9, run_dir="run", **settings)
    assert run.config.standardize_inputs
    assert run.outcome is not None and run.outcome.reason == "score"


@pytest.mark.parametrize(
    ("settings", "recent", "waits"),
    [
        ({}, 10.0, None),
        ({"stop_at_score": 3.0}, None, None),
        ({"stop_at_score": 3.0}, 2.9, None),
        ({"stop_at_score": 3.0}, 3.0, 0),
        ({"eval_every": 60.0}, None, 60),
        ({"eval_every": 60.0, "stop_at_score": 3.0}, 3.0, 0),
        ({"stop_at_score": 3.0, "algo": "n-step-q"}, 2.0, 200),  # the last one took 30 seconds
    ],
)
def test_when_an_evaluation_is_due(monkeypatch, settings, recent, waits):
    now = 1_000.0
    monkeypatch.setattr(module, "time", Clock(lambda: now))
    evaluator = Evaluator(dataclasses.replace(TINY, **settings), make_context("ALE/Pong-v5"), None)
    evaluator._took = 30.0
    for seconds in range(1_000):
        now = 1_000.0 + seconds
        if evaluator.is_due(recent):
            break
    assert (None if seconds == 999 else seconds) == waits


def test_failures_pause_longer_and_longer_and_then_there_are_no_more(monkeypatch):
    monkeypatch.setattr(module, "MAX_FAILURES", 3)
    bench, told, clock = Bench(dataclasses.replace(TINY, env="worlds:broken")), [], time.monotonic()
    monkeypatch.setattr(module, "time", Clock(lambda: clock))
    monkeypatch.setattr(module, "start_process", lambda *_: Ended())
    for pause in (15, 30, None):
        bench.evaluator.start(bench.store, None, 0.0)
        told.append(bench.evaluator.take())
        assert not bench.evaluator.ready
        clock += (pause or 10**6) - 1
        assert not bench.evaluator.ready
        clock += 1
        assert bench.evaluator.ready is (pause is not None)
    assert told == [
        "the evaluation ended with exit code 3: trying again in 15 s (1 of 3)",
        "the evaluation ended with exit code 3: trying again in 30 s (2 of 3)",
        "the evaluation ended with exit code 3: 3 failures in a row, the training goes on without evaluations",
    ]


def test_one_that_cannot_be_started_is_told_and_tried_again(monkeypatch):
    bench = Bench(TINY)

    def fail(*_):
        raise BrokenPipeError(32, "Broken pipe")  # of a child that was killed before it had read its arguments

    with monkeypatch.context() as patch:
        patch.setattr(module, "start_process", fail)
        found = bench.play()
    assert found == "the evaluation could not be started: [Errno 32] Broken pipe: trying again in 15 s (1 of 5)"
    assert bench.evaluator.take() is None and not bench.evaluator.ready
    bench.evaluator._next = 0.0
    assert isinstance(bench.play(), Evaluation)


class Clock:
    """A stand-in for the module `time`."""

    def __init__(self, monotonic) -> None:
        self.monotonic = monotonic


class Ended:
    """A process that has ended without a word."""

    exitcode = 3

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None: ...

    def kill(self) -> None: ...


def test_an_environment_that_raises_is_told():
    found = Bench(dataclasses.replace(TINY, env="worlds:broken")).play()
    assert found == "the evaluation failed: RuntimeError: the ball is lost: trying again in 15 s (1 of 5)"


def test_success_forgives():
    bench = Bench(TINY)
    bench.evaluator._failures = 4
    assert isinstance(bench.play(), Evaluation)
    assert bench.evaluator._failures == 0


def test_an_evaluation_gives_signs_of_life(monkeypatch):
    sent = []
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.0)
    for name in ("prepare_process", "end_children"):  # this process is the test's
        monkeypatch.setattr(module, name, lambda: None)
    begin = fresh_start(TINY)
    theta = flatten_parameters_(begin.network).numpy()
    module.run_evaluation(TINY, begin.spaces, begin.statistics, theta, 0, SimpleNamespace(send=sent.append))  # type: ignore[arg-type]
    assert len(sent) > 4 and set(sent[:-1]) == {None} and len(sent[-1]) == TINY.eval_episodes


def test_a_hanging_evaluation_is_ended(monkeypatch):
    monkeypatch.setattr(module, "HANG_SECONDS", 3.0)
    bench = Bench(dataclasses.replace(TINY, env="worlds:hangs"))
    found = bench.play()
    assert found == "the evaluation made no step for 3 s: trying again in 15 s (1 of 5)"
    assert bench.evaluator._process is None


def test_signs_of_life_and_pauses_of_the_trainer_itself_keep_an_evaluation_alive(monkeypatch):
    now = 0.0
    monkeypatch.setattr(module, "time", Clock(lambda: now))
    bench = Bench(TINY)
    theirs = []
    monkeypatch.setattr(module, "start_process", lambda context, target, args, name: theirs.append(args[-1]) or Alive())
    pipes = bench.context.Pipe(duplex=False)
    monkeypatch.setattr(bench.context, "Pipe", lambda duplex: (pipes[0], Unclosed(pipes[1])))
    bench.evaluator.start(bench.store, None, 0.0)
    for _ in range(1_000):  # for hours it is slow
        now += 9.0
        pipes[1].send(None)
        assert bench.evaluator.take() is None
    now += 10**6  # Ctrl-Z
    assert bench.evaluator.take() is None
    for _ in range(70):
        now += 9.0
        found = bench.evaluator.take()
        if found is not None:
            break
    assert isinstance(found, str) and "made no step for 600 s" in found


class Alive(Ended):
    pid = None

    def is_alive(self) -> bool:
        return True


class Unclosed:
    """An end of a pipe that its starter's closing does not close."""

    def __init__(self, pipe) -> None:
        self.pipe = pipe

    def close(self) -> None: ...


def test_training_goes_on_without_evaluations(monkeypatch):
    monkeypatch.setattr(module, "MAX_FAILURES", 2)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(module.Evaluator, "_receive", lambda self: "it fell" if self._process is not None else None)
    told = []
    config = dataclasses.replace(TINY, stop_at_score=-1.0, eval_every=0.1, max_time=8.0)
    run = asyncrl.train(config=config, run_dir="run", announce=told.append)
    assert run.outcome is not None and run.outcome.reason == "time"
    assert [line for line in told if line.startswith("it fell")] == [
        "it fell: trying again in 0 s (1 of 2)",
        "it fell: 2 failures in a row, the training goes on without evaluations",
    ]
