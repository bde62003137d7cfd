"""Measure training speed on this machine: asyncrl, Stable-Baselines3's A2C, and the ceilings, in alternation.

Every contender is a script of its own that prints one measurement. In each round all of them run one after the other on
the same cores. A measurement during which other processes took more than a few percent of the machine is repeated, and
left out if it stays so.
"""

import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import tyro
from contenders import Contender, make_contenders
from meter import Measurement
from report import make_report, print_report

from asyncrl.machine import available_cores
from asyncrl.presets import fast_preset
from asyncrl.run import git_revision

HERE = Path(__file__).parent
NEAR_BEST = 0.9  # of the fastest of its group in the pilot round: what is slower stays out of the rounds


@dataclass(frozen=True)
class Arguments:
    """Measure asyncrl beside Stable-Baselines3 and the machine's ceilings."""

    # Rounds; the table shows medians over them.
    rounds: int = 5
    # Seconds of each measurement of a trainer; ceilings take half as long.
    seconds: float = 10.0
    # Seconds of warm-up before it.
    warmup: float = 5.0
    # Actor-learner processes; by default one per core.
    workers: int = available_cores()
    # Environments of each; the peers get as many in all.
    envs_per_worker: int = fast_preset().envs_per_worker
    # The game.
    env: str = "ALE/Pong-v5"
    # Share of the cores that others may use during a measurement before it counts as disturbed.
    quiet: float = 0.05
    # How often a disturbed measurement is repeated.
    repeats: int = 2
    # Names of groups to measure (asyncrl, sb3, environments, network); all by default.
    only: tuple[str, ...] = ()
    # Print JSON instead of a table.
    json: bool = False
    # Keep the result in benchmarks/results/.
    save: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


@dataclass(frozen=True)
class Row:
    """A measurement and where it belongs."""

    contender: str
    group: str
    round: int  # 0 is the pilot
    quiet: bool
    measurement: Measurement


def main() -> int:
    """Measure, report."""
    args = tyro.cli(Arguments, description=__doc__)
    if not Path("/proc/stat").exists():
        print("bench: needs Linux, whose /proc tells processor time and foreign load", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`
    contenders = [c for c in make_contenders(args) if not args.only or c.group in args.only]
    rows = run_rounds(contenders, args)
    result = {
        "schema": 1,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": describe_machine(),
        "settings": dataclasses.asdict(args),
        "rows": [dataclasses.asdict(row) for row in rows],
        **make_report(rows, args.workers),
    }
    print(json.dumps(result)) if args.json else print_report(result)
    if args.save:
        path = HERE / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        say(f"kept in {path.relative_to(HERE.parent)}")
    return 0


def run_rounds(contenders: list[Contender], args: Arguments) -> list[Row]:
    """Measure every contender once as a pilot, then those near the best of their group in each round."""
    groups = {c.group for c in contenders}
    rows: list[Row] = []
    if len(groups) < len(contenders):
        rows = [row for c in contenders for row in measure_quietly(c, 0, args)]
        contenders = [c for c in contenders if is_near_best(c, rows)]
    for number in range(1, args.rounds + 1):
        # Every other round goes backwards, so that nobody always runs after the same one.
        for contender in contenders if number % 2 else reversed(contenders):
            rows += measure_quietly(contender, number, args)
    return rows


def is_near_best(contender: Contender, pilot: list[Row]) -> bool:
    """Return whether its pilot is within a tenth of the best of its group, or none of its pilots was quiet."""
    speeds = {r.contender: speed(r) for r in pilot if r.group == contender.group and r.quiet}
    return contender.name not in speeds or speeds[contender.name] >= NEAR_BEST * max(speeds.values())


def speed(row: Row) -> float:
    """Return what ranks within a group: steps per second, and for ceilings those of processor time."""
    micros = row.measurement.cpu_micros_per_step
    return 1 / micros if row.group in ("environments", "network") else row.measurement.steps_per_second


def measure_quietly(contender: Contender, number: int, args: Arguments) -> list[Row]:
    """Measure until a measurement is undisturbed or repeats are used up; return all of them."""
    rows: list[Row] = []
    while len(rows) <= args.repeats and not any(row.quiet for row in rows):
        measurement = measure(contender)
        quiet = measurement.foreign_load <= args.quiet
        rows.append(Row(contender.name, contender.group, number, quiet, measurement))
        say(
            f"{'pilot' if number == 0 else f'round {number}'}: {contender.name}: "
            f"{measurement.steps_per_second:,.0f} steps/s, {measurement.cpu_micros_per_step:,.0f} us, "
            f"foreign load {measurement.foreign_load:.1%}{'' if quiet else ': disturbed'}"
        )
    return rows


def measure(contender: Contender) -> Measurement:
    """Run one contender in a session of its own and return what it measured."""
    command = [*contender.command, "--started", str(time.monotonic())]
    process = subprocess.Popen(
        command,
        cwd=HERE,
        env=contender.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):  # usually nothing is left; Ctrl-C and SIGTERM end it all
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise SystemExit(f"bench: {contender.name} failed:\n{output}{errors}")
    return Measurement(**json.loads(output.strip().splitlines()[-1]))


def describe_machine() -> dict[str, str | int]:
    """Return what decides speed besides the code."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = ("torch", "ale-py", "gymnasium", "numpy", "stable-baselines3")
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "git_revision": git_revision(),
    }


def say(line: str) -> None:
    """Tell whoever waits; the result alone goes to standard output."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
