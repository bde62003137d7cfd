"""Options of environments: their text, and who may have them passed on."""

import json
import math
from typing import Any

import gymnasium
import numpy as np
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
    assert parse_keywords("a=False,b=TRUE,c=None") == {"a": False, "b": True, "c": None}  # as Python spells them
    assert parse_keywords("a=NaN,b=" + "[" * 100_000) == {"a": "NaN", "b": "[" * 100_000}
    assert parse_keywords("") == {}
    assert parse_keywords("empty=") == {"empty": ""}
    assert parse_keywords("name=two words") == {"name": "two words"}


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"a": 1, "b": -2.5e-7, "c": True, "d": None},
        {"a": "4"},
        {"a": "None", "b": "true", "c": "[1]", "d": "-"},
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


@pytest.mark.parametrize("value", [["berniw", "inferno"], math.nan, {}, b"x", np.zeros(2)])
def test_what_a_line_cannot_hold_is_refused_from_python(value):
    with pytest.raises(UserError, match=r"--env-options: opponents is .* only .*function of yours"):
        Config(env_options={"opponents": value})  # type: ignore[arg-type]


def test_numbers_may_be_numpys():
    options: Any = {"a": np.int64(6), "b": np.float32(0.5), "c": np.bool_(True)}
    assert Config(env_options=options).env_options == "a=6,b=0.5,c=true"


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


def rows_only(rows: int = 3, render_mode: str | None = None) -> gymnasium.Env:
    """Make Catch; Gymnasium also takes functions as entry points."""
    return gymnasium.make("asyncrl/Catch-v0", rows=rows, render_mode=render_mode)


def unreadable(rows: int = 3, render_mode: str | None = None) -> gymnasium.Env:
    """Make Catch, and not tell how."""
    return rows_only(rows, render_mode)


unreadable.__signature__ = "none"  # type: ignore[attr-defined]


