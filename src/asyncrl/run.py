"""A run: its folder, and training into it. `train` and `resume` are the whole Python interface to learning."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asyncrl.agent import Agent, load
from asyncrl.checkpoint import Checkpoint, load_checkpoint, versions
from asyncrl.config import Config, PresetName, require_settings
from asyncrl.config_file import read_run_config, write_config
from asyncrl.display import PlainDisplay, make_display, say
from asyncrl.errors import UserError
from asyncrl.handed import Handed, hand_over
from asyncrl.journals import read_json_lines
from asyncrl.lock import holding
from asyncrl.machine import available_cores
from asyncrl.metrics import Progress
from asyncrl.pointers import find_checkpoint
from asyncrl.presets import preset_for
from asyncrl.quantities import counted
from asyncrl.start import slower_without
from asyncrl.trainer import Outcome, Trainer
from asyncrl.trust import repeat, require_repeated

Show = Callable[[Progress], None]
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A finished or interrupted training on disk."""

    path: Path
    config: Config
    outcome: Outcome | None = None  # of the training that has just ended

    def agent(self, checkpoint: str = "latest") -> Agent:
        """Return the agent of the "latest" or "best" checkpoint."""
        network: Any = self.config.network
        handed: Any = network if isinstance(network, Handed) else None
        return load(self.path, checkpoint, env=self.config.env, network=handed)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl`: numbers every ten seconds, and evaluations."""
        return read_json_lines(self.path / "metrics.jsonl")

    def episodes(self) -> list[dict[str, Any]]:
        """Return the rows of `episodes.jsonl`: every finished training episode."""
        return read_json_lines(self.path / "episodes.jsonl")


def train(
    env: str | Callable[..., Any] | None = None,
    *,
    preset: PresetName | None = None,
    config: Config | None = None,
    show: Show | None = None,
    announce: Announce = say,
    **settings: Any,
) -> Run:
    """Train an agent until `frames`, `max_time` or `stop_at_score`; return the run. Ctrl-C ends it early and cleanly.

    Works in scripts without a main guard and in notebooks.

    Args:
        env: Gymnasium id such as "ALE/Pong-v5", an import path "package.module:function", or a function that makes an
            environment: lambdas and functions of notebooks too. Files keep only its name.
        preset: where the settings start from, "fast" by default; it and "paper" have settings of their own for
            continuous actions, and "fast" for images of other worlds than Atari and observations that are no images.
        config: to start from instead of a preset. Another number of `workers` changes nothing else in it.
        show: called twice a second with a `Progress`; without it a line is printed every ten seconds.
        announce: called with a line when something worth telling happens.
        **settings: fields of `Config`, such as `frames="10M"`. `network` may be a function that takes the
            observation space and returns a torso of your own (docs/own.md).

    Raises:
        UserError: for a mistake in the settings; nothing has been written then.
    """
    if config is not None and not isinstance(config, Config):
        raise UserError(f"config is a {type(config).__name__}: it must be an asyncrl.Config")
    require_settings(settings)
    named: Any = hand_over(env)
    if named is not None:
        settings["env"] = named
    if config is not None and preset is not None:
        raise UserError("preset and config both say where to start from: give one of them")
    if config is None:
        config = preset_for(
            preset or "fast",
            named,
            settings.get("algo", "a3c"),
            settings.get("env_options", ""),
            settings.get("workers"),
        )
    if named not in (None, config.env):  # the options are of its own environment
        settings = {"env_options": "", **settings}
    config = dataclasses.replace(config, **settings)
    return _train(config, new_run_dir(config), None, show or PlainDisplay(config).show, announce)


def resume(
    path: str | Path,
    *,
    env: str | Callable[..., Any] | None = None,
    network: Callable[..., Any] | None = None,
    show: Show | None = None,
    announce: Announce = say,
    **settings: Any,
) -> Run:
    """Go on with a run from its latest checkpoint, in the same folder.

    Args:
        path: of the run, or of one of its checkpoints.
        env: must repeat the run's environment if that is an import path, a function, or not ours and made with
            options: opening a run never imports code by itself.
        network: must repeat the run's network if that is a function.
        show: as in `train`.
        announce: as in `train`.
        **settings: fields that may change on the way: frames, max_time, stop_at_score, workers, checkpoint_every,
            eval_every, eval_episodes, kernels, and a2c's device and threads.

    Raises:
        UserError: if there is nothing to resume or a setting may not change.
    """
    with _opened(Path(path), env, settings, network) as (config, run_dir, checkpoint):
        return _train(config, run_dir, checkpoint, show or PlainDisplay(config).show, announce)


def new_run_dir(config: Config) -> Path:
    """Return the folder a run will have, which must not exist yet."""
    if config.run_dir is not None:
        if config.run_dir.exists():
            raise _exists(config.run_dir)
        return config.run_dir
    # Trainings of the same second, as in a loop of a shell, are told apart by their processes.
    name = f"{config.algo}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = Path("runs") / config.env.replace("/", "-").replace(":", "-")
    path = folder / name
    with _naming:  # trainings of several threads
        for attempt in range(2, 100):
            if not path.exists() and path not in _named:
                break
            path = folder / f"{name}-{attempt}"
        _named.add(path)
    return path


_naming, _named = threading.Lock(), set[Path]()  # folders that are made only when all is ready


_MAY_CHANGE = frozenset(
    {
        "frames",
        "max_time",
        "stop_at_score",
        "workers",
        "checkpoint_every",
        "eval_every",
        "eval_episodes",
        "kernels",
        "device",
        "threads",
    }
)


def start_run(config: Config, *, as_json: bool = False) -> Run:
    """Train `config` while showing it on this terminal: what `asyncrl train` does."""
    run_dir = new_run_dir(config)
    with make_display(config, run_dir, as_json=as_json) as display:
        return _train(config, run_dir, None, display.show, display.announce)


def resume_run(path: Path, env: str | None, changes: dict[str, Any], *, as_json: bool = False) -> Run:
    """Go on with a run while showing it on this terminal: what `asyncrl resume` does."""
    with (
        _opened(path, env, changes) as (config, run_dir, checkpoint),
        make_display(config, run_dir, as_json=as_json) as display,
    ):
        return _train(config, run_dir, checkpoint, display.show, display.announce)


@contextlib.contextmanager
def _opened(
    path: Path, env: str | Callable[..., Any] | None, changes: dict[str, Any], network: Callable[..., Any] | None = None
) -> Iterator[tuple[Config, Path, Checkpoint]]:
    """Hold a run that is to go on; yield its configuration with `changes`, its folder and its checkpoint."""
    _require_own_folders(path)
    run_dir = find_checkpoint(path).parent.parent
    _require_own_folders(run_dir)
    config = repeat(read_run_config(run_dir), env, network)
    # Held before it is read: who trains there now may be about to write a newer checkpoint.
    with holding(run_dir):
        checkpoint = load_checkpoint(find_checkpoint(path))
        yield _changed(config, run_dir, checkpoint, env, changes), run_dir, checkpoint


def _require_own_folders(run_dir: Path) -> None:
    """Complain of links: a stranger's could have us write, and delete, in a folder of the user's own."""
    for folder in (run_dir / "checkpoints", run_dir / "tensorboard"):
        if folder.is_symlink():
            raise UserError(f"{folder} is a link: have the folder itself there, or copy the run with cp -rL")


def _changed(config: Config, run_dir: Path, checkpoint: Checkpoint, env: object, changes: dict[str, Any]) -> Config:
    """Return `config` with what a resume may change, if there is something left to do."""
    require_repeated(config, config.env if env is not None else None)
    fixed = sorted(set(changes) - _MAY_CHANGE)
    if fixed:
        raise UserError(f"{fixed[0]} cannot change on resume: only {', '.join(sorted(_MAY_CHANGE))} can")
    config = dataclasses.replace(config, **changes, run_dir=run_dir)
    if end := _end(config, checkpoint.state):
        raise UserError(f"{run_dir} {end}")
    return config


def _end(config: Config, state: dict[str, Any]) -> str | None:
    """Return why a run in `state` has nothing left to do, or None."""
    evaluation = state["evaluation"]
    if state["frames"] >= config.frames:
        return (
            f"is done with its {counted(config.frames, 'frame')}: it has {state['frames']:,}, give more with --frames"
        )
    if config.max_time is not None and state["seconds"] >= config.max_time:
        return f"is done with its {config.max_time:g} seconds: give more with --max-time"
    if config.stop_at_score is not None and evaluation and evaluation["evaluated_score"] >= config.stop_at_score:
        return f"has reached its score of {config.stop_at_score:g}: give a higher one with --stop-at-score"
    return None


@torch.inference_mode(False)  # whatever the caller's script has
@torch.enable_grad()
def _train(config: Config, run_dir: Path, checkpoint: Checkpoint | None, show: Show, announce: Announce) -> Run:
    # The trainer finds every mistake before it is asked to run: nothing is written before that.
    trainer = Trainer(config, run_dir, show=show, announce=announce, checkpoint=checkpoint)
    made_by = provenance()
    with _prepared(run_dir) if checkpoint is None else contextlib.nullcontext():
        try:
            write_config(run_dir / "config.toml", config, made_by)
        except OSError as error:
            if checkpoint is None:
                shutil.rmtree(run_dir, ignore_errors=True)
            raise UserError(f"cannot write to {run_dir}: {error.strerror}") from None
        if (slower := slower_without(config)) is not None:
            announce(slower)
        if checkpoint is None and not config.is_actor_critic and config.epsilon_end_frames > config.frames:
            announce(
                f"epsilon falls over {config.epsilon_end_frames:,} frames, but the run ends after {config.frames:,}: "
                f"with --epsilon-frames none it falls over {config.epsilon_share:.0%} of the run"
            )
        announce(
            f"{config.env}: {counted(config.workers, 'worker')} x {counted(config.envs_per_worker, 'environment')} on "
            f"{counted(available_cores(), 'core')}{', in bfloat16' if config.kernels == 'bf16' else ''}, into {run_dir}"
        )
        return Run(run_dir, config, trainer.run())


@contextlib.contextmanager
def _prepared(run_dir: Path) -> Iterator[None]:
    """Make the folder of a new run, which must still not exist, and hold it."""
    try:
        run_dir.mkdir(parents=True)
        (run_dir / "checkpoints").mkdir()
    except FileExistsError:
        raise _exists(run_dir) from None
    except OSError as error:
        raise UserError(f"cannot write to {run_dir}: {error.strerror}") from None
    with holding(run_dir):
        yield


def _exists(run_dir: Path) -> UserError:
    return UserError(f"{run_dir} exists: choose another --run-dir, or resume it with asyncrl resume")


def provenance() -> dict[str, str]:
    """Return what a configuration is kept with: the versions and the revision of the source that made it."""
    return {**versions(), "git_revision": git_revision()}


def git_revision() -> str:
    """Return the revision of the source this runs from, or "unknown"."""
    folder, file = Path(__file__).parent, Path(__file__).name
    try:
        _git(folder, "ls-files", "--error-unmatch", file)  # an installed copy may lie in somebody else's repository
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
