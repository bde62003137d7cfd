"""Measure how long one library trains until it plays a game well: wall-clock time to an evaluated score.

Each trains with its published or default settings. Once a minute a peer is asked to write its policy; then it is
stopped, judged (30 full games with sampled actions, raw scores, no sticky actions) and sent on, so judging costs it no
time. asyncrl evaluates beside its own training, on the same cores, as its users see it: that counts.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import peer_variables
from judge import judge
from kept_times import keep_time
from meter import ForeignLoad
from outcome import describe_machine, prepare
from peer_contenders import CLEANRL_PONG
from peers.shared import WANTED
from peers.venvs import InstallFailed, python_of
from report import FRAMES_PER_STEP
from rounds import HERE, say

from asyncrl.arguments import parse, split_positional
from asyncrl.errors import UserError

POLL_SECONDS = 0.1
LOAD_SECONDS = 1.0  # between looks at what others use of the cores, and at whether our training is over
PATIENCE_SECONDS = 600.0  # with a peer that does not write the policy it is asked for


@dataclass(frozen=True)
class Learner:
    """A library with its published Atari settings."""

    script: str  # peers/with_<script>.py
    options: tuple[str, ...]
    network: str  # that it is published with
    fires: bool  # whether its environments press FIRE where a game or life begins
    game: str | None = None  # the only one that its settings are published for


# The settings of its EnvPool example.
_SAMPLE_FACTORY = ("--workers", "4", "--envs", "256", "--mode", "async", "--engine", "envpool")
LEARNERS = {
    "sb3-a2c": Learner("sb3", ("--algo", "a2c", "--engine", "dummy", "--envs", "16"), "conv2015", True),
    "sb3-a2c-ale": Learner("sb3", ("--algo", "a2c", "--engine", "ale", "--envs", "16"), "conv2015", False),
    "sb3-ppo": Learner("sb3", ("--algo", "ppo", "--engine", "dummy", "--envs", "8"), "conv2015", True),
    "sb3-ppo-ale": Learner("sb3", ("--algo", "ppo", "--engine", "ale", "--envs", "8"), "conv2015", False),
    "pfrl-2": Learner("pfrl", ("--envs", "2"), "conv2013", False),
    "pfrl-16": Learner("pfrl", ("--envs", "16"), "conv2013", False),
    "sample-factory": Learner("sample_factory", _SAMPLE_FACTORY, "conv2015", True),
    "cleanrl": Learner("envpool", ("--envs", "8"), "conv2015", True),
    "cleanrl-pong": Learner("envpool", CLEANRL_PONG, "conv2015", True, "ALE/Pong-v5"),
    "tianshou": Learner("tianshou", ("--algo", "ppo", "--envs", "10"), "conv2015", True),
}


@dataclass(frozen=True)
class Arguments:
    """Train PEER (or asyncrl) until it reaches a score."""

    # Of environments and initial weights.
    seed: int = 0
    # Seconds of training after which to give up, as in 45min.
    cap: float = 2700.0
    # The game.
    env: str = "ALE/Pong-v5"
    # Mean raw score to reach.
    score: float = 18.0
    # Games of an evaluation.
    episodes: int = 30
    # Seconds of training between evaluations.
    every: float = 60.0
    # Torch threads of a peer.
    threads: int = 2
    # Frames by which our own schedules are stretched; by default those of the preset.
    frames: int | None = None
    # Network of a peer: conv2013 or conv2015; by default the one it is published with.
    network: str | None = None


def main() -> int:
    """Train, judge, print one line of JSON and keep it for the table of bench-peers."""
    try:
        name, rest = split_positional(sys.argv[1:])
        known = ("asyncrl", *LEARNERS)
        if name not in known and not {"-h", "--help"} & set(rest):
            raise UserError(f"time whom? One of {', '.join(known)}")
        args = parse(Arguments, rest, "time_to_score.py", Arguments())
        assert name is not None
        require_numbers(args)
        require_fairness(name, args)
        prepare("time_to_score.py")
        found = time_asyncrl(args) if name == "asyncrl" else time_peer(LEARNERS[name], args)
    except (UserError, InstallFailed) as mistake:
        say(f"time_to_score.py: {mistake}")
        return 2
    outcome = {"learner": name, **vars(args), **found, "machine": describe_machine()}
    print(json.dumps(outcome), flush=True)
    keep_time(outcome)
    return 0


def require_numbers(args: Arguments) -> None:
    """Raise UserError where there would be nothing to train or judge."""
    for option in ("cap", "every", "episodes", "threads"):
        if not getattr(args, option) > 0:
            raise UserError(f"--{option} is {getattr(args, option)}: it must be positive")


def require_fairness(name: str, args: Arguments) -> None:
    """Raise UserError where a peer would not have the settings that it is published with."""
    if name == "asyncrl":
        for option in ("network", "threads", "every"):
            if getattr(args, option) != getattr(Arguments(), option):
                raise UserError(f"--{option} is for peers: asyncrl is timed as its users have it")
        return
    if args.frames is not None:
        raise UserError("--frames is for asyncrl: peers have the schedules they are published with")
    if LEARNERS[name].game not in (None, args.env):
        raise UserError(f"the settings of {name} are for {LEARNERS[name].game} alone: leave out --env {args.env}")


def time_asyncrl(args: Arguments) -> dict[str, Any]:
    """Train by the command that users type; it stops itself at the score."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "stop-at-score": args.score,
            "max-time": args.cap,
            "eval-episodes": args.episodes,
            "seed": args.seed,
            "run-dir": f"{folder}/run",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        words += [] if args.frames is None else [f"--frames={args.frames}"]
        started = time.monotonic()
        with running([sys.executable, "-m", "asyncrl", "train", args.env, *words, "--json"], {}) as process:
            load = ForeignLoad(process.pid)
            while process.poll() is None:
                time.sleep(LOAD_SECONDS)
                load.end()
                load.begin()
        wall = time.monotonic() - started
        if process.returncode:
            raise UserError(f"asyncrl ended with exit code {process.returncode}: see above")
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    # Its rows count from when its trainer is ready; what comes before (and, in our disfavour, after) is added.
    before = wall - max((row["seconds"] for row in rows), default=0.0)
    evaluations = [
        {
            "seconds": before + r["seconds"],
            "steps": r["frames"] // FRAMES_PER_STEP,
            "score": r["evaluated_score"],
            "deviation": r["evaluated_deviation"],
        }
        for r in rows
        if "evaluated_episodes" in r
    ]
    reached = any(e["score"] >= args.score for e in evaluations)
    ended = "score" if reached else "cap" if wall >= args.cap else "all of its frames"
    return summary(evaluations, args.score, wall, ended) | {"foreign_load": load.take()}


