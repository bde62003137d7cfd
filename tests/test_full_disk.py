"""Where nothing more can be written: rows are missed, checkpoints end the run in time, nothing is half there.

A limit on the size of files stands for the full disk: the system refuses to write beyond it in the same way.
"""

import contextlib
import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncrl
from asyncrl import checkpoint as files
from asyncrl import run as runs
from asyncrl import saving
from asyncrl.checkpoint import load_checkpoint
from asyncrl.errors import UserError
from asyncrl.journals import Events, Journal, JsonLines, read_json_lines
from asyncrl.pointers import find_checkpoint
from asyncrl.saving import Saving
from asyncrl.trainer import Trainer

CATCH = {"env": "asyncrl/Catch-v0", "envs_per_worker": 2, "workers": 2, "run_dir": "run"}
SIMULATED = {**CATCH, "schedule": "simulated", "checkpoint_frames": 500}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def limit(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond `num_bytes`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_whole(run: Path) -> None:
    """Check that every row and every checkpoint is whole, and that nothing unfinished lies about."""
    for name in ("metrics.jsonl", "episodes.jsonl"):
        text = (run / name).read_text()
        assert not text or text.endswith("\n")
        assert len(read_json_lines(run / name)) == text.count("\n")
    for path in (run / "checkpoints").iterdir():
        assert path.name.isdigit() or path.name in ("latest", "best")
        load_checkpoint(path)


def test_a_piece_is_appended_whole_or_not_at_all():
    journal = Journal(Path("journal"))
    journal.write(b"12345678")
    with limit(10):
        journal.write(b"9")
        for _ in range(2):
            with pytest.raises(OSError, match=r"File too large|No space left"):
                journal.write(b"abcd")  # of which one byte has room
        assert Path("journal").read_bytes() == b"123456789"
    journal.write(b"abcd")
    journal.close()
    assert Path("journal").read_bytes() == b"123456789abcd"


def test_a_row_cut_short_by_a_crash_takes_no_other_with_it():
    Path("rows").write_text('{"n": 1}\n{"n": 2')
    rows = JsonLines(Path("rows"))
    rows.write({"n": 3})
    rows.close()
    assert read_json_lines(Path("rows")) == [{"n": 1}, {"n": 3}]


def test_tensorboard_reads_on_behind_what_found_no_room():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = Events(Path("events"))
    events.scalars({"score": 1.0, "entropy": 2.0}, 10)
    (file,) = Path("events").iterdir()
    with limit(file.stat().st_size + 5), pytest.raises(OSError):
        events.scalars({"score": 3.0}, 20)
    events.scalars({"score": 4.0}, 30)
    events.close()
    read = EventAccumulator("events")
    read.Reload()
    assert [(row.step, row.value) for row in read.Scalars("score")] == [(10, 1.0), (30, 4.0)]


class Disk:
    """Is full from the time that a training has saved `after` checkpoints until it has complained `times`."""

    def __init__(self, after: int, times: int) -> None:
        self.after, self.times, self.told = after, times, []
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def announce(self, line: str) -> None:
        self.told.append(line)
        if sum("cannot write a checkpoint" in told for told in self.told) >= self.times:
            self.free()

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self.before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.fixture
def disk(monkeypatch):
    """Return a function that trains while the disk is full for a while."""
    save, made = files.save_checkpoint, []

    def train(after: int, times: int, **settings) -> Disk:
        disk = Disk(after, times)
        made.append(disk)

        def save_then_fill(*args):
            path = save(*args)
            disk.after -= 1
            if disk.after == 0:
                disk.fill()
            return path

        monkeypatch.setattr("asyncrl.saving.save_checkpoint", save_then_fill)
        try:
            asyncrl.train(**{**SIMULATED, **settings}, announce=disk.announce)
        finally:
            disk.free()
        return disk

    yield train
    for each in made:
        each.free()


def test_a_disk_that_is_full_for_a_while_costs_rows_and_nothing_else(disk):
    told = disk(after=1, times=2, frames=2_000).told[1:]
    complaints = [line.partition(": ")[2] for line in told if "a checkpoint" in line]
    safe = min(int(path.name) for path in Path("run/checkpoints").glob("[0-9]*"))
    assert complaints == [
        f"File too large; {safe} frames are safe, and the training goes on ({i} of 3)" for i in (1, 2)
    ]
    rows = [line for line in told if "a checkpoint" not in line]
    assert len(rows) == 1  # once, not for each of them
    assert rows[0].endswith("File too large; the training goes on, without what it would have logged")
    assert_whole(Path("run"))
    assert load_checkpoint(find_checkpoint(Path("run"))).state["frames"] >= 2_000


@pytest.mark.parametrize("schedule", ["simulated", "processes"])
def test_a_disk_that_stays_full_ends_the_training_and_keeps_the_last_checkpoint(disk, schedule):
    ends = r"checkpoints: File too large \(4 times in a row\); [\d,]+ frames are safe$"  # three, and at the end
    with pytest.raises(UserError, match=f"cannot write a checkpoint into .*{ends}"):
        disk(after=1, times=99, frames=10**9, schedule=schedule, checkpoint_every=0.3)
    assert_whole(Path("run"))
    assert not multiprocessing.active_children()
    saved = load_checkpoint(find_checkpoint(Path("run"))).state["frames"]
    told = []
    run = asyncrl.resume("run", frames=saved + 500, announce=told.append)
    assert run.outcome is not None and run.outcome.reason == "frames" and len(told) == 1


def test_the_last_checkpoint_must_be_there(disk):
    with pytest.raises(UserError, match=r"File too large( \(\d times in a row\))?; [\d,]+ frames are safe$"):
        disk(after=1, times=99, frames=1_000)
    assert_whole(Path("run"))


def test_a_run_that_cannot_even_begin_leaves_nothing(monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_config", fail)
    with pytest.raises(UserError, match=r"^cannot write to run: No space left on device$"):
        asyncrl.train(**SIMULATED, frames=500)
    assert list(Path().iterdir()) == []


def test_rename_that_fails_leaves_the_checkpoint_of_the_same_frames(monkeypatch):
    asyncrl.train(**SIMULATED, frames=500, announce=lambda line: None)
    trained = find_checkpoint(Path("run"))
    before = (trained / "state.json").read_bytes()
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.startswith(".writing"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    checkpoint = load_checkpoint(trained)
    config = runs.read_run_config(Path("run"))
    trainer = Trainer(config, Path("run"), show=print, announce=print, checkpoint=checkpoint)
    trainer._save()
    assert (find_checkpoint(Path("run")) / "state.json").read_bytes() == before
    assert_whole(Path("run"))


def test_output_that_finds_no_room_is_told_in_one_line():
    asyncrl.train(**SIMULATED, frames=500, announce=lambda line: None)
    command = [sys.executable, "-m", "asyncrl", "plot", "run", "--out", "x.png"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "asyncrl: No space left on device\n")


def test_a_log_that_finds_no_room_ends_no_training():
    args = ("train", "asyncrl/Catch-v0", "--schedule", "simulated", "--frames", "500", "--run-dir", "run")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asyncrl", *args], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"asyncrl: No space left on device\n")  # the last words found no room
    assert load_checkpoint(find_checkpoint(Path("run"))).state["frames"] >= 500


def test_where_links_were_copied_as_folders_the_training_goes_on_too(monkeypatch):
    """As after `scp -r`: the name of `latest` no longer says its frames."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_checkpoint", fail)
    Path("latest").mkdir()
    told = []
    assert not Saving(Path(), told.append).save(None, None, {}, is_best=False, is_last=False)  # type: ignore[arg-type]
    (line,) = told
    assert "No space left on device; those of the run as it was copied are safe, and the training goes on" in line
