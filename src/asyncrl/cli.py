"""The command line: one verb to train, one to show, one to plot."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Annotated, Literal

from asyncrl.errors import UserError

if TYPE_CHECKING:
    from asyncrl.run import Run

USAGE = """asyncrl: asynchronous deep reinforcement learning on CPUs (Mnih et al., 2016)

  asyncrl train ENV [options]        train an agent, as in: asyncrl train ALE/Pong-v5
  asyncrl resume RUN [options]       go on with a run from its latest checkpoint
  asyncrl eval RUN [options]         play full episodes and report their scores
  asyncrl record RUN OUT.mp4         film an episode
  asyncrl plot RUN [RUN ...]         draw learning curves against frames and against time
  asyncrl bench [ENV] [options]      measure training speed here; --profile: where each microsecond goes
  asyncrl tune ENV [options]         try workers and environments for a minute and propose the best

asyncrl VERB --help lists the options of a verb. Numbers may be written 10M, 2.5e6, 20min, 1h30min."""

Mode = Literal["sampled", "greedy"]


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 for a mistake of the user (told in one line), or 130 if interrupted.

    A training that was interrupted also returns 130: `asyncrl train a; asyncrl train b` in a script shall stop.
    """
    args = list(sys.argv[1:] if args is None else args)
    verb, rest = (args[0], args[1:]) if args else ("--help", [])
    try:
        if verb in ("-h", "--help", "help"):
            print(USAGE)
            return 0
        if verb == "--version":
            return _version()
        if verb not in VERBS:
            raise UserError(f"there is no verb {verb!r}, only {', '.join(VERBS)}; see asyncrl --help")
        code = VERBS[verb](rest)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"asyncrl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _leave_stdout()
        return 141  # the reader of our output has gone, as in `| head`
    except OSError as error:
        _leave_stdout()
        where = f"{error.filename}: " if error.filename else ""
        print(f"asyncrl: {where}{' '.join(str(error.strerror or error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _leave_stdout() -> None:
    """Let Python's flush at its exit not fail as ours has."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version() -> int:
    from asyncrl import __version__

    print(f"asyncrl {__version__}")
    return 0


def train_verb(args: Sequence[str]) -> int:
    """Train an agent."""
    import tyro

    from asyncrl.arguments import parse, peek
    from asyncrl.config import Config
    from asyncrl.starting import starting_point

    @dataclass(frozen=True)
    class Train:
        """Train ENV with asynchronous actor-learners. Options not given are those of --config or --preset."""

        settings: tyro.conf.OmitArgPrefixes[Config]
        # A TOML file to start from, such as the config.toml of another run.
        config: Path | None = None
        # Report in JSON, one object a line.
        json: bool = False

    env, start, rest = starting_point(args)
    given = parse(Train, rest, "asyncrl train", Train(start))
    if env is None and peek(rest, "--config") is None and not {"--help", "-h"} & set(rest):
        raise UserError("train what? Name an environment, as in: asyncrl train ALE/Pong-v5")
    from asyncrl.run import start_run

    # The preset as it is for this world, by which name the file will be read again.
    config = dataclasses.replace(given.settings, preset=start.preset)
    return _report(start_run(config, as_json=given.json), given.json)


def resume_verb(args: Sequence[str]) -> int:
    """Go on with a run."""
    from asyncrl.arguments import parse

    run, rest = _run_argument(args, "resume")
    given = parse(ResumeArguments, rest, "asyncrl resume", ResumeArguments())
    from asyncrl.run import resume_run

    changes = {name: value for name, value in vars(given).items() if value is not None and name not in ("json", "env")}
    return _report(resume_run(run, given.env, changes, as_json=given.json), given.json)


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with RUN from its latest checkpoint, with counters, schedules and optimiser statistics."""

    # A later end, in frames of the whole run; schedules stretch to it.
    frames: int | None = None
    # A later end, in seconds of the whole run.
    max_time: float | None = None
    # Stop once an evaluation reaches this mean score.
    stop_at_score: float | None = None
    # Another number of actor-learner processes.
    workers: int | None = None
    # Seconds between evaluations.
    eval_every: float | None = None
    # Repeats the run's environment, if that is an import path.
    env: str | None = None
    # Report in JSON, one object a line.
    json: bool = False


@dataclass(frozen=True)
class EvalArguments:
    """Play full episodes with a trained agent and report raw scores."""

    # How many.
    episodes: int = 30
    # Take the likeliest action instead of drawing from the policy (Q methods: epsilon 0.01).
    greedy: bool = False
    # Draw actions from the policy; the default.
    sampled: bool = False
    # Atari: sticky actions, whatever the run was trained with.
    sticky: bool = False
    # The checkpoint to play.
    checkpoint: Literal["latest", "best"] = "latest"
    # Of environments and draws, 0 to 2147483647.
    seed: int = 0
    # Repeats the run's environment, if that is an import path.
    env: str | None = None
    # Report in JSON.
    json: bool = False

    @property
    def mode(self) -> Mode:
        """How actions are chosen."""
        if self.greedy and self.sampled:
            raise UserError("--greedy and --sampled exclude each other")
        return "greedy" if self.greedy else "sampled"


def eval_verb(args: Sequence[str]) -> int:
    """Play full episodes."""
    from asyncrl.arguments import parse

    run, rest = _run_argument(args, "eval")
    given = parse(EvalArguments, rest, "asyncrl eval", EvalArguments())
    if given.episodes < 1:
        raise UserError(f"--episodes is {given.episodes}: it must be at least 1")
    mode = given.mode
    from asyncrl.agent import load
    from asyncrl.journals import json_line

    _check_seed(given.seed)
    agent = load(run, given.checkpoint, env=given.env)
    sticky = True if given.sticky else None
    with contextlib.redirect_stdout(sys.stderr):  # what the environment prints
        episodes = agent.evaluate(given.episodes, mode=mode, seed=given.seed, sticky=sticky)
    scores = [episode.score for episode in episodes]
    row = {
        "env": agent.config.env,
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
        print(
            f"{row['env']} after {row['frames']:,} frames, {mode}{', sticky' if row['sticky'] else ''}: "
            f"{row['mean']:.2f} +- {row['deviation']:.2f} over {len(scores)} episodes "
            f"({row['min']:g} to {row['max']:g})"
        )
    return 0


@dataclass(frozen=True)
class RecordArguments:
    """Film one episode of a trained agent."""

    # Take the likeliest action instead of drawing from the policy.
    greedy: bool = False
    # The checkpoint to play.
    checkpoint: Literal["latest", "best"] = "latest"
    # Of environment and draws, 0 to 2147483647.
    seed: int = 0
    # Repeats the run's environment, if that is an import path.
    env: str | None = None
    # Report in JSON.
    json: bool = False


def record_verb(args: Sequence[str]) -> int:
    """Film an episode."""
    from asyncrl.arguments import parse, split_positional

    run, rest = _run_argument(args, "record")
    out, rest = split_positional(rest)
    given = parse(RecordArguments, rest, "asyncrl record", RecordArguments())
    if out is None:
        raise UserError("record to where? Name a video, as in: asyncrl record RUN out.mp4")
    from asyncrl.agent import load
    from asyncrl.video import record

    _check_seed(given.seed)
    agent = load(run, given.checkpoint, env=given.env)
    with contextlib.redirect_stdout(sys.stderr):  # what the environment prints
        episode = record(agent, Path(out), mode="greedy" if given.greedy else "sampled", seed=given.seed)
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
    # Report in JSON.
    json: bool = False


def plot_verb(args: Sequence[str]) -> int:
    """Draw learning curves."""
    from asyncrl.arguments import parse, split_positional

    runs: list[Path] = []
    run, rest = split_positional(args)
    while run is not None:
        runs.append(Path(run))
        run, rest = split_positional(rest)
    given = parse(PlotArguments, rest, "asyncrl plot", PlotArguments())
    if not runs:
        raise UserError("plot what? Name one run or more, as in: asyncrl plot runs/ALE-Pong-v5/*")
    from asyncrl.plots import plot_runs

    plot_runs(runs, given.out)
    print(json.dumps({"picture": str(given.out)}) if given.json else f"{given.out}: {len(runs)} run(s)")
    return 0


def bench_verb(args: Sequence[str]) -> int:
    """Measure training speed."""
    from asyncrl.profile import bench_verb

    return bench_verb(args)


def tune_verb(args: Sequence[str]) -> int:
    """Propose settings for this machine."""
    from asyncrl.tune import tune_verb

    return tune_verb(args)


def _run_argument(args: Sequence[str], verb: str) -> tuple[Path, list[str]]:
    from asyncrl.arguments import split_positional

    run, rest = split_positional(args)
    if run is None and not {"--help", "-h"} & set(rest):
        raise UserError(f"{verb} what? Name a run, as in: asyncrl {verb} runs/ALE-Pong-v5/...")
    return Path(run or ""), rest


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed is {seed}: it must be between 0 and 2147483647")


def _report(run: "Run", as_json: bool) -> int:
    assert run.outcome is not None
    from asyncrl.journals import json_line

    outcome, progress = run.outcome, run.outcome.progress
    code = 130 if outcome.reason == "interrupted" else 0
    if as_json:
        row = {"event": "end", "reason": outcome.reason, "run": str(run.path), **progress.as_row()}
        print(json_line(row))
        return code
    from asyncrl.quantities import format_count, format_duration

    ends = {"frames": "done", "time": "time is up", "score": "the score is reached", "order": "replayed"}
    end = ends.get(outcome.reason, outcome.reason)
    print(
        f"{end} after {progress.frames:,} frames, {format_duration(progress.seconds)}\n"
        f"  asyncrl eval {run.path}\n  asyncrl record {run.path} out.mp4\n  asyncrl resume {run.path}"
        + ("" if code else f" --frames {format_count(2 * progress.frames)}")
    )
    return code


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train_verb,
    "resume": resume_verb,
    "eval": eval_verb,
    "record": record_verb,
    "plot": plot_verb,
    "bench": bench_verb,
    "tune": tune_verb,
}
