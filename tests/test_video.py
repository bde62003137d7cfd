"""Films of agents."""

import dataclasses
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import Tiny

from asyncrl import video
from asyncrl.agent import Agent
from asyncrl.checkpoint import Checkpoint
from asyncrl.config import Config
from asyncrl.envs import make_envs
from asyncrl.envs.atari import AtariMirror
from asyncrl.errors import UserError
from asyncrl.evaluate import Player
from asyncrl.networks import make_network
from asyncrl.video import record

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
# imageio-ffmpeg's reader leaves its pipes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def make_agent(env: str, repeated: str | None = None, **settings) -> Agent:
    """Return an agent with fresh weights; no run needed."""
    config = Config(env=env, standardize_inputs=False, **settings)
    envs = make_envs(config, 1)
    network = make_network(config, envs.observation_space, envs.action_space)
    envs.close()
    return Agent(config, network, Checkpoint(None, {}, {}, {}), repeated)  # type: ignore[arg-type]


def read(path) -> tuple[dict, np.ndarray]:
    """Return a film's description and frames [N, H, W, 3]."""
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return about, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_an_episode_is_filmed_from_start_to_end(tmp_path):
    agent = make_agent("worlds:tiny", "worlds:tiny")
    episode = record(agent, tmp_path / "out.mp4", seed=1)
    about, frames = read(tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert episode.steps == 4 and len(frames) == 5  # the first picture, and one after each step, the last included
    assert about["fps"] == 30 and about["size"] == (660, 440)  # 40 x 60, enlarged by a whole factor
    assert [round(float(frame.mean()) / 60) for frame in frames] == [0, 1, 2, 3, 4]
    assert record(agent, tmp_path / "again.mp4", seed=1) == episode


def test_a_film_leaves_out_steps_that_no_eye_would_miss_but_not_the_last(tmp_path, monkeypatch):
    monkeypatch.setitem(Tiny.metadata, "render_fps", 90)
    record(make_agent("worlds:tiny", "worlds:tiny"), tmp_path / "out.mp4")
    about, frames = read(tmp_path / "out.mp4")
    assert about["fps"] == 30
    assert [round(float(frame.mean()) / 60) for frame in frames] == [0, 3, 4]


def test_a_world_without_pictures_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match="there is no picture to film: pygame is not installed"):
        record(make_agent("CartPole-v1"), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ("worlds:broken", "the environment failed: RuntimeError"),
        ("worlds:unbuildable", "unbuildable cannot be made: Ru"),
    ],
)
def test_a_world_that_fails_is_told_in_one_line(tmp_path, env, complaint):
    agent = make_agent("worlds:tiny", env)
    agent.config = dataclasses.replace(agent.config, env=env)
    with pytest.raises(UserError, match=complaint) as caught:
        record(agent, tmp_path / "out.mp4")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env", ["worlds:renders_none", "worlds:cannot_render", "worlds:renders_transparency"])
