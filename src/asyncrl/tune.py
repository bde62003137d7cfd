"""The verb `tune`: tries environments per worker, workers and threads for about a minute, and proposes the best.

What is measured is speed in frames, not learning: more environments per worker make larger and fewer updates. So the
proposal is the smallest batch within a few percent of the fastest, never more than needed, nor more environments in all
than a preset wants where it says so: parameters that are staler than that teach less.
"""

import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncrl.arguments import Flag, parse, peek, program
from asyncrl.checks import MOST_WORKERS
from asyncrl.config import Config
from asyncrl.errors import UserError, require_place
from asyncrl.machine import available_cores
from asyncrl.presets import most_games
from asyncrl.quantities import counted
from asyncrl.speed import Speed, measure_speed, trainable
from asyncrl.start import fresh_start, slower_without
from asyncrl.trust import may_import
from asyncrl.worker import threads_of

NEAR_BEST = 0.95  # of the fastest: as good, if it has fewer environments
BATCHES = (8, 4, 16, 2, 32, 1, 64)  # after the preset's own; most promising first, should time run out
WARMUP_SECONDS = 1.0
SECONDS = 3.0  # of one measurement, at the least
# What the proposed command shall not repeat: options of ours, and what is proposed; with a value each but for --json.
OWN_OPTIONS = ("--budget", "--out", "--json", "--workers", "--envs-per-worker", "--threads")


@dataclass(frozen=True)
class Trial:
    """One combination and what it reached."""

    workers: int
    envs_per_worker: int
    steps_per_second: float
    frames_per_second: float
    memory_megabytes: float  # of the largest worker, shared pages included
    threads: int  # of each process that trains
    again: bool = False  # the last word between the first combination and the one that seemed best

    @property
    def environments(self) -> int:
        """Of all workers."""
        return self.workers * self.envs_per_worker


def tune_verb(args: Sequence[str]) -> int:
    """Propose settings for this machine."""
    import tyro

    from asyncrl.cli_config import starting_point

    env, start, rest = starting_point(args)

    @dataclass(frozen=True)
    class Tune:
        """Measure this machine and propose workers, environments and (a2c) threads for training ENV: those that make
        most frames a second, by the smallest batch. Whether they learn best is not measured."""

        settings: tyro.conf.OmitArgPrefixes[Config]
        # A TOML file to start from, such as the config.toml of a run.
        config: Path | None = None
        # About how long to measure, in seconds.
        budget: float = 60.0
        # A file to write the proposal to, as train takes it.
        out: Path | None = None
        # Report in JSON.
        json: Flag = False

    given = parse(Tune, rest, "asyncrl tune", Tune(start), first="ENV")
    if env is None and peek(rest, "--config") is None and not {"--help", "-h"} & set(rest):
        raise UserError("tune for what? Name an environment, as in: asyncrl tune ALE/Pong-v5")
    if not given.budget > 0:
        raise UserError(f"--budget is {given.budget}: it must be positive")
    if given.out is not None:
        require_place(given.out)
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    settings = dataclasses.replace(given.settings, preset=start.preset)  # as it is for this world
    fixed = {name for name in ("workers", "envs_per_worker", "threads") if peek(args, f"--{name.replace('_', '-')}")}
    if _is_settled(settings, fixed) and not _is_settled(settings, ()):
        options = sorted(f"--{name.replace('_', '-')}" for name in fixed)
        raise UserError(f"there is nothing left to try: leave out {' or '.join(options)}")
    if (slower := slower_without(settings)) is not None:
        say(slower)
    with contextlib.redirect_stdout(sys.stderr):  # what environments print must not come between lines of JSON
        trials = list(try_out(settings, given.budget, say, fixed))
    best = choose(trials)
    proposal = _repeated(settings, best, trials)
    failure = None if given.out is None else _write(given.out, proposal)
    command = command_of(proposal, None if failure else given.out, args, settings)  # told after a failure too
    row = {"command": command, "proposal": vars(best), "trials": [vars(t) for t in trials]}
    print(json.dumps(row) if given.json else as_text(best, trials, command, settings, fixed), flush=True)
    if failure is not None:
        raise UserError(failure)
    return 0


