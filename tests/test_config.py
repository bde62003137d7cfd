"""Settings: numbers as people write them, checks, and the file that keeps them."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import asyncrl
from asyncrl.cli_config import starting_point
from asyncrl.config import Config
from asyncrl.config_file import read_config, write_config
from asyncrl.envs.make import opened_envs
from asyncrl.errors import UserError
from asyncrl.machine import available_cores
from asyncrl.networks import make_network
from asyncrl.presets import PRESETS, make_preset, preset_for
from asyncrl.quantities import counted, format_count, format_duration, parse_count, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("90", 90),
        ("40_000", 40_000),
        ("10M", 10_000_000),
        ("2.3M", 2_300_000),  # 2.3 * 1e6 is 2299999.9999999995 in floats
        ("2.5e6", 2_500_000),
        ("30k", 30_000),
        ("30K", 30_000),
        ("1G", 10**9),
        ("1b", 10**9),
        (" 7 ", 7),
        ("-3", -3),
        ("7e-4", 0.0007),
        (".5", 0.5),
        ("20min", 1200),
        ("1h30min", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("45s", 45),
        ("45sec", 45),
    ],
)
def test_numbers_as_people_write_them(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "_", ".", "M", "10 M", "1e", "nan", "inf", "-inf", "1e400", "h", "1h30", "ten", "0x10"]
)
def test_what_is_no_number(text):
    with pytest.raises(ValueError, match="is no number: write it like 10M"):
        parse_number(text)


def test_an_exponent_that_would_fill_the_memory():
    with pytest.raises(ValueError, match="is no number that fits"):
        parse_count("1e999999999")


def test_a_small_m_is_ambiguous():
    with pytest.raises(ValueError, match="millions or minutes: write M or min"):
        parse_number("10m")


@pytest.mark.parametrize("text", ["2.5", "7e-4", "20min", "1h", "3s", "2d"])
def test_what_is_no_count(text):
    with pytest.raises(ValueError, match="is not a whole number"):
        parse_count(text)


@given(st.integers(-(10**15), 10**15))
def test_whole_numbers_are_read_exactly(number):
    assert parse_count(str(number)) == parse_count(f"{number:_}") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_exactly(number):
    assert parse_number(repr(number)) == number


@given(st.text(max_size=12))
@example("__")
def test_any_text_is_a_finite_number_or_refused(text):
    try:
        assert math.isfinite(parse_number(text))
    except ValueError as error:
        assert repr(text) in str(error)


@given(st.floats(0.01, 9e14))
@example(999.7)
@example(999_999)
def test_counts_are_shown_shortly_and_about_right(number):
    shown = format_count(number)
    assert "e" not in shown or number < 0.1
    assert len(shown) <= 7
    assert parse_number(shown.replace("T", "e12")) == pytest.approx(number, rel=0.006)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90_061, "25:01:01")]
)
def test_durations_are_shown(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_presets_come_back_from_their_file(tmp_path, preset):
    _assert_comes_back(tmp_path, preset())


def test_settings_that_differ_from_their_preset_come_back(tmp_path):
    # max_grad_norm is a number in the preset: None must be told from "not given".
    config = dataclasses.replace(
        PRESETS["fast"](),
        max_grad_norm=None,
        max_time=5,
        run_dir="somewhere",
        sticky=True,
        final_epsilons=[0.2, 0],
        final_epsilon_probabilities=(1, 0.0),
    )
    assert PRESETS["fast"]().max_grad_norm is not None
    _assert_comes_back(tmp_path, config)


def _assert_comes_back(folder: Path, config: Config) -> None:
    write_config(folder / "config.toml", config, {"torch": "2"})
    assert read_config(folder / "config.toml") == config
    assert [p.name for p in folder.iterdir()] == ["config.toml"]


def test_a_hand_written_file_starts_from_its_preset(tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "paper"\nframes = 5000\nlearning_rate = 1\n')
    expected = dataclasses.replace(PRESETS["paper"](), frames=5000, learning_rate=1.0)
    assert read_config(tmp_path / "mine.toml") == expected


def test_older_names_of_settings_are_read(tmp_path):
    (tmp_path / "old.toml").write_text(
        "final_learning_rate = 0.5\nfinal_entropy_cost = 0.25\nepsilon = 1e-3\nmomentum = 0.5\n"
    )
    config = read_config(tmp_path / "old.toml")
    assert (config.final_learning_rate_fraction, config.final_entropy_fraction) == (0.5, 0.25)
    assert (config.optimizer_epsilon, config.adam_beta1) == (1e-3, 0.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("frams = 3", "there is no setting 'frams': did you mean frames?"),
        ('frames = "10m"', "--frames is '10m': it must be a whole number"),
        ("frames = 2.5", "it must be a whole number"),
        ("frames = nan", "it must be a whole number"),
        ("frames = 0", "it must be between 1 and"),
        ("final_epsilons = 0.1", "--final-epsilons is 0.1: it must be a list of numbers"),
        ("final_epsilons = ['a']", "--final-epsilons is 'a': it must be a number"),
        ("final_epsilons = []", "it must be one number or more between 0 and 1"),
        ("final_epsilons = [0.1, 2, 0.3]", "it must be one number or more between 0 and 1"),
        ("final_epsilon_probabilities = [0.3, 0.3, 0.3]", "it must be numbers between 0 and 1 that add up to 1"),
        ("final_epsilons = [0.1]", "must be as many: one epsilon has the probability 1"),
        ("workers = true", "--workers is True: it must be a whole number"),
        ("sticky = 1", "it must be true or false"),
        ("gamma = nan", "it must be between 0 and 1"),
        ("stop_at_score = inf", "it must be a finite number"),
        ('algo = "dqn"', "it must be one of a3c, n-step-q"),
        ("algo = [1]", "it must be one of a3c"),
        ("env = 3", "it must be a Gymnasium id"),
        ('env = ""', "it must be a Gymnasium id"),
        (
            'preset = "best"',
            "there is no preset 'best': fast, paper, paper57, fast-pixels, fast-vector, fast-continuous, ",
        ),
        ('preset = ["fast"]', "there is no preset"),
        ("[workers]\nx = 1", "it must be a whole number"),
        ("frames 3", "is not valid TOML"),
        pytest.param("frames = " + 5_000 * "1", "is not valid TOML", id="5,000 digits"),
        pytest.param("frames = " + 5_000 * "[", "is not valid TOML", id="5,000 brackets"),
        pytest.param("gamma = 0x" + 2_000 * "f", "too large", id="a number too large for a float"),
        pytest.param("workers = 0x" + 5_000 * "f", "Exceeds the limit", id="a number too large to be told"),
        ("frames = 3\nframes = 4", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, text, complaint):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_config(file)
    message = str(caught.value)
    assert complaint in message and message.startswith(str(file)) and "\n" not in message


def test_unreadable_files(tmp_path):
    (tmp_path / "latin1.toml").write_bytes('env = "Pöng"'.encode("latin-1"))
    for path, complaint in [
        (tmp_path / "latin1.toml", "is not valid TOML: 'utf-8' codec can't decode"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none.toml", "No such file"),
    ]:
        with pytest.raises(UserError, match=complaint):
            read_config(path)


def test_python_may_give_what_means_the_same():
    config = Config(frames=1e6, workers=np.int64(3), max_time=5, learning_rate=np.float32(0.5), run_dir="there")
    assert [type(getattr(config, n)) for n in ("frames", "workers", "max_time", "learning_rate")] == [
        int,
        int,
        float,
        float,
    ]
    assert isinstance(config.run_dir, Path)


def test_python_and_files_may_write_numbers_as_the_command_line_does(tmp_path):
    config = Config(frames="10M", max_time="1h30min", learning_rate="7e-4", t_max="none")
    wanted = Config(frames=10_000_000, max_time=5400, learning_rate=7e-4, t_max=None)
    assert config == wanted
    (tmp_path / "mine.toml").write_text('preset = "paper"\nframes = "2.5e6"\nmax_time = "20min"')
    read = read_config(tmp_path / "mine.toml")
    assert (read.frames, read.max_time) == (2_500_000, 1200.0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"env": 3}, "it must be a Gymnasium id, an import path"),
        ({"workers": 0}, "--workers is 0: it must be between 1 and 1024"),
        ({"workers": -1}, "--workers is -1"),
        ({"workers": 1.5}, "--workers is 1.5: it must be a whole number"),
        ({"workers": None}, "--workers is None"),
        ({"frames": math.inf}, "--frames is inf"),
        ({"frames": "2.5"}, "--frames is '2.5': it must be a whole number"),
        ({"learning_rate": math.nan}, "--learning-rate is nan: it must be positive"),
        ({"learning_rate": 0}, "--learning-rate is 0.0: it must be positive"),
        ({"max_time": -1}, "--max-time is -1.0: it must be positive"),
        ({"max_time": math.inf}, "--max-time is inf: it must be positive"),
        ({"stop_at_score": math.nan}, "--stop-at-score is nan"),
        ({"seed": -1}, "--seed is -1"),
        ({"t_max": 0}, "--t-max is 0"),
        ({"decay": 1.0}, "--decay is 1.0"),
        ({"entropy_share": 0.0}, "--entropy-share is 0.0"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, complaint):
    with pytest.raises(UserError) as caught:
        Config(**settings)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_the_paper_preset_is_the_papers():
    config = PRESETS["paper"]()
    assert (config.workers, config.envs_per_worker, config.t_max, config.gamma) == (16, 1, 5, 0.99)
    assert (config.optimizer, config.decay, config.optimizer_epsilon, config.max_grad_norm) == (
        "shared-rmsprop",
        0.99,
        0.1,
        None,
    )
    assert (config.network, config.entropy_cost, config.value_cost, config.gae_lambda) == ("conv2013", 0.01, 0.5, 1.0)
    assert (config.final_learning_rate_fraction, config.final_entropy_fraction) == (0.0, 1.0)
    assert (config.standardize_inputs, config.sticky) == (False, False)


def test_the_paper_preset_for_continuous_actions_is_the_papers():
    config = PRESETS["paper-continuous"]()
    assert (config.workers, config.envs_per_worker, config.t_max, config.gamma) == (16, 1, None, 0.99)
    assert (config.network, config.core, config.lstm_size, config.separate_networks) == ("mlp200", "lstm", 128, True)
    assert (config.policy_variance, config.entropy_cost, config.bootstrap_on_truncation) == ("spherical", 1e-4, False)
    assert (config.optimizer, config.optimizer_epsilon, config.max_grad_norm) == ("shared-rmsprop", 0.1, None)


@pytest.mark.parametrize(
    ("preset", "env", "chosen"),
    [
        ("paper", "asyncrl/Target-v0", "paper-continuous"),
        ("fast", "asyncrl/Target-v0", "fast-continuous"),
        ("fast", "asyncrl/MemoryChain-v0", "fast-vector"),
        ("fast", "asyncrl/Catch-v0", "fast"),
        ("fast", "worlds:pictures", "fast-pixels"),
        ("fast", "worlds:continuous_pictures", "fast-continuous-pixels"),
        ("fast-continuous", "worlds:continuous_pictures", "fast-continuous"),
        ("paper-continuous", "worlds:continuous_pictures", "paper-continuous"),
        ("fast", "ALE/Pong-v5", "fast"),
        ("paper", "asyncrl/MemoryChain-v0", "paper"),
        ("paper57", "asyncrl/Target-v0", "paper57"),
        ("paper", "asyncrl/Catch-v0", "paper"),
        ("paper", "ALE/Pong-v5", "paper"),
        ("fast", None, "fast"),
    ],
)
def test_the_preset_is_chosen_by_the_world(preset, env, chosen):
    config = preset_for(preset, env)
    assert config.preset == chosen
    assert env is None or config.env == env


@pytest.mark.parametrize(
    ("preset", "env", "network"),
    [
        ("paper", "CartPole-v1", "auto"),
        ("paper57", "CartPole-v1", "auto"),
        ("paper", "asyncrl/Catch-v0", "auto"),
        ("paper", "ALE/Pong-v5", "conv2013"),
        ("paper57", "ALE/Pong-v5", "conv2015"),
        ("paper", "worlds:pictures", "conv2013"),
        ("paper57", "worlds:pictures", "conv2015"),
        ("paper", "asyncrl/Target-v0", "mlp200"),
        ("paper", "worlds:continuous_pictures", "conv2013"),
        ("paper-continuous", "worlds:continuous_pictures", "conv2013"),
    ],
)
def test_the_papers_presets_fit_every_world(preset, env, network):
    config = preset_for(preset, env, "a3c")
    assert config.network == network
    with opened_envs(config, 1) as envs:
        make_network(config, envs.observation_space, envs.action_space)


def test_the_papers_schedules_follow_the_length_of_the_run_where_there_are_no_pictures():
    preset = preset_for("paper", "CartPole-v1", "one-step-q")
    config = dataclasses.replace(preset, frames=50_000)
    assert (config.epsilon_end_frames, config.target_interval_frames) == (20_000, 200)
    for like_the_papers in (preset, *(preset_for("paper", env, "one-step-q") for env in ("ALE/Pong-v5", PICTURES))):
        schedules = like_the_papers.epsilon_end_frames, like_the_papers.target_interval_frames
        assert schedules == (4_000_000, 40_000)


PICTURES = "worlds:pictures"


def test_a_file_that_leaves_settings_out_means_its_preset_in_its_world(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('env = "asyncrl/Target-v0"\nframes = 9000\n')
    start = starting_point(["--config", str(file)])[1]
    assert start == dataclasses.replace(preset_for("fast", "asyncrl/Target-v0"), frames=9000)
    assert start.preset == "fast-continuous"
    elsewhere = starting_point(["CartPole-v1", "--config", str(file), "--workers", "3"])[1]
    assert elsewhere == dataclasses.replace(preset_for("fast", "CartPole-v1", workers=3), frames=9000)
    file.write_text("frames = 9000\n")
    other = starting_point(["CartPole-v1", "--config", str(file), "--algo", "n-step-q"])[1]
    assert dataclasses.replace(other, algo="n-step-q") == dataclasses.replace(
        preset_for("fast", "CartPole-v1", "n-step-q"), frames=9000
    )
    file.write_text('env = "asyncrl/Target-v0"\npreset = "paper"\nentropy_cost = 0.5\n')
    paper = starting_point(["--config", str(file)])[1]
    assert paper == dataclasses.replace(preset_for("paper", "asyncrl/Target-v0"), entropy_cost=0.5)


def test_a_whole_file_means_what_it_says_and_builds_nothing(tmp_path, monkeypatch):
    config = Config(env="worlds:unbuildable", preset="fast", workers=3)
    write_config(tmp_path / "whole.toml", config, {})
    assert starting_point(["worlds:unbuildable", "--config", str(tmp_path / "whole.toml")])[1] == config


def test_the_folder_that_a_file_names_is_taken_unless_it_is_that_of_the_run_that_wrote_it(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('env = "CartPole-v1"\nrun_dir = "mine"\n')
    assert starting_point(["--config", str(file)])[1].run_dir == Path("mine")
    write_config(file, Config(env="CartPole-v1", run_dir="mine"), {"python": "3"})
    assert starting_point(["--config", str(file)])[1].run_dir is None


def test_a_strangers_file_builds_nothing_either(tmp_path):
    (tmp_path / "mine.toml").write_text('env = "worlds:tiny"\n')
    with pytest.raises(UserError, match="imports code"):
        starting_point(["--config", str(tmp_path / "mine.toml")])


@pytest.mark.parametrize(
    ("preset", "algo", "epsilon_end", "target_interval"),
    [
        ("fast", "n-step-q", 5_000, 200),
        ("fast", "one-step-q", 5_000, 50),
        ("fast", "one-step-sarsa", 5_000, 50),
        ("fast-vector", "n-step-q", 20_000, 1_000),
        ("fast-vector", "one-step-q", 20_000, 400),
        ("fast-vector", "one-step-sarsa", 20_000, 400),
    ],
)
def test_in_fast_presets_the_schedules_of_q_methods_follow_the_length_of_the_run(
    preset, algo, epsilon_end, target_interval
):
    config = dataclasses.replace(make_preset(preset, algo), frames=50_000)
    assert config.algo == algo
    assert (config.epsilon_end_frames, config.target_interval_frames) == (epsilon_end, target_interval)
    actor_critic, paper = make_preset(preset), make_preset("paper", algo)
    for other in (actor_critic, paper):
        assert (other.epsilon_end_frames, other.target_interval_frames) == (4_000_000, 40_000)
    assert dataclasses.replace(paper, algo="a3c") == make_preset("paper")


def test_a_file_starts_from_its_preset_for_its_method(tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "fast-vector"\nalgo = "one-step-q"\n')
    assert read_config(tmp_path / "mine.toml") == make_preset("fast-vector", "one-step-q")


def test_a_target_is_copied_at_least_after_every_frame():
    assert Config(frames=100, target_frames=None).target_interval_frames == 1


def test_whole_episodes_are_written_as_none():
    assert Config(t_max=None).t_max is Config(t_max="none").t_max is None


@pytest.mark.parametrize(("workers", "games"), [(1, 8), (2, 8), (4, 8), (5, 6), (8, 4), (16, 2), (32, 1), (64, 1)])
def test_many_workers_of_fast_have_fewer_games_and_take_smaller_steps(workers, games):
    config = make_preset("fast", "a3c", workers)
    assert (config.workers, config.envs_per_worker) == (workers, games)
    assert config.learning_rate == pytest.approx(1e-3 * math.sqrt(games / 8), rel=1e-2)
    alone = make_preset("fast", "a3c", 1)
    same = {"workers": 1, "envs_per_worker": 8, "learning_rate": alone.learning_rate}
    assert dataclasses.replace(config, **same) == alone


def test_other_presets_and_methods_leave_the_games_of_many_workers_alone():
    for preset, algo in (("fast", "a2c"), ("fast", "n-step-q"), ("fast-vector", "a3c"), ("paper", "a3c")):
        few, many = (make_preset(preset, algo, workers) for workers in (1, 64))
        assert dataclasses.replace(many, workers=1) == few
    pixels = make_preset("fast-pixels", "a3c", 16)
    assert (pixels.envs_per_worker, pixels.learning_rate) == (2, pytest.approx(2.5e-4))


def test_every_way_to_train_tells_the_preset_how_many_workers_there_are(tmp_path, monkeypatch):
    wanted = make_preset("fast", "a3c", 16)
    (tmp_path / "mine.toml").write_text("workers = 16\n")
    assert read_config(tmp_path / "mine.toml") == wanted
    assert starting_point(["ALE/Pong-v5", "--workers", "16"])[1] == wanted
    other = starting_point(["--config", str(tmp_path / "mine.toml"), "--workers=2e1"])[1]
    assert other == make_preset("fast", "a3c", 20)
    seen = []
    monkeypatch.setattr("asyncrl.run._train", lambda config, *_: seen.append(config))
    asyncrl.train("ALE/Pong-v5", workers=16, run_dir=tmp_path / "run")
    assert dataclasses.replace(seen[0], run_dir=None) == wanted
    for words in (["--workers", "many"], ["--workers=0"], ["--workers", "--help"]):  # the parser has its say
        assert starting_point(["ALE/Pong-v5", *words])[1].workers == available_cores()


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 workers"), (1, "1 worker"), (2, "2 workers"), (1200, "1,200 workers")]
)
def test_one_is_no_plural(number, text):
    assert counted(number, "worker") == text