def time_peer(learner: Learner, args: Arguments) -> dict[str, Any]:
    """Train a peer in its own environment; judge what it writes."""
    python = python_of(learner.script, say)
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), f"peers/with_{learner.script}.py", *learner.options, "--env", args.env]
        command += ["--network", args.network or learner.network, "--threads", str(args.threads)]
        command += ["--seed", str(args.seed), "--snapshots", folder]
        started = time.monotonic()
        with running(command, dict(peer_variables(args.threads))) as process:
            evaluations, ended = judged(process, Path(folder), learner, args, started)
        wall = time.monotonic() - started
    if not evaluations:
        raise UserError("no policy was written: see above")
    return summary(evaluations, args.score, wall, ended)


def judged(
    process: subprocess.Popen, folder: Path, learner: Learner, args: Arguments, started: float
) -> tuple[list[dict[str, Any]], str]:
    """Evaluate every so often until the score, the cap or the training's end; say which. Pauses do not count."""
    evaluations, paused, load = [], 0.0, ForeignLoad(process.pid)
    for look in range(1, math.ceil(args.cap / args.every) + 1):
        path = wanted_policy(process, folder, started + paused + min(look * args.every, args.cap))
        if path is None:
            code = process.poll()
            ended = f"no policy within {PATIENCE_SECONDS:.0f} s" if code is None else f"exit code {code}"
            say(f"no policy was written any more: {ended}")
            return evaluations, ended
        now = time.monotonic()
        load.end()
        evaluation = {"seconds": now - started - paused, "steps": int(path.stem), "foreign_load": load.take()}
        os.killpg(process.pid, signal.SIGSTOP)
        evaluation |= judge(path, args.env, episodes=args.episodes, fires=learner.fires, seed=args.seed)
        path.unlink()
        os.killpg(process.pid, signal.SIGCONT)
        paused += time.monotonic() - now
        load.begin()
        say(
            f"{evaluation['seconds']:.0f} s, {evaluation['steps']:,} steps: {evaluation['score']:.2f} "
            f"(foreign load {evaluation['foreign_load']:.1%})"
        )
        evaluations.append(evaluation)
        if evaluation["score"] >= args.score:
            return evaluations, "score"
    return evaluations, "cap"


def wanted_policy(process: subprocess.Popen, folder: Path, due: float) -> Path | None:
    """Ask for a policy when the clock says `due`; return it, or None if the training ends or is stuck."""
    asked = False
    while process.poll() is None and time.monotonic() < due + PATIENCE_SECONDS:
        if not asked and time.monotonic() >= due:
            (folder / WANTED).touch()
            asked = True
        if (path := next(folder.glob("*.pt"), None)) is not None:
            return path
        time.sleep(POLL_SECONDS)
    return None


def summary(evaluations: list[dict[str, Any]], score: float, wall: float, ended: str) -> dict[str, Any]:
    """Return the outcome: seconds and steps of training to the score, or None, and what ended the training."""
    reached = next((e for e in evaluations if e["score"] >= score), None)
    return {
        "seconds_to_score": None if reached is None else reached["seconds"],
        "steps_to_score": None if reached is None else reached["steps"],
        "best_score": max((e["score"] for e in evaluations), default=None),
        "ended": ended,
        "wall_seconds": wall,  # judging included
        "evaluations": evaluations,
    }


@contextlib.contextmanager
def running(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run `command` in a session of its own, printing to the error stream; end the whole session afterwards."""
    process = subprocess.Popen(
        command, cwd=HERE, env={**os.environ, **variables}, stdout=sys.stderr, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