def try_out(config: Config, budget: float, say: Callable[[str], None], fixed: Collection[str] = ()) -> Iterator[Trial]:
    """Measure combinations until `budget` seconds are over; the first one, the preset's own batch, always.

    First the batch with one worker per core, in half of the time; then, with the best batch, workers, or threads where
    one process has all; last, if they differ, the first combination and the best so far again: of many, one may have
    been the fastest by luck. What cannot be measured is told and left out. Of "workers", "envs_per_worker" and
    "threads" those in `fixed` stay as `config` has them.

    Raises:
        UserError: if nothing could be measured.
    """
    began = time.monotonic()
    start = fresh_start(trainable(config))
    cores = config.workers if "workers" in fixed else available_cores()
    trials, longest, failure = [], 0.0, None
    seconds = max(SECONDS, budget / 20)  # updates of slow worlds may take longer
    # Of each stage: its end as a share of the budget, and the trials that must still fit before one is begun.
    for stage, share, room in ((_batches, 0.5, 1), (_worker_counts, 1, 3), (_thread_counts, 1, 3), (_finalists, 1, 2)):
        for number, tried in enumerate(stage(config, cores, trials, fixed)):
            trial_began = time.monotonic()
            is_second = stage is _finalists and number == 1  # without which the first would have been in vain
            if longest and not is_second and trial_began + room * longest > began + share * budget:
                break
            threads = threads_of(tried, start.network, start.spaces[0])
            named = f"{counted(tried.workers, 'worker')} x {counted(tried.envs_per_worker, 'environment')}"
            named += f", {counted(threads, 'thread')}" if config.algo == "a2c" else ""
            try:
                speed = measure_speed(tried, seconds=seconds, warmup=WARMUP_SECONDS, start=start)
            except UserError as error:  # another number may do, and those before have been measured
                failure = error
                say(f"{named}: {failure}")
                continue
            finally:
                longest = max(longest, time.monotonic() - trial_began)
            say(f"{named}: {speed.steps_per_second:,.0f} steps/s")
            trials.append(_trial(tried, speed, threads, again=stage is _finalists))
            yield trials[-1]
    if failure is not None and not trials:
        raise failure


def _batches(config: Config, cores: int, trials: list[Trial], fixed: Collection[str]) -> Iterator[Config]:
    # Whole episodes as updates want one environment a worker, and the paper's settings are for as many as they say.
    batches = dict.fromkeys((config.envs_per_worker, *BATCHES)) if config.t_max is not None else (1,)
    if config.preset.startswith("paper") or "envs_per_worker" in fixed:
        batches = (config.envs_per_worker,)
    for batch in batches:
        if _learns(config, cores, batch):
            yield dataclasses.replace(config, workers=cores, envs_per_worker=batch)


def _learns(config: Config, workers: int, batch: int) -> bool:
    """Return whether that many environments are not too many for the preset, or for what was asked for."""
    most = most_games(config)
    return most is None or batch == 1 or workers * batch <= max(most, config.workers * config.envs_per_worker)


