"""Our compiled kernels compute what PyTorch computes, and where they cannot be had PyTorch does it."""

import ctypes
import dataclasses
import gc
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import asyncrl
from asyncrl import kernels
from asyncrl.config import Config
from asyncrl.errors import DivergedError, UserError
from asyncrl.inputs import InputStatistics
from asyncrl.optim import adam_step_, rmsprop_step_
from asyncrl.worker import Learner, compute_update, threads_of

CATCH = Config(env="asyncrl/Catch-v0", workers=1, envs_per_worker=4, t_max=5, lstm_size=8, network="conv-small")
PONG = dataclasses.replace(CATCH, env="ALE/Pong-v5", network="conv2013")
CASES = {
    "catch": CATCH,
    "one game": dataclasses.replace(PONG, envs_per_worker=1),
    "a tile of games": PONG,
    "pictures and a target": dataclasses.replace(PONG, algo="n-step-q", target_frames=60),
    "a tile and a rest": dataclasses.replace(PONG, envs_per_worker=7),
    "three convolutions": dataclasses.replace(PONG, network="conv2015"),
    "more rows than there is room at first": dataclasses.replace(CATCH, t_max=40),
    "whole episodes": dataclasses.replace(CATCH, envs_per_worker=1, t_max=None),
    "lstm": dataclasses.replace(CATCH, core="lstm"),
    "separate networks": dataclasses.replace(CATCH, separate_networks=True),
    "n-step-q": dataclasses.replace(CATCH, algo="n-step-q"),
    "one-step-q": dataclasses.replace(CATCH, algo="one-step-q"),
    "sarsa": dataclasses.replace(CATCH, algo="one-step-sarsa"),
    "colours": dataclasses.replace(CATCH, env="tests.test_kernels:Colours", network="conv2013"),
    "odd": dataclasses.replace(CATCH, env="tests.test_kernels:Odd", network="conv2013"),
}
STATISTICS = {
    "ALE/Pong-v5": (4, 84, 84),
    "tests.test_kernels:Colours": (60, 52, 3),
    "tests.test_kernels:Odd": (5, 37, 43),
}


class Colours(gym.Env):
    """Pictures of noise, [H, W, C]."""

    shape = (60, 52, 3)

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, self.shape, np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        picture = self._picture()
        return picture, float(picture[0, 0, 0] > 127), bool(picture[0, 0, 1] > 220), False, {}

    def _picture(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.shape, np.uint8)


class Odd(Colours):
    """[C, H, W], of sizes that no vector or tile divides."""

    shape = (5, 37, 43)


@pytest.fixture(scope="module", autouse=True)
def _there_is_a_compiler() -> None:
    assert kernels.why_none() is None, "these tests need a C compiler"


def learners(config: Config) -> tuple[Learner, Learner]:
    """Return two that do the same, the first with our kernels."""
    statistics, shape = None, STATISTICS.get(config.env)
    if shape is not None:
        mean = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        statistics = InputStatistics(mean, np.array(60.0, np.float32))
    torch_only = dataclasses.replace(config, kernels="torch")
    return Learner(config, 0, statistics=statistics), Learner(torch_only, 0, statistics=statistics)


@pytest.fixture
def pair(request: pytest.FixtureRequest, single_threaded: None) -> Iterator[tuple[Learner, Learner]]:
    both = learners(CASES[request.param])
    yield both
    for learner in both:
        learner.close()


@pytest.mark.parametrize("pair", CASES, indirect=True)
def test_a_gradient_is_that_of_pytorch(pair: tuple[Learner, Learner]) -> None:
    assert pair[0].passes
    assert not pair[1].passes
    for _ in range(3):
        ours, theirs = (compute_update(learner).gradient for learner in pair)
        assert theirs.norm() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * float(theirs.abs().max()))
        for learner in pair:
            learner.snapshot.sub_(0.01 * theirs / theirs.norm())
            learner.target_snapshot.mul_(1.01)


SHARED = ("catch", "a tile and a rest", "three convolutions", "lstm", "separate networks", "colours")


@pytest.mark.parametrize("case", SHARED)
def test_threads_share_the_arithmetic_of_a_batched_worker(case: str, single_threaded: None) -> None:
    ours, theirs = learners(dataclasses.replace(CASES[case], algo="a2c", threads=3))
    assert ours.passes and all(passes.threads == 3 for passes in ours.passes)
    for _ in range(3):
        gradient, expected = (compute_update(learner).gradient for learner in (ours, theirs))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))
        for learner in (ours, theirs):
            learner.snapshot.sub_(0.01 * expected / expected.norm())
    for learner in (ours, theirs):
        learner.close()


