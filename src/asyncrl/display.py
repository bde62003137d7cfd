"""What a person sees while a run trains: a live table on a terminal, plain lines elsewhere, JSON for machines."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncrl.config import Config
from asyncrl.journals import json_line
from asyncrl.metrics import Progress
from asyncrl.quantities import format_count, format_duration

PLAIN_SECONDS = 10.0
MAX_ROWS = 16  # workers shown in the live table
TABLE_COLUMNS = 76  # of the live table with numbers as long as they get


class Display(Protocol):
    """Where progress and announcements go."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def show(self, progress: Progress) -> None:
        """Take the newest progress."""
        ...

    def announce(self, line: str) -> None:
        """Take a line worth telling."""
        ...


class LiveDisplay:
    """A table that renews itself twice a second."""

    def __init__(self, config: Config, run_dir: Path, console: Console) -> None:
        self.config, self.run_dir, self.console = config, run_dir, console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        return self  # nothing is shown before there is something to tell: the settings may have a mistake

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._forgiving():
            self._live.stop()

    def show(self, progress: Progress) -> None:
        with self._forgiving():
            self._start()
            self._live.update(
                Group(self._headline(progress), summary_table(progress), worker_table(progress)), refresh=True
            )

    def announce(self, line: str) -> None:
        with self._forgiving():
            self._start()
            self.console.print(line, highlight=False, markup=False)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Show nothing more once the terminal has gone; a training is worth more."""
        try:
            yield
        except OSError:
            self.console.quiet = True  # it would keep all that it could not write

    def _start(self) -> None:
        if not self._live.is_started:
            self._live.start()
            self._live.update(Text("starting workers ...", style="dim"), refresh=True)

    def _headline(self, progress: Progress) -> Table:
        config = self.config
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        done = min(1.0, max(progress.frames / config.frames, progress.seconds / (config.max_time or float("inf"))))
        line.add_row(
            Text.assemble((config.env, "bold cyan"), f"  {config.algo}-{config.core}  {config.preset}"),
            ProgressBar(total=1.0, completed=done),
            f"{done:4.0%}  {time_left(config, progress)}",
        )
        return line


class PlainDisplay:
    """One line every ten seconds, for logs."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def show(self, progress: Progress) -> None:
        if time.monotonic() >= self._next and progress.updates:
            self._next = time.monotonic() + PLAIN_SECONDS
            say(plain_line(self.config, progress))

    def announce(self, line: str) -> None:
        say(line)


class JsonDisplay(PlainDisplay):
    """One JSON object a line, for machines. What an environment prints meanwhile goes to stderr."""

    def __enter__(self) -> Self:
        self._out = sys.stdout
        self._redirection = contextlib.redirect_stdout(sys.stderr)
        self._redirection.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._redirection.__exit__(kind, error, trace)

    def show(self, progress: Progress) -> None:
        if time.monotonic() >= self._next and progress.updates:
            self._next = time.monotonic() + PLAIN_SECONDS
            say(json_line({"event": "progress", **progress.as_row()}), self._out)

    def announce(self, line: str) -> None:
        say(json_line({"event": "message", "text": line}), self._out)


def say(line: str, out: TextIO | None = None) -> None:
    """Print `line` at once. A training is worth more than a line that finds no room where its output is kept.

    Raises:
        BrokenPipeError: if whoever reads the output has gone.
    """
    try:
        print(line, file=out, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def make_display(config: Config, run_dir: Path, *, as_json: bool) -> Display:
    """Return what suits this output."""
    if as_json:
        return JsonDisplay(config)
    console = Console()
    # A dumb terminal cannot go back to renew a table: rich would show nothing before the end. A narrow one cuts it.
    can_renew = console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()
    is_lively = can_renew and console.width >= TABLE_COLUMNS
    return LiveDisplay(config, run_dir, console) if is_lively else PlainDisplay(config)


def plain_line(config: Config, progress: Progress) -> str:
    """Return the progress as one line."""
    stats = progress.stats
    parts = [
        format_duration(progress.seconds),
        f"{format_count(progress.frames)} frames",
        f"{format_count(progress.frames_per_second)} frames/s",
        f"score {score(progress.mean_score)}",
        f"best {score(progress.best_score)}",
        *(
            f"{name} {stats[key]:.3g}"
            for key, name in (("entropy", "entropy"), ("gradient_norm", "grad"))
            if key in stats
        ),
        f"lag {progress.staleness:.1f}",
        f"{time_left(config, progress)}",
    ]
    return "  ".join(parts)


def summary_table(progress: Progress) -> Table:
    """Return the totals, four pairs a row."""
    stats = progress.stats
    pairs = [
        ("frames", f"{progress.frames:,}"),
        ("frames/s", f"{progress.frames_per_second:,.0f}"),
        ("updates/s", f"{progress.updates_per_second:,.1f}"),
        ("time", format_duration(progress.seconds)),
        ("score (100)", score(progress.mean_score)),
        ("best", score(progress.best_score)),
        ("evaluated", score(progress.evaluated_score)),
        ("episodes", f"{progress.episodes:,}"),
        *((name.replace("_", " ").removesuffix(" norm"), f"{value:.3g}") for name, value in stats.items()),
        ("learning rate", f"{progress.learning_rate:.2e}"),
        ("staleness", f"{progress.staleness:.2f}"),
    ]
    table = Table.grid(padding=(0, 1))  # 80 columns are enough
    for _ in range(4):
        table.add_column(style="dim", justify="right", no_wrap=True)
        table.add_column(justify="left", min_width=7, no_wrap=True)
    for i in range(0, len(pairs), 4):
        table.add_row(*(cell for pair in pairs[i : i + 4] for cell in pair))
    return table


def worker_table(progress: Progress) -> Table:
    """Return one row per worker."""
    table = Table(box=None, header_style="dim", padding=(0, 1), collapse_padding=True, pad_edge=False)
    for name in ("worker", "state", "frames", "frames/s", "updates", "score", "staleness", "restarts"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for row in progress.workers[:MAX_ROWS]:
        table.add_row(
            str(row.worker),
            Text(row.state, style={"running": "green", "restarting": "red"}.get(row.state, "yellow")),
            f"{row.frames:,}",
            f"{row.frames_per_second:,.0f}",
            f"{row.updates:,}",
            score(row.mean_score),
            f"{row.staleness:.2f}",
            str(row.restarts),
        )
    if len(progress.workers) > MAX_ROWS:
        table.add_row("...", f"and {len(progress.workers) - MAX_ROWS} more")
    return table


def score(value: float | None) -> str:
    """Return a score, or a dash while there is none."""
    return "-" if value is None else f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def time_left(config: Config, progress: Progress) -> str:
    """Return how long the rest will take at the present rate."""
    seconds = float("inf")
    if progress.frames_per_second > 0:
        seconds = max(0, config.frames - progress.frames) / progress.frames_per_second
    if config.max_time is not None:
        seconds = min(seconds, max(0.0, config.max_time - progress.seconds))
    return f"{format_duration(seconds)} left" if seconds < float("inf") else "- left"
