"""Who is measured: one command each, in groups of which the best member counts."""

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from net_pass import PASSES

from asyncrl.machine import available_cores
from asyncrl.presets import fast_preset

if TYPE_CHECKING:
    from bench import Arguments


@dataclass(frozen=True)
class Contender:
    """A script of this folder that prints a measurement."""

    name: str
    group: str
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()  # of its environment

    def environment(self) -> dict[str, str]:
        """Return the environment variables to run it with."""
        return {**os.environ, **dict(self.variables)}


def make_contenders(args: "Arguments") -> list[Contender]:
    """Return asyncrl, its peers and the ceilings."""
    return [*_asyncrl(args), *_sb3(args), *_ceilings(args)]


def _asyncrl(args: "Arguments") -> list[Contender]:
    options = ("--workers", str(args.workers), "--envs-per-worker", str(args.envs_per_worker))
    return [Contender("asyncrl", "asyncrl", _command(args, "asyncrl_train.py", 1.0, *options))]


def _sb3(args: "Arguments") -> list[Contender]:
    contenders = []
    for vector in ("dummy", "subproc"):
        for threads in sorted({1, 2, available_cores()}):
            options = ("--envs", str(args.workers * args.envs_per_worker), "--vector", vector)
            command = _command(args, "peers_sb3.py", 1.0, *options, "--threads", str(threads))
            name = f"SB3 A2C, {vector}, {threads} thread{'s' if threads > 1 else ''}"
            contenders.append(Contender(name, "sb3", command, (("OMP_NUM_THREADS", str(threads)),)))
    return contenders


def _ceilings(args: "Arguments") -> list[Contender]:
    script, t_max = "ceilings.py", str(fast_preset().t_max)
    options = ("--workers", str(args.workers), "--envs-per-worker", str(args.envs_per_worker), "--t-max", t_max)
    variables = (
        ("OMP_NUM_THREADS", "1"),
        # As asyncrl's workers have it: large buffers stay in the process.
        ("MALLOC_MMAP_THRESHOLD_", str(1 << 30)),
        ("MALLOC_TRIM_THRESHOLD_", str(1 << 31)),
        ("MALLOC_TOP_PAD_", str(1 << 26)),
    )
    alone = _command(args, script, 0.5, "environments", *options)
    return [Contender("environments alone", "environments", alone, variables)] + [
        Contender(way, "network", _command(args, script, 0.5, "network", *options, "--way", way), variables)
        for way in PASSES
    ]


def _command(args: "Arguments", script: str, share: float, *options: str) -> tuple[str, ...]:
    window = ("--warmup", str(share * args.warmup), "--seconds", str(share * args.seconds), "--env", args.env)
    return (sys.executable, script, *options, *window)
