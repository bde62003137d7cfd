"""Rounds of measurements: every contender once a round; what was disturbed is repeated, then dropped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from contenders import CEILINGS, Contender
from meter import Measurement

HERE = Path(__file__).parent
# Of the fastest of its group in the pilot round: what is slower stays out. Well below 1, as one pilot is noisy.
NEAR_BEST = 0.8
TIME_LIMIT_SECONDS = 300.0  # of one measurement, start-up included


class ContenderFailed(Exception):
    """A contender ended without a measurement; the message is its last line."""


@dataclass(frozen=True)
class Rules:
    """How often to measure, and what counts as undisturbed."""

    rounds: int
    quiet: float  # largest share of the cores that others may use
    repeats: int  # of a disturbed measurement


@dataclass(frozen=True)
class Row:
    """A measurement and where it belongs."""

    contender: str
    group: str
    round: int  # 0 is the pilot
    quiet: bool
    measurement: Measurement


class Rounds:
    """All measurements of a benchmark, and why contenders failed.

    A contender that fails once is out; the reason stays for the table.

    Args:
        contenders: all of them.
        rules: of the rounds.
        rows: measurements of rounds that ended earlier, which are not run again.
        failures: of contenders then, and why: they are out.
        keep: called with the measurements of each round that ends, and all failures of contenders that began.
    """

    def __init__(
        self,
        contenders: list[Contender],
        rules: Rules,
        rows: Iterable[Row] = (),
        failures: Mapping[str, str] = MappingProxyType({}),
        keep: Callable[[list[Row], dict[str, str]], None] = lambda rows, failures: None,
    ) -> None:
        self.contenders, self.rules, self._keep = contenders, rules, keep
        self.rows = [row for row in rows if row.round <= rules.rounds]
        self._ended = {row.round for row in self.rows}
        self.failures = {**failures, **{c.name: c.failure for c in contenders if c.failure is not None}}

    def run(self) -> None:
        """Measure every contender once as a pilot, then those near the best of their group in each round."""
        runners = self.contenders
        if len({c.group for c in runners}) < len(runners):
            self._run_round(0, runners)
            runners = [c for c in runners if self._is_near_best(c)]
        for number in range(1, self.rules.rounds + 1):
            # Every other round goes backwards, so that nobody always runs after the same one.
            self._run_round(number, runners if number % 2 else runners[::-1])

    def _run_round(self, number: int, runners: list[Contender]) -> None:
        if number in self._ended:
            return
        for contender in runners:
            self._measure_quietly(contender, number)
        # What could not be installed is tried again in the next sitting.
        ran = {c.name for c in self.contenders if c.failure is None}
        failures = {name: why for name, why in self.failures.items() if name in ran}
        self._keep([row for row in self.rows if row.round == number], failures)

    def _is_near_best(self, contender: Contender) -> bool:
        """Return whether its pilot is near the best of its group, or none of its pilots was quiet."""
        pilots = [r for r in self.rows if r.round == 0 and r.group == contender.group and r.quiet]
        speeds = {r.contender: _speed(r) for r in pilots}
        return contender.name not in speeds or speeds[contender.name] >= NEAR_BEST * max(speeds.values())

    def _measure_quietly(self, contender: Contender, number: int) -> None:
        """Measure until a measurement is undisturbed or repeats are used up; keep all of them."""
        if contender.name in self.failures:
            return
        for _ in range(1 + self.rules.repeats):
            try:
                measurement = measure(contender)
            except ContenderFailed as failure:
                self.failures[contender.name] = str(failure)
                say(f"{contender.name}: failed: {failure}")
                return
            quiet = measurement.foreign_load <= self.rules.quiet
            self.rows.append(Row(contender.name, contender.group, number, quiet, measurement))
            say(
                f"{'pilot' if number == 0 else f'round {number}'}: {contender.name}: "
                f"{measurement.steps_per_second:,.0f} steps/s, {measurement.cpu_micros_per_step:,.0f} us, "
                f"foreign load {measurement.foreign_load:.1%}{'' if quiet else ': disturbed'}"
            )
            if quiet:
                return


def _speed(row: Row) -> float:
    """Return what ranks within a group: steps per second, and for ceilings those of processor time."""
    return 1 / row.measurement.cpu_micros_per_step if row.group in CEILINGS else row.measurement.steps_per_second


def measure(contender: Contender) -> Measurement:
    """Run one contender in a session of its own and return what it measured.

    Raises:
        ContenderFailed: if it ends without a measurement, or does not end in time.
    """
    process = subprocess.Popen(
        [*contender.command, "--started", str(time.monotonic())],
        cwd=HERE,
        env=contender.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIME_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise ContenderFailed(f"no measurement within {TIME_LIMIT_SECONDS:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # usually nothing is left; Ctrl-C and SIGTERM end it all
            os.killpg(process.pid, signal.SIGKILL)
    # Some peers print to standard output, so the measurement may have lines after it.
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError, TypeError):
            measurement = Measurement(**json.loads(line))
            if measurement.steps <= 0:
                raise ContenderFailed("it made no step while it was measured")
            return measurement
    lines = (errors.strip() or output.strip() or "it printed nothing").splitlines()
    raise ContenderFailed(f"{lines[-1]} (exit code {process.returncode})")


def say(line: str) -> None:
    """Tell whoever waits; the result alone goes to standard output."""
    print(line, file=sys.stderr, flush=True)
