"""What a person sees while a run trains."""

import errno
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from asyncrl import display
from asyncrl.config import Config
from asyncrl.display import JsonDisplay, LiveDisplay, PlainDisplay, make_display, plain_line, time_left
from asyncrl.metrics import Progress, WorkerProgress

CONFIG = Config(env="ALE/Pong-v5", frames=10_000_000, workers=2)


def make_progress(workers: int = 2, **changes) -> Progress:
    values = {
        "frames": 2_500_000,
        "steps": 625_000,
        "updates": 15_625,
        "episodes": 321,
        "seconds": 754.0,
        "frames_per_second": 9_876.5,
        "updates_per_second": 61.7,
        "mean_score": -12.345,
        "mean_length": 1_800.0,
        "best_score": -11.5,
        "learning_rate": 5.25e-4,
        "staleness": 0.98,
        "stats": {"policy_loss": 0.123, "value_loss": 0.456, "entropy": 1.234, "gradient_norm": 7.89},
        "evaluated_score": -10.25,
        "workers": tuple(
            WorkerProgress(i, ["running", "restarting"][i % 2], 1_250_000 + i, 4_938.0, 7_812, -12.0 - i, 0.9, i)
            for i in range(workers)
        ),
    }
    return Progress(**{**values, **changes})


def live_text(progress: Progress, width: int = 110) -> str:
    """Return what the live table shows for `progress`, as text."""
    live = LiveDisplay(CONFIG, Path("run"), Console(file=io.StringIO()))
    live.show(progress)
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(live._live.get_renderable())
    return console.export_text()


def test_the_live_table_has_the_numbers():
    text = live_text(make_progress())
    for shown in (
        "ALE/Pong-v5",
        "a3c-ff",
        "25%",
        "12:39 left",
        "2,500,000",
        "9,876",
        "61.7",
        "12:34",
        "-12.35",
        "-11.50",
    ):
        assert shown in text, shown
    for shown in ("-10.25", "321", "policy loss", "0.123", "1.23", "gradient", "7.89", "0.98", "5.25e-04"):
        assert shown in text, shown
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "running", "1,250,000", "4,938", "7,812", "-12.00", "0.90", "0"] in rows
    assert ["1", "restarting", "1,250,001", "4,938", "7,812", "-13.00", "0.90", "1"] in rows


@pytest.mark.parametrize("width", [display.TABLE_COLUMNS, 80, 110, 200])
def test_the_live_table_fits(width):
    lines = live_text(make_progress(16, frames=312_500_000, seconds=9_754.0), width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert not any("…" in line for line in lines)  # rich cuts with an ellipsis
    assert len(lines) <= 24 or width > 80


class Terminal(io.StringIO):
    """One that may go."""

    error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)


def test_a_training_outlives_its_terminal():
    terminal = Terminal()
    with LiveDisplay(CONFIG, Path("run"), Console(file=terminal, force_terminal=True)) as live:
        live.show(make_progress())
        shown = terminal.getvalue()
        assert "ALE/Pong-v5" in shown
        terminal.error = OSError(errno.EIO, "Input/output error")
        for _ in range(3):
            live.show(make_progress())
            live.announce("a line")
        assert not live.console._buffer  # nothing piles up
    assert terminal.getvalue() == shown


def test_many_workers_are_cut():
    text = live_text(make_progress(workers=40))
    assert "and 24 more" in text


def test_the_first_moments_show_dashes():
    progress = make_progress(
        frames=0, frames_per_second=0.0, mean_score=None, best_score=None, evaluated_score=None, stats={}, episodes=0
    )
    text = live_text(progress)
    assert "- left" in text and "nan" not in text and "None" not in text
    line = plain_line(CONFIG, progress)
    assert "score -" in line and "None" not in line and "nan" not in line


def test_a_plain_line_has_the_numbers():
    line = plain_line(CONFIG, make_progress())
    for shown in (
        "12:34",
        "2.5M frames",
        "9.88k frames/s",
        "score -12.35",
        "best -11.50",
        "entropy 1.23",
        "12:39 left",
    ):
        assert shown in line, shown


def test_time_left_is_the_sooner_end():
    progress = make_progress(seconds=754.0)
    assert time_left(Config(frames=10_000_000), progress) == "12:39 left"
    assert time_left(Config(frames=10_000_000, max_time=814), progress) == "1:00 left"


def test_plain_and_json_lines_come_every_ten_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    for kind in (PlainDisplay, JsonDisplay):
        with kind(CONFIG) as shown:
            for _ in range(30):
                now[0] += 1.0
                shown.show(make_progress(learning_rate=float("nan")))
            shown.announce("[a] line\nof two")
            print("printed by an environment", file=sys.stdout if kind is JsonDisplay else sys.stderr)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == 2 * "printed by an environment\n"
    assert len(lines) == 3 + 2 + 3 + 1
    row = json.loads(lines[5], parse_constant=pytest.fail)
    assert row["event"] == "progress" and row["frames"] == 2_500_000 and row["learning_rate"] is None
    assert json.loads(lines[-1]) == {"event": "message", "text": "[a] line\nof two"}


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveDisplay), ("dumb", PlainDisplay)])
def test_a_dumb_terminal_shows_lines_while_it_trains(monkeypatch, term, kind):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert type(make_display(CONFIG, Path("run"), as_json=False)) is kind


@pytest.mark.parametrize(("columns", "kind"), [(76, LiveDisplay), (75, PlainDisplay)])
def test_a_terminal_too_narrow_for_the_table_shows_lines(monkeypatch, columns, kind):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert type(make_display(CONFIG, Path("run"), as_json=False)) is kind


def test_nothing_is_shown_before_there_is_something_to_tell():
    out = io.StringIO()
    with LiveDisplay(CONFIG, Path("run"), Console(file=out, force_terminal=True, width=80)) as live:
        assert out.getvalue() == ""
        live.announce("into run")
        assert "into run" in out.getvalue() and "starting workers" in out.getvalue()
    with LiveDisplay(CONFIG, Path("run"), Console(file=(out := io.StringIO()), force_terminal=True, width=80)):
        pass
    assert out.getvalue() == ""


def test_no_terminal_no_live_table():
    assert type(make_display(CONFIG, Path("run"), as_json=False)) is PlainDisplay
    assert type(make_display(CONFIG, Path("run"), as_json=True)) is JsonDisplay