@pytest.mark.parametrize(
    ("settings", "threads", "of_torch"),
    [
        ({}, 1, 1),
        ({"algo": "a2c"}, 5, 1),
        ({"algo": "a2c", "threads": 2}, 2, 1),
        ({"algo": "a2c", "kernels": "torch"}, 5, 5),
        ({"algo": "a2c", "kernels": "torch", "threads": 2}, 2, 2),
        ({"algo": "a2c", "env": "asyncrl/Catch-v0", "network": "conv-small"}, 1, 1),
        ({"algo": "a2c", "env": "asyncrl/Catch-v0", "network": "conv-small", "core": "lstm", "lstm_size": 256}, 1, 1),
        ({"algo": "a2c", "env": "asyncrl/Catch-v0", "network": "mlp", "core": "lstm", "lstm_size": 256}, 5, 5),
    ],
)
def test_who_has_how_many_threads(
    settings: dict, threads: int, of_torch: int, monkeypatch: pytest.MonkeyPatch, single_threaded: None
) -> None:
    monkeypatch.setattr("asyncrl.worker.available_cores", lambda: 5)
    torch.set_num_threads(3)
    config = dataclasses.replace(PONG, **settings)
    learner = Learner(config, 0)
    assert torch.get_num_threads() == of_torch
    assert threads_of(config, learner.network, learner.state.envs.observation_space) == threads
    assert [passes.threads for passes in learner.passes] == ([] if of_torch > 1 else [threads])
    learner.close()


def test_threads_end_with_their_worker(single_threaded: None) -> None:
    before = set(threading.enumerate())
    learner = Learner(dataclasses.replace(CATCH, algo="a2c", threads=3), 0)
    compute_update(learner)
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == 2
    learner.close()
    del learner
    gc.collect()
    for helper in helpers:
        helper.join(60)
        assert not helper.is_alive()


@pytest.fixture(scope="module", params=["-march=x86-64-v3", "-march=x86-64"])
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if platform.machine() != "x86_64":
        pytest.skip("the options are those of x86")
    path = tmp_path_factory.mktemp("narrow") / "narrow.so"
    kernels.compile_library(["cc"], path, request.param)
    return kernels.load(path)


@pytest.mark.parametrize("case", ["one game", "a tile and a rest", "three convolutions", "odd"])
def test_narrower_vectors_give_the_same(
    narrow: ctypes.CDLL, case: str, monkeypatch: pytest.MonkeyPatch, single_threaded: None
) -> None:
    monkeypatch.setattr(kernels, "library", lambda: narrow)
    both = learners(CASES[case])
    assert both[0].passes
    assert not both[1].passes
    ours, theirs = (compute_update(learner).gradient for learner in both)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * float(theirs.abs().max()))
    for learner in both:
        learner.close()


