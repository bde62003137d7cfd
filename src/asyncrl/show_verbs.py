"""The verbs that show what was trained: `eval`, `record` and `plot`."""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Literal

from asyncrl.arguments import Flag, parse, peek, run_argument, split_positional
from asyncrl.errors import UserError
from asyncrl.quantities import counted

Mode = Literal["sampled", "greedy"]


@dataclass(frozen=True)
class EvalArguments:
    """Play full episodes with a trained agent and report raw scores."""

    # How many.
    episodes: int = 30
    # Take the likeliest action, always.
    greedy: Flag = False
    # Draw actions from the policy (Q methods: a random one with probability 0.01); the default.
    sampled: Flag = False
    # Atari: sticky actions, whatever the run was trained with.
    sticky: Flag = False
    # The checkpoint to play.
    checkpoint: Literal["latest", "best"] = "latest"
    # Of environments and draws, 0 to 2147483647.
    seed: int = 0
    # The run's environment again, as leave to make it: wanted where that may import code (it is an import path, or made
    # with options and not of asyncrl).
    env: str | None = None
    # What to make the environment with instead of the run's own options, as NAME=VALUE,NAME=VALUE, or none of them. Not
    # given: the run's own.
    env_options: str | None = None
    # Report in JSON.
    json: Flag = False

    @property
    def mode(self) -> Mode:
        """How actions are chosen."""
        if self.greedy and self.sampled:
            raise UserError("--greedy and --sampled exclude each other")
        return "greedy" if self.greedy else "sampled"


def eval_verb(args: Sequence[str]) -> int:
    """Play full episodes."""
    run, rest = run_argument(args, "eval")
    given = parse(EvalArguments, rest, "asyncrl eval", EvalArguments(), first="RUN")
    if given.episodes < 1:
        raise UserError(f"--episodes is {given.episodes}: it must be at least 1")
    mode = given.mode
    from asyncrl.agent import load
    from asyncrl.journals import json_line

    _check_seed(given.seed)
    agent = load(run, given.checkpoint, env=given.env, env_options=_variant(given.env_options, rest))
    sticky = True if given.sticky else None
    with contextlib.redirect_stdout(sys.stderr):  # what the environment prints
        episodes = agent.evaluate(given.episodes, mode=mode, seed=given.seed, sticky=sticky)
    scores = [episode.score for episode in episodes]
    row = {
        "env": agent.config.env,
        "env_options": agent.config.env_options,
        "frames": agent.checkpoint.state["frames"],
        "mode": mode,
        "sticky": given.sticky or agent.config.sticky,
        "episodes": len(scores),
        "mean": fmean(scores),
        "deviation": pstdev(scores),
        "min": min(scores),
        "max": max(scores),
        "scores": scores,
    }
    if given.json:
        print(json_line(row))
    else:
        variant = f" with {given.env_options}" if given.env_options else ""  # never the run's, a stranger's text
        print(
            f"{row['env']}{variant} after {row['frames']:,} frames, {mode}{', sticky' if row['sticky'] else ''}: "
            f"{row['mean']:.2f} +- {row['deviation']:.2f} over {counted(len(scores), 'episode')} "
            f"({row['min']:g} to {row['max']:g})"
        )
    return 0


@dataclass(frozen=True)
class RecordArguments:
    """Film one episode of a trained agent."""

    # Take the likeliest action instead of drawing from the policy.
    greedy: Flag = False
    # The checkpoint to play.
    checkpoint: Literal["latest", "best"] = "latest"
    # Of environment and draws, 0 to 2147483647.
    seed: int = 0
    # The run's environment again, as leave to make it: wanted where that may import code (it is an import path, or made
    # with options and not of asyncrl).
    env: str | None = None
    # What to make the environment with instead of the run's own options, as NAME=VALUE,NAME=VALUE, or none of them. Not
    # given: the run's own.
    env_options: str | None = None
    # Report in JSON.
    json: Flag = False


def record_verb(args: Sequence[str]) -> int:
    """Film an episode."""
    run, rest = run_argument(args, "record")
    out, rest = split_positional(rest)
    given = parse(RecordArguments, rest, "asyncrl record", RecordArguments(), first="RUN OUT.mp4")
    if out is None:
        raise UserError("record to where? Name a video, as in: asyncrl record RUN out.mp4")
    from asyncrl.agent import load
    from asyncrl.video import record

    _check_seed(given.seed)
    agent = load(run, given.checkpoint, env=given.env, env_options=_variant(given.env_options, rest))
    with contextlib.redirect_stdout(sys.stderr):  # what the environment prints
        mode: Mode = "greedy" if given.greedy else "sampled"
        episode = record(agent, Path(out), mode=mode, seed=given.seed, announce=print)
    if given.json:
        print(json.dumps({"video": out, "score": episode.score, "steps": episode.steps}))
    else:
        print(f"{out}: score {episode.score:g} in {episode.steps:,} steps")
    return 0


@dataclass(frozen=True)
class PlotArguments:
    """Draw learning curves of one or more runs, against frames and against time."""

    # The picture to write.
    out: Annotated[Path, "png"] = Path("curves.png")
    # Q methods: draw a curve for each final epsilon of the environments.
    by_epsilon: Flag = False
    # Report in JSON.
    json: Flag = False


def plot_verb(args: Sequence[str]) -> int:
    """Draw learning curves."""
    runs: list[Path] = []
    run, rest = split_positional(args)
    while run is not None:
        runs.append(Path(run))
        run, rest = split_positional(rest)
    given = parse(PlotArguments, rest, "asyncrl plot", PlotArguments(), first="RUN [RUN ...]")
    if not runs:
        raise UserError("plot what? Name one run or more, as in: asyncrl plot runs/ALE-Pong-v5/*")
    from asyncrl.plots import plot_runs

    left_out = plot_runs(runs, given.out, by_epsilon=given.by_epsilon)
    if given.json:
        print(json.dumps({"picture": str(given.out), "left_out": list(map(str, left_out))}))
        return 0
    print(f"{given.out}: {counted(len(runs) - len(left_out), 'run')}")
    for run in left_out:
        print(f"{run} is not in it: it has no finished episodes yet")
    return 0


def _variant(options: str | None, args: Sequence[str]) -> str | None:
    """Return the options of the command line, none of them where they are said to be none, None where nothing is."""
    return "" if options is None and peek(args, "--env-options") is not None else options


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed is {seed}: it must be between 0 and 2147483647")
