"""Who is measured: one command each, in groups of which the best member counts.

The ceilings stand beside our trainer, so that a machine that changes its speed within a round changes all of them.
"""

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from net_pass import OWN, PASSES

from asyncrl import kernels
from asyncrl.children import MALLOC
from asyncrl.machine import available_cores
from asyncrl.presets import fast_preset

HERE = Path(__file__).parent
SB3_GAMES = 16  # of its A2C as published
CEILINGS = ("environments", "network")  # groups that rank by processor time, the least first


class Settings(Protocol):
    """What every benchmark lets one choose."""

    @property
    def seconds(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def workers(self) -> int: ...
    @property
    def envs_per_worker(self) -> int: ...


@dataclass(frozen=True)
class Contender:
    """A script of this folder that prints a measurement."""

    name: str
    group: str
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()  # of its environment
    failure: str | None = None  # why it cannot even be started

    def environment(self) -> dict[str, str]:
        """Return the environment variables to run it with."""
        return {**os.environ, **dict(self.variables)}


def make_contenders(args: Settings, env: str) -> list[Contender]:
    """Return asyncrl, Stable-Baselines3 and the ceilings."""
    ours = asyncrl_contender("asyncrl", "asyncrl", args, env, "auto", "fast", args.workers, args.envs_per_worker)
    return [ours, *make_ceilings(args, env, "conv2013"), *_sb3(args, env)]


def asyncrl_contender(
    name: str, group: str, args: Settings, env: str, network: str, preset: str, workers: int, batch: int
) -> Contender:
    """Return our trainer with `workers` of `batch` environments each."""
    options = ("--preset", preset, "--network", network, "--workers", str(workers), "--envs-per-worker", str(batch))
    return Contender(name, group, _command(args, env, "asyncrl_train.py", *options))


def peer_variables(threads: int) -> tuple[tuple[str, str], ...]:
    """Return the environment variables of a script of `peers/`: torch threads, and where it finds the meter and us."""
    return ("OMP_NUM_THREADS", str(threads)), ("PYTHONPATH", os.pathsep.join(map(str, (HERE, HERE.parent / "src"))))


def _sb3(args: Settings, env: str) -> list[Contender]:
    contenders, games = [], max(SB3_GAMES, args.workers * args.envs_per_worker)
    for engine in ("dummy", "subproc"):
        for threads in sorted({1, 2, available_cores()}):
            options = ("--envs", str(games), "--engine", engine)
            command = _command(args, env, "peers/with_sb3.py", *options, "--threads", str(threads))
            name = f"SB3 A2C, {engine}, {threads} thread{'s' if threads > 1 else ''}"
            contenders.append(Contender(name, "sb3", command, peer_variables(threads)))
    return contenders


def make_ceilings(args: Settings, env: str, network: str) -> list[Contender]:
    """Return what no trainer can beat: the environments alone, and acting and training on the network alone."""
    script, t_max = "ceilings.py", str(fast_preset().t_max)
    options = ("--workers", str(args.workers), "--envs-per-worker", str(args.envs_per_worker), "--t-max", t_max)
    variables = (("OMP_NUM_THREADS", "1"), *MALLOC.items())
    alone = _command(args, env, script, "environments", *options, share=0.5)
    passes = functools.partial(_command, args, env, script, "network", *options, "--network", network, share=0.5)
    ways = [way for way in PASSES if way != OWN or kernels.library() is not None]
    return [Contender("environments alone", "environments", alone, variables)] + [
        Contender(way, "network", passes("--way", way), variables) for way in ways
    ]


def _command(args: Settings, env: str, script: str, *options: str, share: float = 1.0) -> tuple[str, ...]:
    return (sys.executable, script, *options, *window_options(args, env, share))


def window_options(args: Settings, env: str, share: float = 1.0) -> tuple[str, ...]:
    """Return the options that say what to play and how long to measure, `share` of the usual time."""
    return ("--warmup", str(share * args.warmup), "--seconds", str(share * args.seconds), "--env", env)
