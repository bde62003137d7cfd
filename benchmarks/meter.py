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


class ForeignLoad:
    """The share of the cores that others use while a session runs, but for its pauses.

    Args:
        session: process id of its leader.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self._foreign = self._capacity = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin an interval that counts."""
        self._before = time.monotonic(), busy_seconds(), self._used()

    def end(self) -> None:
        """End an interval. What processes used that ended within it counts as foreign: keep intervals short."""
        then, busy_before, used_before = self._before
        now, busy, used = time.monotonic(), busy_seconds(), self._used()
        ours = sum(seconds - used_before.get(process, 0.0) for process, seconds in used.items())
        self._foreign += max(0.0, busy - busy_before - ours)
        self._capacity += (now - then) * len(os.sched_getaffinity(0))

    def take(self) -> float:
        """Return the share over the intervals since the last call (0 is a quiet machine)."""
        share = self._foreign / self._capacity if self._capacity else 0.0
        self._foreign = self._capacity = 0.0
        return share

    def _used(self) -> dict[str, float]:
        """Return the seconds of each living process, by its id and start, as ids come again."""
        processes = session_processes(self._session)
        return {f"{p.name} {f[19]}": (int(f[11]) + int(f[12])) / TICKS_PER_SECOND for p, f in processes}


def session_processes(session: int | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder in /proc of each living process of a session (this one) and its `stat` after the name."""
    session = os.getsid(0) if session is None else session
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
