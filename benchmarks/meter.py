"""Counts steps, processor time and foreign load over a window. Standard library only: it runs in every peer's venv."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    """One contender over one window."""

    steps: int  # agent steps of all environments
    seconds: float
    cpu_seconds: float  # of every process of the contender: trainer, workers, environments
    foreign_load: float  # share of the cores' capacity that others used: 0 is a quiet machine
    startup_seconds: float  # from the start of the process until the first update or step of every worker
    memory_megabytes: float = 0.0  # of every process at the end, a page that several share counted once

    @property
    def steps_per_second(self) -> float:
        """Agent steps per second of wall-clock time."""
        return self.steps / self.seconds

    @property
    def cpu_micros_per_step(self) -> float:
        """Microseconds of processor time per agent step."""
        return self.cpu_seconds / self.steps * 1e6


class Window:
    """A warm-up, then a measurement. Call `is_over(steps)` again and again, with the number of steps taken so far.

    The contender must be the leader of its own session, as `bench.py` starts it: its processor time is that of the
    session, so that workers under a forkserver and environments in subprocesses count.

    Args:
        warmup: seconds after the first steps that are left out.
        seconds: to measure.
        started: when the process was started, on the monotonic clock.
    """

    def __init__(self, warmup: float, seconds: float, started: float) -> None:
        self._warmup, self._seconds, self._started = warmup, seconds, started
        self._startup: float | None = None
        self._begin: tuple[int, float, float, float] | None = None
        self.measurement: Measurement | None = None

    def is_over(self, steps: int) -> bool:
        """Note `steps`; return whether the measurement is complete."""
        now = time.monotonic()
        if self._startup is None:
            if steps > 0:
                self._startup = now - self._started
        elif self._begin is None:
            if now - self._started - self._startup >= self._warmup:
                self._begin = (steps, time.monotonic(), session_cpu_seconds(), busy_seconds())
        elif now - self._begin[1] >= self._seconds:
            self._finish(steps, *self._begin)
        return self.measurement is not None

    def _finish(self, steps: int, steps_before: int, then: float, cpu_before: float, busy_before: float) -> None:
        assert self._startup is not None
        seconds, cpu, busy = time.monotonic() - then, session_cpu_seconds() - cpu_before, busy_seconds() - busy_before
        foreign = max(0.0, busy - cpu) / (seconds * len(os.sched_getaffinity(0)))
        memory = session_megabytes()
        self.measurement = Measurement(steps - steps_before, seconds, cpu, foreign, self._startup, memory)

    def print_measurement(self) -> None:
        """Hand the measurement to `bench.py`: one line of JSON, the last of the output."""
        if self.measurement is None:
            sys.exit("ended before the measurement was complete")
        print(json.dumps(asdict(self.measurement)), flush=True)


def window_arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every contender takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--started", type=float, default=time.monotonic())
    parser.add_argument("--env", default="ALE/Pong-v5")
    return parser


def session_cpu_seconds() -> float:
    """Return the processor time used so far by all living processes of this session."""
    ticks = (int(fields[11]) + int(fields[12]) for _, fields in session_processes())
    return sum(ticks) / TICKS_PER_SECOND


def session_processes() -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder in /proc of each living process of this session, and what its `stat` says after the name."""
    session = os.getsid(0)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield folder, fields


def session_megabytes() -> float:
    """Return the proportional set sizes (PSS) of all living processes of this session, summed."""
    kilobytes = 0
    for folder, _ in session_processes():
        with contextlib.suppress(OSError):
            lines = (folder / "smaps_rollup").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


def busy_seconds() -> float:
    """Return how long the cores that this process may use have been busy, for whomever (time stolen by a host too)."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in cores:
            user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / TICKS_PER_SECOND
