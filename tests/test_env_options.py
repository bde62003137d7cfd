"""Options of environments: their text, and who may have them passed on."""

from typing import Any

import gymnasium
import pytest

import asyncrl
from asyncrl.cli import main
from asyncrl.config import Config
from asyncrl.config_file import read_config
from asyncrl.envs.make import make_filmed_env, opened_envs
from asyncrl.errors import UserError
from asyncrl.handed import hand_over
from asyncrl.keywords import format_keywords, parse_keywords
from asyncrl.presets import preset_for


def test_values_are_read_as_what_they_look_like():
    text = 'opponents=4,seconds=0.5,car=fast,random_start=false,rules=null,name="4",track=oval/e-track-5,list=[1]'
    assert parse_keywords(text) == {
        "opponents": 4,
        "seconds": 0.5,
        "car": "fast",
        "random_start": False,
        "rules": None,
        "name": "4",
        "track": "oval/e-track-5",
        "list": "[1]",
    }
    assert parse_keywords("") == {}
    assert parse_keywords("empty=") == {"empty": ""}
    assert parse_keywords("name=two words") == {"name": "two words"}


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"a": 1, "b": -2.5e-7, "c": True, "d": None},
        {"a": "4"},
        {"a": "x,y=z"},
        {"a": 'say "x"'},
        {"a": "null", "b": ""},
    ],
)
def test_what_is_written_is_read_again(keywords):
    read = parse_keywords(format_keywords(keywords))
    assert read == keywords
    assert [type(value) for value in read.values()] == [type(value) for value in keywords.values()]


@pytest.mark.parametrize("text", ["track", "a=1,", ",a=1", "a=1,,b=2", "1a=2", "a=1,a=2", "=1", 'a="x'])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match=r"--env-options is .*NAME=VALUE"):
        Config(env_options=text)


def test_lists_are_refused_from_python():
    with pytest.raises(UserError, match=r"--env-options: .*function of yours"):
        Config(env_options={"opponents": ["berniw", "inferno"]})  # type: ignore[arg-type]


def test_the_environment_is_made_with_them():
    config = Config(env="asyncrl/Catch-v0", env_options={"rows": 6, "columns": 4})  # type: ignore[arg-type]
    assert config.env_options == "rows=6,columns=4"
    with opened_envs(config, 1) as envs:
        assert envs.observation_space.shape == (1, 6, 4)
    filmed = make_filmed_env(config)
    filmed.reset(0)
    assert filmed.picture().shape == (96, 64, 3)


def test_a_function_gets_them_with_or_without_a_render_mode():
    def make_env(rows, render_mode=None):
        return gymnasium.make("asyncrl/Catch-v0", rows=rows, render_mode=render_mode)

    config = Config(env=make_env, env_options="rows=7")  # type: ignore[arg-type]
    with opened_envs(config, 1) as envs:
        assert envs.observation_space.shape == (1, 7, 5)
    filmed = make_filmed_env(config)
    filmed.reset(0)
    assert filmed.picture().shape == (112, 80, 3)


@pytest.mark.parametrize(
    "env, options, line",
    [
        ("CartPole-v1", "gravity=3", "CartPole-v1 has no option gravity"),
        ("ALE/Pong-v5", "mode=1", "--env-options are for other worlds"),
        ("asyncrl/HalfCheetah-pixels-v5", "task=os:x-v0", "cannot change task"),
        ("asyncrl/Catch-v0", "entry_point=os:system", "cannot change entry_point"),
        ("asyncrl/Catch-v0", "rows=x", "asyncrl/Catch-v0 "),
    ],
)
def test_what_an_environment_does_not_take_is_one_line(env, options, line, capsys, tmp_path):
    assert main(["train", env, "--env-options", options, "--run-dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert "Traceback" not in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_them_and_of_a_stranger_they_must_be_repeated(tmp_path, capsys):
    path = tmp_path / "run"
    run = asyncrl.train(
        "CartPole-v1", env_options={"sutton_barto_reward": True}, frames=500, workers=1, run_dir=path, announce=str
    )
    assert read_config(path / "config.toml").env_options == "sutton_barto_reward=true"
    assert run.agent().evaluate(1)[0].score == -1.0  # with that option an episode is worth the end of it
    assert main(["eval", str(path), "--episodes", "1"]) == 2
    assert "is made with sutton_barto_reward=true: repeat it with --env CartPole-v1" in capsys.readouterr().err
    assert main(["eval", str(path), "--episodes", "1", "--env", "CartPole-v1"]) == 0


def test_our_own_worlds_need_no_repeating(tmp_path, capsys):
    path = tmp_path / "run"
    args = ["asyncrl/Catch-v0", "--env-options", "rows=6,columns=4", "--frames", "200", "--workers", "1"]
    assert main(["train", *args, "--run-dir", str(path)]) == 0
    assert "--env" not in capsys.readouterr().out
    assert main(["eval", str(path), "--episodes", "1"]) == 0


def test_the_preset_follows_the_spaces_that_options_make():
    def make_env(continuous):
        return gymnasium.make("asyncrl/Target-v0" if continuous else "asyncrl/Catch-v0")

    handed: Any = hand_over(make_env)
    presets = [preset_for("fast", handed, env_options={"continuous": continuous}) for continuous in (True, False)]
    assert [config.preset for config in presets] == ["fast-continuous", "fast"]
    assert [config.env_options for config in presets] == ["continuous=true", "continuous=false"]
