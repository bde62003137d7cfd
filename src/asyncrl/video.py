"""Record an agent's play as a video."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from asyncrl.agent import Agent
from asyncrl.config import Config
from asyncrl.envs import Environments, make_envs
from asyncrl.envs.atari import FRAMES_PER_STEP, AtariMirror
from asyncrl.envs.make import is_atari, make_filmed_env
from asyncrl.errors import MissingPackageError, UserError, blaming, install_command, require_place
from asyncrl.evaluate import Mode, Player, single_threaded
from asyncrl.rollout import Episode
from asyncrl.seeding import seeded

FRAMES_PER_SECOND = 30.0  # of a film, about: where more steps than these make a second, some are left out
MIN_HEIGHT = 420  # pixels; smaller pictures are enlarged by whole factors


class _Stage(NamedTuple):
    """Where an agent plays and how the picture is taken."""

    envs: Environments
    picture: Callable[[np.ndarray | None], np.ndarray]  # (actions just taken, or None at the start) -> [H, W, 3]
    frames_per_second: float
    close: Callable[[], None]


def record(
    agent: Agent,
    path: Path,
    *,
    mode: Mode = "sampled",
    seed: int = 0,
    max_steps: int = 27_000,
    announce: Callable[[str], None] = lambda _: None,
) -> Episode:
    """Play one episode and write it to `path` (.mp4); return the episode.

    Args:
        agent: that plays.
        path: of the video; it appears only when it is whole.
        mode: see `Agent.evaluate`.
        seed: of the environment and the draws.
        max_steps: after which the recording ends.
        announce: called with a line before the work, which may take a minute.

    Raises:
        UserError: if the path cannot be written, the video extra is missing, or the world renders no pictures.
    """
    agent.require_playable()
    if path.suffix != ".mp4":
        raise UserError(f"{path} must end in .mp4")
    require_place(path)
    _import_ffmpeg()
    with seeded(np.random.SeedSequence(seed, spawn_key=(2,))):
        return _recorded(agent, path, mode, seed, max_steps, announce)


def _recorded(
    agent: Agent, path: Path, mode: Mode, seed: int, max_steps: int, announce: Callable[[str], None]
) -> Episode:
    with _no_screen(), blaming(f"{agent.config.env} cannot be made"):
        stage = _make_stage(agent.config, seed)
    aside = path.absolute().with_name(f".{path.name}.part.mp4")  # or ffmpeg might take ".12:30" for a protocol
    try:
        player = Player(agent.config, agent.network, 1, mode, seed)
        announce(f"filming an episode of {agent.config.env} ...")
        with _no_screen(), single_threaded():
            episode = _film(stage, player, aside, seed, max_steps)
        _require_whole(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # what has failed before is what there is to tell
            _close(stage)
        raise
    with blaming(f"{agent.config.env} cannot be closed"):
        _close(stage)
    return episode


def _require_whole(film: Path) -> None:
    """Complain if ffmpeg, which tells nobody how it ended, has left a film without its end."""
    options = ("-nostdin", "-v", "error", "-i", str(film), "-c", "copy", "-f", "null", "-")
    # Safe: constants and the film's own path, without a shell.
    command = [_import_ffmpeg().get_ffmpeg_exe(), *options]
    if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0:
        raise _not_whole(film)


def _not_whole(film: Path) -> UserError:
    return UserError(f"ffmpeg could not write the whole film into {film.parent}: is the disk full?")


def _close(stage: _Stage) -> None:
    stage.envs.close()
    stage.close()


@contextlib.contextmanager
def _no_screen() -> Iterator[None]:
    """Keep CartPole's pygame from looking for a screen where there is none, and complaining."""
    if sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & set(os.environ):
        yield
        return
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        os.environ.pop("SDL_VIDEODRIVER", None)


def _film(stage: _Stage, player: Player, path: Path, seed: int, max_steps: int) -> Episode:
    with blaming("the environment failed"):
        observations = stage.envs.reset(seed=seed)
    try:
        first = stage.picture(None)
    except Exception as error:  # of the world's code, which may raise anything
        raise UserError(f"there is no picture to film: {(str(error) or 'it renders none').splitlines()[0]}") from error
    score, steps, truncated = 0.0, 0, False
    # Atari's mirror must see every step; its 15 a second are few enough for that.
    every = max(1, round(stage.frames_per_second / FRAMES_PER_SECOND))
    with _writer(path, first, stage.frames_per_second / every) as write:
        write(first)
        while steps < max_steps:
            actions = player.act(observations)
            with blaming("the environment failed"):
                step = stage.envs.step(actions)
            observations, score, steps = step.observations, score + float(step.rewards[0]), steps + 1
            truncated = bool(step.truncated[0])
            ended = bool(step.terminated[0]) or truncated
            if ended or steps % every == 0:
                with blaming("the environment failed"):
                    picture = stage.picture(actions)
                write(picture)
            if ended:
                break
    return Episode(0, score, steps, 0.0, truncated)


def _make_stage(config: Config, seed: int) -> _Stage:
    if is_atari(config.env):
        envs = make_envs(config, 1)
        mirror = AtariMirror(config.env, sticky=config.sticky, seed=seed)
        return _Stage(envs, mirror.picture, 60 // FRAMES_PER_STEP, mirror.close)
    envs = make_filmed_env(config)
    return _Stage(envs, lambda _: envs.picture(), envs.render_frames_per_second, envs.close)


@contextlib.contextmanager
def _writer(path: Path, first: np.ndarray, frames_per_second: float) -> Generator[Callable[[np.ndarray], None]]:
    factor = -(-MIN_HEIGHT // first.shape[0])
    size = (first.shape[1] * factor, first.shape[0] * factor)
    ffmpeg = _import_ffmpeg().write_frames(
        str(path), size, fps=frames_per_second, codec="libx264", quality=8, macro_block_size=2, ffmpeg_log_level="error"
    )
    ffmpeg.send(None)

    def write(frame: np.ndarray) -> None:
        try:
            ffmpeg.send(np.ascontiguousarray(frame.repeat(factor, 0).repeat(factor, 1)))
        except OSError:  # its pipe is closed
            raise _not_whole(path) from None

    try:
        yield write
    finally:
        ffmpeg.close()


def _import_ffmpeg() -> ModuleType:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise MissingPackageError(f"recording needs imageio-ffmpeg: {install_command('video')}") from None
    return imageio_ffmpeg
