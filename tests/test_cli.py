"""The command line: mistakes in one line that change nothing, help, JSON, every preset."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from asyncrl import show_verbs
from asyncrl.arguments import parse, program
from asyncrl.cli import main
from asyncrl.config import Config
from asyncrl.config_file import read_config
from asyncrl.errors import install_command
from asyncrl.presets import make_preset
from asyncrl.train_verbs import _further

TESTS = Path(__file__).parent
VERBS = ("train", "resume", "eval", "record", "plot", "envs", "bench", "tune")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run on CartPole; not to be changed."""
    run = tmp_path_factory.mktemp("finished") / "run"
    args = ("train", "CartPole-v1", "--frames", "3k", "--workers", "2", "--envs-per-worker", "2", "--run-dir", str(run))
    assert main(args) == 0
    return run


def rows(text: str) -> list[dict]:
    """Parse lines of JSON strictly: no NaN, nothing between."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_module_of_this_folder_is_found_by_those_who_are_told_how(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only_here.py").touch()
    assert main(("train", "only_here:make")) == 2
    assert "No module named 'only_here'; to import from this folder set PYTHONPATH=." in capsys.readouterr().err


def in_process_of_its_own(code: str, *args: str) -> subprocess.CompletedProcess:
    path = f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("trian", "CartPole-v1"), "there is no verb 'trian', only train, resume, eval, record, plot, envs, bench,"),
        (("train",), "train what? Name an environment"),
        (("train", "CartPol-v1"), "there is no environment CartPol-v1: did you mean CartPole-v1?"),
        (("train", "ALE/Pnog-v5"), "there is no Atari game ALE/Pnog-v5: did you mean ALE/Pong-v5?"),
        (("train", "PongNoFrameskip-v4"), "did you mean ALE/Pong-v5?"),
        (("train", "CartPole-v1", "--env", "Acrobot-v1"), "CartPole-v1 and --env Acrobot-v1 name two environments"),
        (("train", "nowhere:make"), "cannot import nowhere:make: No module named 'nowhere'"),
        (("train", "CartPole-v1", "--workers", "0"), "--workers is 0: it must be between 1 and 1024"),
        (("train", "CartPole-v1", "--workers", "-2"), "--workers is -2"),
        (("train", "CartPole-v1", "--workers", "1.5"), "'1.5' is not a whole number"),
        (("train", "CartPole-v1", "--workers", "1e30"), f"--workers is {10**30}: it must be between 1 and 1024"),
        (("train", "CartPole-v1", "--core", "lstm", "--lstm-size", "1e9"), "cannot make a network of these settings"),
        (
            ("train", "CartPole-v1", "--learning-rate", "1e300"),
            "--learning-rate is 1e+300: it must be positive, and at",
        ),
        (("train", "CartPole-v1", "--epsilon", "0.1"), "did you mean --optimizer-epsilon?"),
        (
            ("train", "CartPole-v1", "--optimizer-epsilon", "1e300"),
            "--optimizer-epsilon is 1e+300: it must be between 1e-30 and 1e30",
        ),
        (("train", "CartPole-v1", "--t-max", "never"), "Error parsing --t-max: 'never' is no number: write it like"),
        (("train", "CartPole-v1", "--run-dir", "caf\udce9"), "it must be a path in UTF-8"),
        (("train", "CartPole-v1", "--frames", "nan"), "'nan' is no number: write it like 10M"),
        (("train", "CartPole-v1", "--frames", "inf"), "'inf' is no number"),
        (("train", "CartPole-v1", "--frames", "1e400"), "'1e400' is no number"),
        (("train", "CartPole-v1", "--frames", "-1M"), "--frames is -1000000: it must be between"),
        (("train", "CartPole-v1", "--frames", "20min"), "'20min' is not a whole number"),
        (("train", "CartPole-v1", "--max-time", "10m"), "Error parsing --max-time: '10m' may be millions or"),
        (("train", "CartPole-v1", "--learning-rate", "nan"), "'nan' is no number"),
        (("train", "CartPole-v1", "--learning-rate", "-1e-3"), "--learning-rate is -0.001: it must be positive"),
        (("train", "CartPole-v1", "--learning-rate"), "--learning-rate"),
        (("train", "CartPole-v1", "--algo", "dqn"), "--algo"),
        (("train", "CartPole-v1", "--final-epsilons", "0.1", "2", "--seed", "1"), "it must be one number or more"),
        (("train", "CartPole-v1", "--final-epsilons", "0.1", "--seed", "1"), "one epsilon has the probability 1"),
        (("train", "CartPole-v1", "--wrokers", "2"), "did you mean --workers?"),
        (("train", "CartPole-v1", "more"), "more is no option: names come before options"),
        (("train", "--workers", "2", "CartPole-v1"), "CartPole-v1 is no option: names come before options"),
        (("train", "CartPole-v1", "x", "--wrokers", "2"), "did you mean --workers?"),
        (
            ("train", "asyncrl/Catch-v0", "--env-options", "rows=6", "columns=4"),
            "columns=4 is no option: commas join NAME=VALUE pairs",
        ),
        (("train", "CartPole-v1", "x", "y"), "asyncrl: x is no option"),
        (("eval", "--json", "RUN"), "eval what? Name a run before any option"),
        (
            ("train", "CartPole-v1", "--preset", "best"),
            "there is no preset best: fast, paper, paper57, fast-pixels, fast-vector",
        ),
        (("train", "CartPole-v1", "--preset", "paper", "--config", "x.toml"), "--preset and --config both say"),
        (("train", "CartPole-v1", "--config", "none.toml"), "cannot read none.toml: No such file"),
        (("train", "CartPole-v1", "--config", "."), "cannot read .: Is a directory"),
        (("train", "CartPole-v1", "--config", "latin1.toml"), "latin1.toml is not valid TOML"),
        (("train", "CartPole-v1", "--config", "unknown.toml"), "unknown.toml: there is no setting 'frams'"),
        (("train", "CartPole-v1", "--config", "wrong.toml"), "wrong.toml: --frames is '1m': it must be a whole number"),
        (("train", "CartPole-v1", "--run-dir", "there"), "there exists: choose another --run-dir, or resume it"),
        (("train", "CartPole-v1", "--run-dir", "file/x"), "cannot write to file/x: Not a directory"),
        (("train", "CartPole-v1", "--sticky"), "--sticky is for Atari games, but CartPole-v1 is none"),
        (("train", "CartPole-v1", "--network", "conv2013"), "--network conv2013 wants images"),
        (("train", "Pendulum-v1", "--algo", "one-step-q"), "wants Discrete"),
        (("train", "Blackjack-v1"), "only Box observations are supported"),
        (("train", "worlds:takes_many"), "worlds:takes_many takes Tuple"),
        (("train", "worlds:unbuildable"), "worlds:unbuildable cannot be made: RuntimeError: the court is closed ("),
        (
            ("train", "worlds:broken"),
            "worlds:broken failed in random play, before the training: RuntimeError: the ball is lost (",
        ),
        (("resume",), "resume what? Name a run"),
        (("resume", "file"), "there is no run or checkpoint at file"),
        (("resume", "nowhere"), "there is no run or checkpoint at nowhere"),
        (("resume", "RUN"), "is done with its 3,000 frames: it has 3,"),
        (("resume", "RUN", "--frames", "2k"), "is done with its 2,000 frames: it has 3,"),
        (("resume", "RUN", "--frames", "1M", "--workers", "0"), "--workers is 0"),
        (
            ("resume", "RUN", "--frames", "1M", "--env", "Acrobot-v1"),
            "was trained with env CartPole-v1, not Acrobot-v1",
        ),
        (("resume", "RUN", "--t-max", "3"), "--t-max"),
        (("eval", "nowhere"), "there is no run or checkpoint at nowhere"),
        (("eval", "there"), "there holds no latest checkpoint"),
        (("eval", "runs"), "runs holds no latest checkpoint: it is no run, but runs/old/1 in it is one"),
        (("eval", "runs/old"), "runs/old holds no latest checkpoint: it is no run, but runs/old/1 in it is one"),
        (("eval", "runs", "--checkpoint", "best"), "runs holds no best checkpoint: it is no run, but runs/old/1 in it"),
        (("eval", "RUN", "--checkpoint", "worst"), "--checkpoint"),
        (("eval", "RUN", "--episodes", "0"), "--episodes is 0: it must be at least 1"),
        (("eval", "RUN", "--episodes", "-3"), "--episodes is -3"),
        (("eval", "RUN", "--greedy", "--sampled"), "--greedy and --sampled exclude each other"),
        (("eval", "RUN", "--sticky"), "--sticky is for Atari games"),
        (("eval", "RUN", "--seed", "-1"), "--seed is -1"),
        (("record", "RUN"), "record to where?"),
        (("record", "RUN", "out.gif"), "out.gif must end in .mp4"),
        (("record", "RUN", "nowhere/out.mp4"), "cannot write nowhere/out.mp4: there is no folder nowhere"),
        (("record", "RUN", "out.mp4", "--seed", "-1"), "--seed is -1"),
        (("plot",), "plot what?"),
        (("envs", "Pong"), "Pong"),
        (("envs", "--jsn"), "did you mean --json?"),
        (("plot", "there"), "cannot read there/config.toml"),
        (("plot", "runs/old"), "runs/old holds no training: it is no run, but runs/old/1 in it is one"),
        (("tune", "CartPole-v1", "--workers", "1", "--envs-per-worker=2"), "there is nothing left to try: leave out"),
        (("tune", "CartPole-v1", "--preset", "paper", "--workers", "2"), "nothing left to try: leave out --workers"),
        (("plot", "RUN", "--out", "nowhere/x.png"), "cannot write nowhere/x.png: there is no folder nowhere"),
        (("plot", "RUN", "--out", "x.docx"), "cannot write x.docx"),
        (("plot", "RUN", "--out", "curves"), "curves must end in .png, .pdf, .svg or"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_in_one_line_and_changes_nothing(request, capsys, args, complaint):
    Path("there").mkdir()
    Path("runs/old/1/checkpoints").mkdir(parents=True)
    Path("file").touch()
    Path("latin1.toml").write_bytes('env = "Pöng"'.encode("latin-1"))
    Path("unknown.toml").write_text("frams = 3")
    Path("wrong.toml").write_text('frames = "1m"')
    run = request.getfixturevalue("finished") if "RUN" in args else None
    capsys.readouterr()
    before = {**contents(Path()), **(contents(run) if run else {})}
    assert main([str(run) if arg == "RUN" else arg for arg in args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("asyncrl: ") and captured.err.count("\n") == 1
    assert complaint in captured.err
    assert {**contents(Path()), **(contents(run) if run else {})} == before


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path.absolute(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("module", "args", "complaint"),
    [
        ("ale_py", ("train", "ALE/Pong-v5"), f"ALE/Pong-v5 needs ale-py: {install_command('atari')}"),
        (
            "imageio_ffmpeg",
            ("record", "RUN", "out.mp4"),
            f"recording needs imageio-ffmpeg: {install_command('video')}",
        ),
    ],
)
def test_a_missing_extra_is_named(finished, module, args, complaint):
    code = f"import sys; sys.modules[{module!r}] = None; from asyncrl.cli import main; sys.exit(main())"
    done = in_process_of_its_own(code, *(str(finished) if arg == "RUN" else arg for arg in args))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"asyncrl: {complaint}\n")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("called", "found", "name"),
    [
        (".venv/bin/asyncrl", None, ".venv/bin/asyncrl"),
        (".venv/bin/asyncrl", "/usr/bin/asyncrl", ".venv/bin/asyncrl"),  # another one
        ("/usr/bin/asyncrl", "/usr/bin/asyncrl", "asyncrl"),
        ("/src/asyncrl/__main__.py", "/usr/bin/asyncrl", f"{sys.executable} -m asyncrl"),
        ("/src/asyncrl/__main__.py", sys.executable, "python -m asyncrl"),
    ],
)
def test_what_is_proposed_can_be_pasted(monkeypatch, called, found, name):
    monkeypatch.setattr(sys, "argv", [called, "train"])
    monkeypatch.setattr(shutil, "which", lambda _: found)
    assert program() == name


def test_sigterm_lets_a_verb_clean_up(monkeypatch):
    cleaned = []

    def verb(_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)
        return 0

    monkeypatch.setattr(show_verbs, "plot_verb", verb)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as end:
            main(["plot", "run"])
        assert end.value.code == 128 + signal.SIGTERM and cleaned
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("none", ["none", "None"])
def test_none_is_written_as_the_help_writes_it(capsys, none):
    args = ("--t-max", none, "--max-grad-norm", none, "--envs-per-worker", "1", "--workers", "1", "--frames", "100")
    assert main(("train", "CartPole-v1", *args, "--schedule", "simulated", "--run-dir", "run")) == 0
    assert {'t_max = "none"', 'max_grad_norm = "none"'} <= set(Path("run/config.toml").read_text().splitlines())
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(("train", "--help"))
    assert "--t-max none|N" in capsys.readouterr().out


@pytest.mark.parametrize("end", [("--frames", "200"), ("--max-time", "0.2s")], ids=" ".join)
def test_the_command_that_is_proposed_goes_on(capsys, monkeypatch, end):
    monkeypatch.setattr(sys, "argv", ["script"])
    args = ("--envs-per-worker", "1", "--workers", "1", "--schedule", "simulated", "--run-dir", "a run")
    assert main(("train", "CartPole-v1", *args, *end)) == 0
    before = Path("a run/metrics.jsonl").stat().st_size
    proposed = capsys.readouterr().out.splitlines()[-4:]
    for line in (proposed[3], proposed[0], proposed[2]):
        name, *verb = shlex.split(line)
        assert name == "asyncrl" and main(verb) == 0
    assert Path("a run/metrics.jsonl").stat().st_size > before


def test_beyond_the_end_of_a_recorded_order_nothing_is_proposed(capsys):
    common = ("--envs-per-worker", "1", "--workers", "1", "--frames", "200")
    assert main(("train", "CartPole-v1", *common, "--record-order", "--run-dir", "first")) == 0
    assert "resume first --frames 4" in capsys.readouterr().out
    again = ("--schedule", "simulated", "--replay", "first", "--frames", "1M", "--run-dir", "again")
    assert main(("train", "CartPole-v1", *common[:4], *again)) == 0
    said = capsys.readouterr().out
    assert "replayed after" in said and "eval again" in said and "resume" not in said


def test_beyond_a_score_a_higher_one_is_proposed():
    ended = SimpleNamespace(reason="score", progress=None, evaluation=SimpleNamespace(mean=18.4))
    assert _further(ended) == " --stop-at-score 19"  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option_with_default_and_unit(capsys, verb):
    with pytest.raises(SystemExit) as end:
        main((verb, "--help"))
    assert end.value.code == 0
    text = capsys.readouterr().out
    first = {"train": " ENV", "tune": " ENV", "bench": " [ENV]", "envs": "", "record": " RUN OUT.mp4"}.get(verb, " RUN")
    assert f"usage: asyncrl {verb}{first} [" in text and "--json" in text and "Traceback" not in text
    options = [line for line in text.splitlines() if re.match("│? {1,2}--[a-z]", line)]  # and none that an option names
    assert options
    flat = " ".join(text.replace("│", " ").split())
    assert flat.count("default") >= len(options)
    if verb == "train":
        for told in ("environment frames", "seconds", "supplement 8", "section 5.1", "Seed of"):
            assert told in flat


def test_a_setting_that_is_on_or_off_has_both_forms():
    fast = make_preset("fast")
    assert fast.standardize_inputs and not fast.sticky
    for words, switches in (
        (["--standardize-inputs", "--no-sticky"], (True, False)),
        (["--no-standardize-inputs", "--sticky"], (False, True)),
    ):
        config = parse(Config, words, "x", fast)
        assert (config.standardize_inputs, config.sticky) == switches


def test_help_shows_the_preset_that_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        main(("train", "--preset", "paper", "--help"))
    flat = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "default: 320_000_000" in flat and "default: 16" in flat


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",), ("help",)])
def test_usage(capsys, args):
    assert main(args) == 0
    text = capsys.readouterr().out
    assert all(f"asyncrl {verb}" in text for verb in VERBS)


def test_version(capsys):
    from asyncrl import __version__

    assert main(("--version",)) == 0
    assert capsys.readouterr().out == f"asyncrl {__version__}\n"


def test_every_verb_speaks_json_alone(tmp_path):
    code = "import sys; from asyncrl.cli import main; sys.exit(main())"
    run, env = str(tmp_path / "run"), ("--env", "worlds:talkative")
    train = ("train", "worlds:talkative", "--frames", "3k", "--workers", "1", "--run-dir", run)
    told = {}
    for args in (
        train,
        ("resume", run, *env, "--frames", "6k"),
        ("eval", run, *env, "--episodes", "3"),
        ("record", run, "film.mp4", *env),
        ("plot", run, "--out", "curves.png"),
        ("bench", "worlds:talkative", "--workers", "1", "--seconds", "0.5", "--warmup", "0"),
        ("tune", "worlds:talkative", "--budget", "0.1"),
    ):
        done = in_process_of_its_own(code, *args, "--json")
        assert done.returncode == 0, done.stderr
        told[args[0]] = rows(done.stdout)
    end = told["train"][-1]
    assert end["event"] == "end" and end["reason"] == "frames" and end["frames"] >= 3_000 and end["run"] == run
    assert {row["event"] for row in told["train"]} <= {"message", "progress", "end"}
    assert told["resume"][-1]["frames"] >= 6_000
    (row,) = told["eval"]
    assert len(row["scores"]) == 3 and row["mean"] == pytest.approx(sum(row["scores"]) / 3)
    assert told["record"] == [{"video": "film.mp4", "score": pytest.approx(2, abs=2), "steps": 4}]
    assert told["plot"] == [{"picture": "curves.png", "left_out": []}]
    assert told["bench"][0]["steps_per_second"] > 0 and len(told["tune"][0]["trials"]) == 1


@pytest.mark.parametrize(
    ("preset", "env", "recorded"),
    [
        *((preset, "ALE/Pong-v5", preset) for preset in ("fast", "paper", "paper57")),
        ("fast", "CartPole-v1", "fast-vector"),
        ("paper", "CartPole-v1", "paper"),
        ("paper57", "CartPole-v1", "paper57"),
        ("fast", "asyncrl/Target-v0", "fast-continuous"),
        ("paper", "asyncrl/Target-v0", "paper-continuous"),
    ],
)
def test_every_preset_trains(capsys, preset, env, recorded):
    args = ["train", env, "--preset", preset, "--workers", "2", "--frames", "2k", "--run-dir", "run", "--json"]
    if env == "CartPole-v1":
        args += ["--network", "mlp"]
    assert main(args) == 0
    end = rows(capsys.readouterr().out)[-1]
    assert end["reason"] == "frames" and end["frames"] >= 2_000 and end["updates"] > 0
    assert end["steps"] * (4 if env.startswith("ALE/") else 1) == end["frames"]
    assert f'preset = "{recorded}"' in Path("run/config.toml").read_text()


def test_options_override_a_file(capsys):
    Path("mine.toml").write_text('env = "Acrobot-v1"\nframes = 999\nworkers = 1\n')
    args = ("train", "CartPole-v1", "--config", "mine.toml", "--frames", "1k", "--run-dir", "run")
    assert main(args) == 0
    text = Path("run/config.toml").read_text()
    assert 'env = "CartPole-v1"' in text and "frames = 1000" in text and "workers = 1" in text


def test_an_environment_that_fails_in_an_evaluation_is_told_in_one_line(capsys, monkeypatch):
    args = (
        "--frames",
        "200",
        "--schedule",
        "simulated",
        "--workers",
        "1",
        "--envs-per-worker",
        "1",
        "--run-dir",
        "run",
    )
    assert main(("train", "worlds:tiny", *args)) == 0
    capsys.readouterr()
    monkeypatch.setattr("worlds.Tiny.step", lambda *_: 1 / 0)
    assert main(("eval", "run", "--env", "worlds:tiny")) == 2
    said = capsys.readouterr().err
    assert said.startswith("asyncrl: worlds:tiny failed: ZeroDivisionError: division by zero (")
    assert said.count("\n") == 1


def test_none_ends_a_limit_on_resume(capsys, tmp_path):
    path = str(tmp_path / "run")
    limit = ["--max-time", "1h", "--stop-at-score", "1"]
    words = ["asyncrl/Catch-v0", "--frames", "200", "--workers", "1", *limit, "--run-dir", path]
    assert main(["train", *words]) == 0
    none = ["--stop-at-score", "none", "--max-time=none"]
    assert main(["resume", path, "--frames", "400", *none]) == 0
    config = read_config(tmp_path / "run" / "config.toml")
    assert (config.stop_at_score, config.max_time, config.frames) == (None, None, 400)


def test_eval_tells_the_score_in_words(finished, capsys):
    assert main(("eval", str(finished), "--episodes", "4", "--greedy", "--seed", "3")) == 0
    first = capsys.readouterr().out
    assert first.startswith("CartPole-v1 after 3,") and ", greedy: " in first and "over 4 episodes" in first
    assert main(("eval", str(finished), "--episodes", "4", "--greedy", "--seed", "3")) == 0
    assert capsys.readouterr().out == first  # the same seed, the same games