def test_a_world_that_renders_nothing_is_told(tmp_path, env):
    with pytest.raises(UserError, match=r"there is no picture to film: \w"):
        record(make_agent(env, env), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_pong_is_filmed_in_colour(tmp_path):
    episode = record(make_agent("ALE/Pong-v5"), tmp_path / "out.mp4", seed=2, max_steps=150)
    about, frames = read(tmp_path / "out.mp4")
    assert episode.steps == 150 and len(frames) == 151
    assert about["size"] == (320, 420) and about["fps"] == 15
    field, ours = frames[60:, 100:380, 60:260], frames[60:, 100:380, 270:295].astype(int)
    assert np.abs(np.median(field, (0, 1, 2)) - [144, 72, 17]).max() < 12
    assert ((ours[..., 1] - ours[..., 0]) > 60).any()  # our racket is green
    assert (frames[20:].std(0).max() > 20).all()  # things move


@pytest.mark.parametrize("sticky", [False, True])
def test_the_mirror_stays_in_step_with_the_game(sticky):
    config = Config(env="ALE/Pong-v5", sticky=sticky, standardize_inputs=False)
    envs, mirror = make_envs(config, 1), AtariMirror(config.env, sticky=sticky, seed=3)
    agent = make_agent("ALE/Pong-v5", sticky=sticky)
    player = Player(config, agent.network, 1, "sampled", 0)
    observations = envs.reset(seed=3)
    picture = mirror.picture(None)
    for _ in range(100):
        actions = player.act(observations)
        observations = envs.step(actions).observations
        picture = mirror.picture(actions)
    # Luminance of the mirror's picture, shrunk as the game's: equal but for rounding.
    grey = picture @ np.array([0.299, 0.587, 0.114])
    rows = np.arange(84) * 210 // 84
    columns = np.arange(84) * 160 // 84
    near = np.abs(grey[rows][:, columns] - observations[0, -1]) < 40
    assert near.mean() > 0.95
    envs.close()
    mirror.close()


def test_an_import_path_must_be_repeated(tmp_path):
    with pytest.raises(UserError, match="repeat it with --env worlds:tiny"):
        record(make_agent("worlds:tiny"), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_classic_control_is_drawn_without_a_screen_or_a_word(tmp_path, monkeypatch, capfd):
    pytest.importorskip("pygame")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    episode = record(make_agent("CartPole-v1"), tmp_path / "out.mp4")
    _, frames = read(tmp_path / "out.mp4")
    assert episode.steps > 5 and len(frames) > 5 and frames.std() > 1
    assert capfd.readouterr().err == "" and "SDL_VIDEODRIVER" not in os.environ


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    agent = make_agent("worlds:tiny", "worlds:tiny")
    monkeypatch.chdir(tmp_path)
    record(agent, Path("12:30.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["12:30.mp4"]


def test_what_may_not_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    agent, out = make_agent("CartPole-v1"), tmp_path / "out.mp4"
    monkeypatch.setattr("asyncrl.errors.tempfile.TemporaryFile", refuse)
    with pytest.raises(
        UserError, match=r"cannot write .*out.mp4: no file can be made in its folder \(Permission denied"
    ):
        record(agent, out)
    out.touch()
    monkeypatch.setattr("asyncrl.errors.os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot write .*out.mp4: permission denied"):
        record(agent, out)
    assert out.stat().st_size == 0


@pytest.mark.parametrize("name", ["out.gif", "out", "nowhere/out.mp4"])
def test_where_no_film_can_be_written(tmp_path, name):
    with pytest.raises(UserError, match=r"must end in .mp4|there is no folder"):
        record(make_agent("CartPole-v1"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    agent = make_agent("worlds:tiny", "worlds:tiny")
    monkeypatch.setattr(Player, "act", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(agent, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_film_without_its_end_is_no_film(tmp_path, monkeypatch):
    film = video._film

    def cut_short(stage, player, path, *args):
        episode = film(stage, player, path, *args)
        path.write_bytes(path.read_bytes()[:-200])  # the index is at the end
        return episode

    (tmp_path / "out.mp4").write_bytes(b"old")
    monkeypatch.setattr(video, "_film", cut_short)
    with pytest.raises(UserError, match=r"could not write the whole film .*: is the disk full"):
        record(make_agent("worlds:tiny", "worlds:tiny"), tmp_path / "out.mp4")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_an_ffmpeg_that_ends_early_is_told(tmp_path, monkeypatch):
    def write_frames(*args, **settings):
        yield
        yield
        raise OSError("[Errno 32] Broken pipe\n\nFFMPEG COMMAND")

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", write_frames)
    with pytest.raises(UserError, match="could not write the whole film"):
        record(make_agent("worlds:tiny", "worlds:tiny"), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_world_that_fails_later_is_told_in_one_line(tmp_path, monkeypatch):
    agent, render = make_agent("worlds:tiny", "worlds:tiny"), Tiny.render
    monkeypatch.setattr(Tiny, "render", lambda env: render(env) if env.steps < 3 else 1 / 0)
    with pytest.raises(UserError, match="the environment failed: ZeroDivisionError"):
        record(agent, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Tiny, "render", render)
    monkeypatch.setattr(Tiny, "close", lambda env: 1 / 0)
    with pytest.raises(UserError, match="worlds:tiny cannot be closed: ZeroDivisionError"):
        record(agent, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]  # which is whole


def test_an_older_film_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    (tmp_path / "out.mp4").write_bytes(b"old")
    agent = make_agent("worlds:tiny", "worlds:tiny")
    agent.config = dataclasses.replace(agent.config, seed=4)
    monkeypatch.setattr(Player, "act", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(agent, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
