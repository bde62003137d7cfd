"""One training at a time in a run's folder, however the one before ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import asyncrl
from asyncrl import lock, run
from asyncrl.cli import main
from asyncrl.errors import UserError
from asyncrl.lock import holding

TINY = {"env": "asyncrl/Catch-v0", "schedule": "simulated", "workers": 1, "envs_per_worker": 1, "run_dir": "run"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_second_training_in_the_same_folder_is_refused_while_the_first_goes_on(capsys):
    told = []

    def announce(line: str) -> None:
        """Be called while a training runs: whatever comes now is the second."""
        before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
        assert main(["resume", "run", "--frames", "1M"]) == 2
        told.append(capsys.readouterr().err)
        assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before

    asyncrl.train(**TINY, frames=200, announce=lambda line: None)
    asyncrl.resume("run", frames=400, announce=announce)
    where, who = Path("run").absolute(), os.getpid()
    assert told == [f"asyncrl: {where} is being trained by process {who}: wait for its end, or stop it first\n"]
    asyncrl.resume("run", frames=600, announce=lambda line: None)  # it has ended


def test_a_new_run_is_held_too():
    def announce(line: str) -> None:
        with pytest.raises(UserError, match="is being trained by process"), holding(Path("run")):
            pass

    asyncrl.train(**TINY, frames=200, announce=announce)


def test_of_two_new_runs_of_one_name_the_second_is_refused(monkeypatch):
    """Both found the name free; in between, the one has made the folder."""
    monkeypatch.setattr(run, "new_run_dir", lambda config: Path("run"))
    asyncrl.train(**TINY, frames=200, announce=lambda line: None)
    with pytest.raises(UserError, match="run exists: choose another --run-dir"):
        asyncrl.train(**TINY, frames=200)


def test_trainings_of_the_same_second_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr(run.time, "strftime", lambda _: "now")
    names = []
    for process in (1, 2):
        monkeypatch.setattr(run.os, "getpid", lambda process=process: process)
        names.append(run.new_run_dir(asyncrl.Config(env="CartPole-v1")).name)
    assert len(set(names)) == 2


def test_a_killed_process_leaves_no_lock():
    code = "import asyncrl.lock as l, pathlib\nwith l.holding(pathlib.Path()): print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"is being trained by process {process.pid}:"), holding(Path()):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with holding(Path()):
        assert Path(".lock").read_text() == f"{os.getpid()}\n"


def test_a_file_system_without_locks_is_no_obstacle(monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    with holding(Path()):
        pass


def test_a_strangers_link_harms_no_file_of_the_users(capsys):
    """Links come along in an archive; a resume that followed one would write into whatever it names."""
    asyncrl.train(**TINY, frames=200, announce=lambda line: None)
    Path("precious").write_text("mine\n")
    for name in (".lock", "metrics.jsonl", "episodes.jsonl"):
        Path("run", name).rename("aside")
        Path("run", name).symlink_to(Path("precious").absolute())
        assert main(["resume", "run", "--frames", "400"]) == 2
        assert "Too many levels of symbolic links" in capsys.readouterr().err
        assert Path("precious").read_text() == "mine\n"
        Path("aside").replace(Path("run", name))
    Path("run", f".config.toml-{os.getpid()}").symlink_to(Path("precious").absolute())
    assert main(["resume", "run", "--frames", "400"]) == 0
    assert Path("precious").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_strangers_folder_that_is_a_link_is_not_written_to(capsys, name):
    asyncrl.train(**TINY, frames=200, announce=lambda line: None)
    for year in range(2010, 2020):
        Path("photos", str(year)).mkdir(parents=True)
    checkpoint = Path("run/checkpoints/latest").resolve()
    Path("run", name).rename("aside")
    Path("run", name).symlink_to(Path("photos").absolute())
    before = sorted(Path("photos").iterdir())
    Path("run/c").symlink_to(Path("aside").absolute())  # within the run, as an archive may have it
    for path in ["run", f"run/c/{checkpoint.name}"] if name == "checkpoints" else ["run"]:
        assert main(["resume", path, "--frames", "400"]) == 2
        assert f"run/{name} is a link: have the folder itself there" in capsys.readouterr().err
    assert sorted(Path("photos").iterdir()) == before


def test_where_nothing_can_be_written(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write to .*nowhere: No such file or directory"),
        holding(Path("nowhere")),
    ):
        pass
