"""The verbs `train` and `resume`."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asyncrl.arguments import Flag, parse, peek, program, run_argument
from asyncrl.errors import UserError

if TYPE_CHECKING:
    from asyncrl.run import Run
    from asyncrl.trainer import Outcome


def train_verb(args: Sequence[str]) -> int:
    """Train an agent."""
    import tyro

    from asyncrl.children import make_context, start_early
    from asyncrl.cli_config import starting_point
    from asyncrl.config import Config

    @dataclass(frozen=True)
    class Train:
        """Train ENV with asynchronous actor-learners. Options not given are those of --config or --preset."""

        settings: tyro.conf.OmitArgPrefixes[Config]
        # A TOML file to start from, such as the config.toml of another run.
        config: Path | None = None
        # Report in JSON, one object a line.
        json: Flag = False

    env, start, rest = starting_point(args)
    given = parse(Train, rest, "asyncrl train", Train(start), first="ENV")
    if env is None and peek(rest, "--config") is None and not {"--help", "-h"} & set(rest):
        raise UserError("train what? Name an environment, as in: asyncrl train ALE/Pong-v5")
    # The preset as it is for this world, by which name the file will be read again.
    config = dataclasses.replace(given.settings, preset=start.preset)
    if not config.is_in_one_process:
        start_early(make_context(config.env), config.env)
    from asyncrl.run import start_run

    return _report(start_run(config, as_json=given.json), given.json)


def resume_verb(args: Sequence[str]) -> int:
    """Go on with a run."""
    run, rest = run_argument(args, "resume")
    given = parse(ResumeArguments, rest, "asyncrl resume", ResumeArguments(), first="RUN")
    from asyncrl.run import resume_run

    # What is given may also be none, which ends a limit.
    names = [name for name in vars(given) if peek(rest, f"--{name.replace('_', '-')}") is not None]
    changes = {name: getattr(given, name) for name in names if name not in ("json", "env")}
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
    # Another number of actor-learner processes; environments of each and learning rate stay.
    workers: int | None = None
    # Seconds between checkpoints.
    checkpoint_every: float | None = None
    # Seconds between evaluations.
    eval_every: float | None = None
    # Episodes of an evaluation.
    eval_episodes: int | None = None
    # Another arithmetic on images.
    kernels: Literal["auto", "bf16", "torch"] | None = None
    # Where a2c computes from now on.
    device: Literal["cpu", "cuda"] | None = None
    # Another number of threads of a2c's arithmetic.
    threads: int | None = None
    # The run's environment again, as leave to make it: wanted where that may import code (it is an import path, or made
    # with options and not of asyncrl).
    env: str | None = None
    # Report in JSON, one object a line.
    json: Flag = False


def _report(run: "Run", as_json: bool) -> int:
    assert run.outcome is not None
    from asyncrl.display import say
    from asyncrl.journals import json_line

    outcome, progress = run.outcome, run.outcome.progress
    code = 130 if outcome.reason == "interrupted" else 0
    tell = say if code else print  # the terminal of what was interrupted may be gone
    if as_json:
        row = {"event": "end", "reason": outcome.reason, "run": str(run.path), **progress.as_row()}
        tell(json_line(row))
        return code
    from asyncrl.quantities import format_duration
    from asyncrl.trust import may_import

    ends = {"frames": "done", "time": "time is up", "score": "the score is reached", "order": "replayed"}
    end = ends.get(outcome.reason, outcome.reason)
    path, name = shlex.quote(str(run.path)), program()
    again = f" --env {shlex.quote(run.config.env)}" if may_import(run.config) else ""
    tell(
        f"{end} after {progress.frames:,} frames, {format_duration(progress.seconds)}\n"
        f"  {name} eval {path}{again}\n  {name} record {path} out.mp4{again}\n  {name} plot {path}"
    )
    if outcome.reason != "order":  # a recorded order that is at its end has no more to replay
        tell(f"  {name} resume {path}{again}{_further(outcome)}")
    return code


def _further(outcome: "Outcome") -> str:
    """Return the option that `resume` needs to go on beyond the end of a training."""
    from asyncrl.quantities import format_count

    progress, evaluation = outcome.progress, outcome.evaluation
    if outcome.reason == "interrupted":
        return ""
    if outcome.reason == "time":
        return f" --max-time {math.ceil(2 * progress.seconds)}s"
    if outcome.reason == "score" and evaluation is not None:
        return f" --stop-at-score {math.floor(evaluation.mean) + 1}"
    return f" --frames {format_count(2 * progress.frames)}"
