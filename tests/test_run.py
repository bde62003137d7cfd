"""The Python interface: train, resume, load; where runs lie."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tomllib
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import asyncrl
import asyncrl.envs
from asyncrl import run as runs
from asyncrl import trainer
from asyncrl.cli import main
from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.machine import available_cores
from asyncrl.pointers import point_to
from asyncrl.quantities import counted


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_an_epsilon_that_falls_for_longer_than_the_run_is_told():
    settings = {"algo": "one-step-q", "workers": 1, "announce": (told := []).append}
    asyncrl.train("CartPole-v1", frames=500, epsilon_frames=400, run_dir="one", **settings)
    assert not [line for line in told if "epsilon" in line]
    asyncrl.train("CartPole-v1", frames=500, epsilon_frames=4000, epsilon_share=0.25, run_dir="two", **settings)
    assert [line for line in told if "epsilon" in line] == [
        "epsilon falls over 4,000 frames, but the run ends after 500: with --epsilon-frames none it falls over 25% of "
        "the run"
    ]


def test_train_evaluate_load():
    shown, told = [], []
    run = asyncrl.train(
        "CartPole-v1", frames=3_000, workers=2, envs_per_worker=1, show=shown.append, announce=told.append
    )
    assert re.fullmatch(r"runs/CartPole-v1/a3c-0-\d{8}-\d{6}-\d+", str(run.path))
    assert told[0] == f"CartPole-v1: 2 workers x 1 environment on {counted(available_cores(), 'core')}, into {run.path}"
    assert run.outcome is not None and run.outcome.reason == "frames"
    assert all(progress.frames <= run.outcome.progress.frames for progress in shown)
    assert len(run.episodes()) == run.outcome.progress.episodes
    agent = asyncrl.load(run.path)
    scores = [episode.score for episode in agent.evaluate(3, seed=5)]
    assert scores == [episode.score for episode in run.agent().evaluate(3, seed=5)]
    assert all(8 <= score <= 500 for score in scores)
    text = tomllib.loads((run.path / "config.toml").read_text())
    assert text["frames"] == 3_000 and text["max_time"] == "none"
    assert set(text["provenance"]) == {"asyncrl", "python", "torch", "numpy", "gymnasium", "git_revision"}


def test_an_agent_with_an_lstm_remembers_until_it_is_reset():
    settings = {"workers": 1, "envs_per_worker": 1, "frames": 50, "schedule": "simulated"}
    asyncrl.train("asyncrl/Target-v0", core="lstm", run_dir="run", **settings)
    agent, fresh = asyncrl.load("run"), asyncrl.load("run")
    seen = gymnasium.make("asyncrl/Target-v0").observation_space
    seen.seed(0)
    one, other = seen.sample(), seen.sample()
    agent.act(one, mode="greedy")
    remembering = agent.act(other, mode="greedy")
    agent.reset()
    forgetful = agent.act(other, mode="greedy")
    assert not np.array_equal(remembering, forgetful)
    assert np.array_equal(forgetful, fresh.act(other, mode="greedy"))


def test_what_is_played_is_the_checkpoint_that_was_asked_for(capsys):
    run = asyncrl.train("CartPole-v1", frames=2_000, schedule="simulated", checkpoint_frames=1_000, run_dir="run")
    frames = sorted(int(path.name) for path in Path("run/checkpoints").iterdir() if path.name.isdecimal())
    assert len(frames) >= 2
    point_to(Path("run/checkpoints"), "best", Path(f"run/checkpoints/{frames[0]}"))
    capsys.readouterr()
    for which, expected in (("best", frames[0]), ("latest", frames[-1])):
        assert run.agent(which).checkpoint.state["frames"] == expected
        assert main(["eval", "run", "--checkpoint", which, "--episodes", "1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["frames"] == expected


def test_a_script_is_told_how_it_goes(capsys, monkeypatch):
    monkeypatch.setattr(trainer, "SHOW_SECONDS", 0.0)
    args = {"frames": 300, "workers": 1, "envs_per_worker": 1, "schedule": "simulated"}
    asyncrl.train("CartPole-v1", **args)
    assert re.search(r"frames/s  score", capsys.readouterr().out)
    asyncrl.train("CartPole-v1", **args, show=lambda _: None, announce=lambda _: None)
    assert capsys.readouterr().out == ""


def test_wrong_settings_write_nothing():
    for settings, complaint in (
        ({"frams": 3}, "there is no setting 'frams': did you mean frames?"),
        ({"colour": 3}, "there is no setting 'colour': asyncrl.Config lists them all"),
        ({"momentum": 3}, "there is no setting 'momentum': it is adam_beta1 now"),
        ({"frames": "10m"}, "--frames is '10m': it must be a whole number"),
        ({"env": lambda: None}, "python-lambda made a NoneType"),
        ({"run_dir": "."}, ". exists: choose another --run-dir"),
    ):
        with pytest.raises(asyncrl.UserError, match=re.escape(complaint)):
            asyncrl.train(**settings)
    assert list(Path().iterdir()) == []


def test_events_that_cannot_be_written_cost_only_themselves(monkeypatch):
    def fail() -> None:
        raise TypeError("Descriptors cannot be created\ndirectly")

    monkeypatch.setattr("asyncrl.metrics.event_types", fail)
    monkeypatch.setattr("asyncrl.trainer.LOG_SECONDS", 0.1)
    told: list[str] = []
    run = asyncrl.train("asyncrl/Catch-v0", frames=5_000, workers=1, run_dir="run", announce=told.append)
    assert len(run.metrics()) > 1
    (line,) = [text for text in told if "TensorBoard" in text]
    assert "TypeError: Descriptors cannot be created directly" in line and "\n" not in line
    assert run.agent().checkpoint.state["frames"] >= 5_000


@pytest.mark.parametrize("broken", ["asyncrl.metrics.RunLog.progress", "asyncrl.pool.WorkerPool.stop"])
def test_whatever_fails_at_the_end_the_checkpoint_is_written(broken, monkeypatch):
    def fail(*args: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("asyncrl.trainer.LOG_SECONDS", 1e9)
    monkeypatch.setattr(broken, fail)
    with pytest.raises(BrokenPipeError):
        asyncrl.train("asyncrl/Catch-v0", frames=2_000, workers=1, run_dir="run")
    assert asyncrl.load("run").checkpoint.state["frames"] >= 2_000


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"episodes": "3"}, "'3' episodes: it must be a whole number"),
        ({"episodes": 1.5}, "1.5 episodes"),
        ({"episodes": np.int64(0)}, "np.int64(0) episodes"),
        ({"episodes": 2, "seed": -1}, "the seed is -1: it must be a whole number between 0 and"),
    ],
)
def test_an_evaluation_says_what_it_cannot_play(how, complaint):
    run = asyncrl.train("asyncrl/Catch-v0", frames=200, workers=1, run_dir="run")
    with pytest.raises(UserError) as caught:
        run.agent().evaluate(**how)
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize("observation", [np.zeros((1, 4)), np.zeros(3), 0.0])
def test_an_agent_says_what_it_takes(observation):
    agent = asyncrl.train("CartPole-v1", frames=200, workers=1, run_dir="run").agent()
    with pytest.raises(UserError, match=r"this agent takes one of \(4,\) at a time"):
        agent.act(observation)


def test_where_a_training_starts_from_is_said_once():
    with pytest.raises(asyncrl.UserError, match="preset and config both say where to start from"):
        asyncrl.train("CartPole-v1", preset="paper", config=Config())


def test_an_agent_takes_observations_as_environments_give_them(tmp_path):
    run = asyncrl.train("worlds:pictures", frames=100, workers=1, run_dir=tmp_path / "run", announce=str)
    agent, picture = run.agent(), np.zeros((84, 84, 3), np.uint8)
    assert agent.act(picture[::-1]) in (0, 1)  # as MuJoCo's are, flipped
    picture.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agent.act(picture) in (0, 1)
    player = agent._player
    assert agent.act(picture, mode="greedy") in (0, 1) and agent._player is player  # what it remembers stays
    with pytest.raises(asyncrl.UserError, match="there is no mode 'deterministic': sampled and greedy are all"):
        agent.act(picture, mode="deterministic")
    with pytest.raises(asyncrl.UserError, match="0 episodes: it must be a whole number, at least one"):
        agent.evaluate(0)


def test_every_run_has_its_own_folder(monkeypatch):
    monkeypatch.setattr(runs.time, "strftime", lambda form: "20260101-000000")
    config = Config(env="ALE/Pong-v5", seed=7)
    first = runs.new_run_dir(config)
    assert first == Path(f"runs/ALE-Pong-v5/a3c-7-20260101-000000-{os.getpid()}")
    first.mkdir(parents=True)
    assert [runs.new_run_dir(config) for _ in range(2)] == [Path(f"{first}-2"), Path(f"{first}-3")]  # of two threads
    own = dataclasses.replace(config, env="my.module:make")
    assert runs.new_run_dir(own).parent == Path("runs/my.module-make")


def test_the_public_names_are_all_there():
    for name in asyncrl.__all__:
        assert getattr(asyncrl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        asyncrl.nothing  # noqa: B018


def test_a_repository_around_an_installed_copy_is_not_its_revision(tmp_path, monkeypatch):
    package = tmp_path / "venv" / "asyncrl"
    package.mkdir(parents=True)
    shutil.copy(runs.__file__, package)
    monkeypatch.setattr(runs, "__file__", str(package / "run.py"))
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org")
    (tmp_path / "mine.py").touch()
    for command in (("init", "-q"), ("add", "mine.py"), ("commit", "-qm", "mine")):
        subprocess.run([*git, *command], check=True)
    assert runs.git_revision() == "unknown"
    for command in (("add", "-f", "venv"), ("commit", "-qm", "and its libraries")):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True)
    assert runs.git_revision() == head.stdout.strip()