@pytest.fixture
def functions_registered():
    """Register both for a test."""
    names = {"Callable-v0": rows_only, "Unreadable-v0": unreadable}
    for name, function in names.items():
        gymnasium.register(name, entry_point=function)
    yield
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.usefixtures("functions_registered")
@pytest.mark.parametrize(
    "env, options, line",
    [
        ("CartPole-v1", "gravity=3", "CartPole-v1 has no option gravity; it has sutton_barto_reward\n"),
        ("asyncrl/Catch-v0", "size=3", "asyncrl/Catch-v0 has no option size; it has rows, columns\n"),
        ("asyncrl.envs:asyncrl/Catch-v0", "size=3", "Catch-v0 has no option size; it has rows, columns\n"),
        ("Callable-v0", "size=3", "Callable-v0 has no option size; it has rows\n"),
        ("Unreadable-v0", "size=3", "Unreadable-v0 has no option size\n"),
        ("dm_control/cartpole-swingup-v0", "fps=3", "has no option fps; it has size, camera, frame_skip\n"),
        ("ALE/Pong-v5", "mode=1", "--env-options are for other worlds"),
        ("asyncrl/HalfCheetah-pixels-v5", "task=os:x-v0", "cannot change task"),
        ("asyncrl.envs:asyncrl/HalfCheetah-pixels-v5", "task=os:x-v0", "cannot change task"),
        ("asyncrl/Catch-v0", "entry_point=os:system", "cannot change entry_point"),
        ("asyncrl/Catch-v0", "render_mode=rgb_array", "no id or render_mode"),
        ("asyncrl/Catch-v0", "rows=1,\nb", "--env-options is 'rows=1,"),
        ("os:getcwd", "x=1", "os:getcwd takes no x\n"),
        ("asyncrl/Catch-v0", "rows=x", "rows must be a whole number from 2 to 1024, not 'x'"),
        ("asyncrl/MemoryChain-v0", "length=0", "length must be a whole number from 1 to"),
        ("FrozenLake-v1", "map_name=x", "FrozenLake-v1 cannot be made: KeyError: 'x'"),
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
    assert "is made with 'sutton_barto_reward=true': repeat it with --env CartPole-v1" in capsys.readouterr().err
    assert main(["eval", str(path), "--episodes", "1", "--env", "CartPole-v1"]) == 0


def test_our_own_worlds_need_no_repeating(tmp_path, capsys):
    path = tmp_path / "run"
    args = ["asyncrl/Catch-v0", "--env-options", "rows=6,columns=4", "--frames", "200", "--workers", "1"]
    assert main(["train", *args, "--run-dir", str(path)]) == 0
    assert "--env" not in capsys.readouterr().out
    assert main(["eval", str(path), "--episodes", "1"]) == 0


def test_an_agent_plays_in_other_variants_of_its_world(tmp_path, capsys):
    path = tmp_path / "run"
    asyncrl.train(
        "CartPole-v1", env_options="sutton_barto_reward=true", frames=500, workers=1, run_dir=path, announce=str
    )
    # Options of the user's own need no repeating of the environment's name; those of the run are gone then.
    assert asyncrl.load(path, env_options={}).evaluate(1)[0].score > 0
    assert asyncrl.load(path, env_options={"sutton_barto_reward": True}).evaluate(1)[0].score == -1
    assert main(["eval", str(path), "--episodes", "1", "--env-options", "sutton_barto_reward=false"]) == 0
    assert "CartPole-v1 with sutton_barto_reward=false after 5" in capsys.readouterr().out
    assert main(["eval", str(path), "--episodes", "1", "--env-options", "gravity=3"]) == 2
    assert "CartPole-v1 has no option gravity" in capsys.readouterr().err
    assert read_config(path / "config.toml").env_options == "sutton_barto_reward=true"


def test_none_means_no_options_and_nothing_those_of_the_run(tmp_path, capsys):
    path = str(tmp_path / "run")
    options = ["--env-options", "sutton_barto_reward=true"]
    assert main(["train", "CartPole-v1", *options, "--frames", "500", "--workers", "1", "--run-dir", path]) == 0
    capsys.readouterr()
    for given, score in ((["--env-options", "none"], 1.0), (["--env-options="], 1.0), (["--env", "CartPole-v1"], -1.0)):
        assert main(["eval", path, "--episodes", "1", "--json", *given]) == 0
        assert np.sign(json.loads(capsys.readouterr().out)["mean"]) == score


@pytest.mark.parametrize("options", ["kind=dict", "kind=many"])
def test_spaces_of_another_kind_are_refused(options, tmp_path, capsys):
    def make(kind="box"):
        env = gymnasium.make("asyncrl/Catch-v0")
        if kind == "dict":
            env.observation_space = gymnasium.spaces.Dict({"x": env.observation_space})
        if kind == "many":
            env.action_space = gymnasium.spaces.MultiBinary(2)
        return env

    run = asyncrl.train(make, frames=200, workers=1, run_dir=tmp_path / "run", announce=str)
    with pytest.raises(UserError, match=r"--env-options make .* with another (observation|action) space"):
        asyncrl.load(run.path, env=make, env_options=options).evaluate(1)


@pytest.mark.parametrize("verb", [["eval"], ["record", "film.mp4"]])
def test_other_observations_are_refused(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asyncrl.train("asyncrl/Catch-v0", frames=200, workers=1, run_dir="run", announce=str)
    verb, *rest = verb
    assert main([verb, "run", *rest, "--env-options", "rows=7"]) == 2
    assert "--env-options make asyncrl/Catch-v0 with another observation space" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mp4"))


def test_options_of_the_user_do_not_make_an_import_path_harmless(tmp_path, capsys):
    env, path = "worlds:tiny", str(tmp_path / "run")
    asyncrl.train(env, frames=200, workers=1, run_dir=path, announce=str)
    for options, code in (([], 2), (["--env", env], 0)):
        assert main(["eval", path, "--episodes", "1", "--env-options", "", *options]) == code
    assert f"imports code ({env}): repeat it with --env {env}" in capsys.readouterr().err


def test_the_preset_follows_the_spaces_that_options_make():
    def make_env(continuous):
        return gymnasium.make("asyncrl/Target-v0" if continuous else "asyncrl/Catch-v0")

    handed: Any = hand_over(make_env)
    presets = [preset_for("fast", handed, env_options={"continuous": continuous}) for continuous in (True, False)]
    assert [config.preset for config in presets] == ["fast-continuous", "fast"]
    assert [config.env_options for config in presets] == ["continuous=true", "continuous=false"]


def write_run(folder, lines):
    folder.mkdir()
    file = folder / "config.toml"
    file.write_text(lines)
    return file


def test_a_file_of_a_stranger_says_all_it_would_make(tmp_path, capsys):
    env = "asyncrl.envs:asyncrl/HalfCheetah-pixels-v5"
    file = write_run(tmp_path / "run", f'env = "{env}"\nenv_options = "task=\\u001b[2Kos:x-v0"\n')
    assert main(["train", "--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert "imports code" in told and r"is made with 'task=\x1b[2Kos:x-v0'" in told and "\x1b" not in told
    assert main(["train", env, "--config", str(file)]) == 2  # repeated, but our id stays what it is
    assert "cannot change task" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--env-options", ""], ["--env_options="], []])
def test_options_of_a_file_are_for_its_own_environment(tmp_path, options):
    file = write_run(
        tmp_path / "other", 'env = "asyncrl/Catch-v0"\nenv_options = "rows=6"\nframes = 300\nworkers = 1\n'
    )
    env = [] if options else ["CartPole-v1"]  # no options given: none for another environment
    assert main(["train", *env, "--config", str(file), *options, "--run-dir", str(tmp_path / "run")]) == 0
    assert read_config(tmp_path / "run" / "config.toml").env_options == ""


def test_options_of_a_configuration_are_for_its_own_environment(tmp_path):
    config = Config(env="asyncrl/Catch-v0", env_options="rows=6", frames=200, workers=1)
    for env, kept in (("asyncrl/Catch-v0", "rows=6"), (None, "rows=6"), ("CartPole-v1", "")):
        run = asyncrl.train(env, config=config, run_dir=tmp_path / str(len(str(env))), announce=str)
        assert run.config.env_options == kept