@pytest.mark.parametrize("pair", ["catch"], indirect=True)
def test_what_acting_computed_is_not_computed_again(
    pair: tuple[Learner, Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    library, calls = pair[0].passes[0]._library, []

    class Counting:
        def __getattr__(self, name: str) -> object:
            calls.append(name)
            return getattr(library, name)

    monkeypatch.setattr(pair[0].passes[0], "_library", Counting())
    compute_update(pair[0])
    assert CATCH.t_max is not None
    assert calls.count("torso_forward") == CATCH.t_max + 1  # acting, and the bootstrap's value
    assert calls.count("torso_load") == 1
    assert calls.count("torso_backward") == 1


@pytest.mark.parametrize("pair", ["catch"], indirect=True)
def test_overwritten_features_give_no_gradient(pair: tuple[Learner, Learner]) -> None:
    passes = pair[0].passes[0]
    shape = pair[0].state.envs.observation_space.shape
    assert shape is not None
    first = passes(torch.zeros(2, *shape, dtype=torch.uint8))
    second = passes(torch.ones(2, *shape, dtype=torch.uint8))
    torch.autograd.grad(second.sum(), pair[0].network.parameters(), allow_unused=True)
    with pytest.raises(RuntimeError, match="overwritten"):
        torch.autograd.grad(first.sum(), pair[0].network.parameters(), allow_unused=True)


@pytest.mark.parametrize("pair", ["catch"], indirect=True)
def test_a_gradient_is_a_value_of_its_own(pair: tuple[Learner, Learner]) -> None:
    first = compute_update(pair[0]).gradient
    kept = first.clone()
    second = compute_update(pair[0]).gradient
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("pair", ["catch"], indirect=True)
def test_what_is_no_number_is_noticed(pair: tuple[Learner, Learner]) -> None:
    pair[0].snapshot[3] = float("nan")  # a weight of the first convolution
    with pytest.raises(DivergedError):
        compute_update(pair[0])


def steps(library: object) -> dict[str, Tensor]:
    """Return parameters and statistics after three steps of each optimiser."""
    generator = torch.Generator().manual_seed(0)
    result = {}
    for name in ("rmsprop", "adam"):
        theta, mean, square = torch.randn(1003, generator=generator), torch.zeros(1003), torch.zeros(1003)
        for step in (1, 2, 3):
            gradient = torch.randn(1003, generator=generator)
            how = {"learning_rate": 0.01, "decay": 0.95, "epsilon": 1e-3, "library": library}
            if name == "adam":
                adam_step_(theta, gradient, mean, square, step=step, momentum=0.8, **how)
            else:
                rmsprop_step_(theta, gradient, square, **how)
        result |= {f"{name} theta": theta, f"{name} mean": mean, f"{name} square": square}
    return result


def test_optimisers_take_the_steps_of_pytorch() -> None:
    ours, theirs = steps(kernels.library()), steps(None)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-7)
    assert theirs["adam mean"].norm() > 0


def test_without_a_compiler_pytorch_computes(tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    script = tmp_path / "train.py"
    script.write_text("import asyncrl\nasyncrl.train('asyncrl/Catch-v0', frames=400, workers=1, run_dir='run')\n")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PyTorch computes alone, which is slower: no C compiler" in done.stdout
    assert not (tmp_path / "asyncrl").exists()
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_without_a_compiler_the_measured_speed_is_said_to_be_pytorchs(tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    for verb in (("bench", "--seconds", "0.5", "--warmup", "0"), ("tune", "--budget", "0.1")):
        command = [sys.executable, "-m", "asyncrl", verb[0], "asyncrl/Catch-v0", "--workers", "1", "--json", *verb[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "PyTorch computes alone, which is slower: no C compiler" in done.stderr
        assert json.loads(done.stdout).get("kernels") == {"bench": "torch", "tune": None}[verb[0]]


Break = Callable[[Path], None]


def refuse_folder(cache: Path) -> None:
    cache.write_text("not a folder")


def broken_compiler(cache: Path) -> None:
    compiler = cache.parent / "cc"
    compiler.write_text("#!/bin/sh\necho 'kernels.c:1: error: no such target' >&2\nexit 1\n")
    compiler.chmod(0o755)


def no_program(cache: Path) -> None:
    compiler = cache.parent / "cc"
    compiler.write_bytes(b"\x7fELF")
    compiler.chmod(0o755)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (refuse_folder, "set XDG_CACHE_HOME"),
        (broken_compiler, "error: no such target"),
        (no_program, "cc cannot be run: Exec format error"),
    ],
)
def test_what_fails_is_told_in_a_line(spoil: Break, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spoil(tmp_path / "cache")
    if spoil is not refuse_folder:
        monkeypatch.setenv("CC", str(tmp_path / "cc"))
    with pytest.raises(UserError, match=why) as caught:
        kernels.build()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.so"))


def test_cc_may_have_several_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "env LANG=C cc -DNOTHING")
    assert kernels.load(kernels.build()).torso_new is not None
    monkeypatch.setenv("CC", "cc 'x")
    with pytest.raises(UserError, match="which is no command"):
        kernels.build()


def test_without_a_home_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(UserError, match=r"there is no home folder .*: set XDG_CACHE_HOME"):
        kernels.build()


def test_they_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = kernels.build()
    before = path.stat().st_mtime_ns
    assert kernels.build() == path
    assert path.stat().st_mtime_ns == before
    assert kernels.load(path).torso_new is not None


def test_a_newer_compiler_of_the_same_name_compiles_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler = tmp_path / "cc"
    monkeypatch.setenv("CC", str(compiler))
    for script in ("#!/bin/sh\nexec cc $*\n", "#!/bin/sh\nexec  cc  $*\n"):
        compiler.write_text(script)
        compiler.chmod(0o755)
        kernels.build()
    assert len(list(tmp_path.rglob("*.so"))) == 2


def test_what_a_power_failure_has_emptied_is_compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = kernels.build()
    path.write_bytes(b"")
    assert kernels.load(kernels.build()).torso_new is not None


def test_a_run_says_how_it_computes(tmp_path: Path) -> None:
    lines: list[str] = []
    asyncrl.train("asyncrl/Catch-v0", frames=200, workers=1, run_dir=tmp_path / "run", announce=lines.append)
    assert not any("PyTorch computes alone" in line for line in lines)
