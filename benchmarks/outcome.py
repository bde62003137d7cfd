"""What a benchmark leaves: the measurements with the machine they come from."""

import dataclasses
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from report import SCHEMA, Pair, make_report
from rounds import HERE, Rounds

from asyncrl.machine import available_cores
from asyncrl.run import git_revision

# Of a machine: what must be the same for figures to be compared. Clouds give processors of several generations one
# name, hence family and model.
HOST = ("processor", "family", "model", "capability", "cores")
NEWER = {"family", "model"}  # what older figures do not name, which is then not compared


def is_like(kept: dict[str, Any], machine: dict[str, Any], name: str) -> bool:
    """Return whether `name` of HOST is the same of both machines, as far as is known."""
    return (name in NEWER and name not in kept) or kept[name] == machine[name]


def prepare(name: str) -> None:
    """End with one line where measuring is impossible; let SIGTERM end everything that was started.

    A container with a share of many cores' time is told how to have a foreign load that can be believed.
    """
    if not Path("/proc/stat").exists():
        print(f"{name}: needs Linux, whose /proc tells processor time and foreign load", file=sys.stderr)
        sys.exit(2)
    cores, places = available_cores(), sorted(os.sched_getaffinity(0))
    if cores < len(places):
        print(
            f"{name}: {cores} of {len(places)} cores' time is ours here, so the foreign load told is not ours to judge "
            f"by: begin the command with taskset -c {','.join(map(str, places[:cores]))}",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`


def make_result(
    rounds: Rounds, title: str, settings: dict[str, Any], workers: int, pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Return all there is to say about `rounds`, as plain data."""
    return {
        "schema": SCHEMA,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "title": title,
        "machine": describe_machine(),
        "settings": settings,
        "rows": [dataclasses.asdict(row) for row in rounds.rows],
        **make_report(rounds, min(workers, available_cores()), pairs),
    }


def save(result: Any, suffix: str = "") -> Path:
    """Write `result` into benchmarks/results/; return where, from the repository's root."""
    path = HERE / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}{suffix}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path.relative_to(HERE.parent)


def describe_machine() -> dict[str, str | int]:
    """Return what decides speed besides the code."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    told = {name.strip(): value.strip() for name, _, value in reversed(lines)}  # by the first of the processors
    return {
        "processor": told.get("model name", platform.machine()),
        "family": told.get("cpu family", "unknown"),
        "model": told.get("model", "unknown"),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "ale-py", "gymnasium", "numpy", "stable-baselines3")},
        "git_revision": git_revision(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"  # the peers have environments of their own