def _worker_counts(config: Config, cores: int, trials: list[Trial], fixed: Collection[str]) -> Iterator[Config]:
    if config.algo == "a2c" or not trials or "workers" in fixed:
        return  # one process has all environments: how many workers have them makes no difference
    batch = choose(trials).envs_per_worker
    # Half: siblings on one physical core may only disturb each other. More than cores: some wait while others work.
    counts = dict.fromkeys((cores // 2, cores + 1, 2 * cores))
    for count in counts:
        if 1 <= count != cores and count <= MOST_WORKERS and _learns(config, count, batch):
            yield dataclasses.replace(config, workers=count, envs_per_worker=batch)


def _thread_counts(config: Config, cores: int, trials: list[Trial], fixed: Collection[str]) -> Iterator[Config]:
    if not _has_threads(config) or not trials or "threads" in fixed:
        return
    best, cores = choose(trials), available_cores()
    for threads in dict.fromkeys((1, cores // 2, cores)):
        if 1 <= threads != best.threads:
            sizes = {"workers": best.workers, "envs_per_worker": best.envs_per_worker}
            yield dataclasses.replace(config, **sizes, threads=threads)


def _finalists(config: Config, cores: int, trials: list[Trial], fixed: Collection[str]) -> Iterator[Config]:
    if trials and (best := choose(trials)) != (first := trials[0]):
        yield from (_repeated(config, trial, trials) for trial in (first, best))


def _repeated(config: Config, trial: Trial, trials: Sequence[Trial]) -> Config:
    """Return the configuration that `trial` measured; the rule for threads stays where it was not the threads' turn."""
    return dataclasses.replace(
        config,
        workers=trial.workers,
        envs_per_worker=trial.envs_per_worker,
        threads=config.threads if trial.threads == trials[0].threads else trial.threads,
    )


def _is_settled(config: Config, fixed: Collection[str]) -> bool:
    """Return whether there is but one combination to measure."""
    one_batch = "envs_per_worker" in fixed or config.t_max is None or config.preset.startswith("paper")
    one_count = "workers" in fixed or config.algo == "a2c"
    return one_batch and one_count and ("threads" in fixed or not _has_threads(config))


def _has_threads(config: Config) -> bool:
    """Return whether one process has several cores for its arithmetic; workers with a core each would only fight."""
    return config.algo == "a2c" and config.device == "cpu" and available_cores() > 1


def _trial(config: Config, speed: Speed, threads: int, *, again: bool) -> Trial:
    return Trial(
        config.workers,
        config.envs_per_worker,
        speed.steps_per_second,
        speed.frames_per_second,
        speed.memory_megabytes,
        threads,
        again,
    )


def choose(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the fewest environments, then workers, then threads, among those close to the fastest.

    Where two have been measured again, they are meant alone, and as they were then.
    """
    finalists = [trial for trial in trials if trial.again]
    trials = finalists if len(finalists) > 1 else [trial for trial in trials if not trial.again]
    fastest = max(trial.steps_per_second for trial in trials)
    near = [trial for trial in trials if trial.steps_per_second >= NEAR_BEST * fastest]
    return min(near, key=lambda trial: (trial.environments, trial.workers, trial.threads))


def command_of(config: Config, out: Path | None, args: Sequence[str], start: Config) -> str:
    """Return the command that trains with the proposal: from the file, or with what `tune` was given.

    Args:
        config: the proposal.
        out: the file that holds it.
        args: of the command line of `tune`.
        start: what `tune` started from.
    """
    if out is not None:
        again = f" --env {shlex.quote(config.env)}" if may_import(config) else ""
        folder = "" if config.run_dir is None else f" --run-dir {shlex.quote(str(config.run_dir))}"  # a file keeps none
        return f"{program()} train --config {shlex.quote(str(out))}{folder}{again}"
    words = [*_passed_on(args), f"--workers={config.workers}", f"--envs-per-worker={config.envs_per_worker}"]
    words += [] if config.threads is None else [f"--threads={config.threads}"]
    if config.workers != start.workers and peek(args, "--learning-rate") is None:
        words.append(f"--learning-rate={config.learning_rate:.6g}")  # a preset's depends on the workers
    return f"{program()} train {shlex.join(words)}"


def _passed_on(args: Sequence[str]) -> list[str]:
    """Return the command line of `tune` without OWN_OPTIONS."""
    kept, is_value = [], False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if is_value:
            is_value = False
        elif name.replace("_", "-") in OWN_OPTIONS:
            is_value = not equals and name != "--json"
        else:
            kept.append(arg)
    return kept


def _write(out: Path, config: Config) -> str | None:
    """Write `config` as a file for --config; return why that cannot be done, if so."""
    from asyncrl.config_file import write_config
    from asyncrl.run import provenance

    try:
        write_config(out, config, provenance())
    except OSError as error:
        return f"cannot write {out}: {error.strerror}"
    return None


def as_text(best: Trial, trials: Sequence[Trial], command: str, settings: Config, fixed: Collection[str] = ()) -> str:
    """Return the table and the proposal."""
    lines = ["workers  environments each  threads each   steps/s  frames/s  MB a process"]
    for trial in sorted(trials, key=lambda t: -t.steps_per_second):
        mark = ("  again" if trial.again else "") + ("  <- proposed" if trial is best else "")
        lines.append(
            f"{trial.workers:7}  {trial.envs_per_worker:17}  {trial.threads:12}  {trial.steps_per_second:8,.0f}  "
            f"{trial.frames_per_second:8,.0f}  {trial.memory_megabytes:12,.0f}{mark}"
        )
    if any(trial.again for trial in trials):
        lines += ["", "again: the first and the one that seemed best, measured once more; between the two that decides"]
    if len(trials) == 1 and not _is_settled(settings, fixed):
        lines += ["", "there was time for one trial only: compare more with a longer --budget"]
    lines += ["", "to train so:", f"  {command}"]
    return "\n".join(lines)
