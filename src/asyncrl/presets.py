"""Presets: functions that return a configuration, per kind of world. `Paper:` marks what the paper leaves open."""

import contextlib
import dataclasses
import math
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gymnasium import spaces

from asyncrl.config import Algo, Config, PresetName
from asyncrl.envs.make import is_atari, opened_envs
from asyncrl.errors import UserError
from asyncrl.images import MIN_PICTURE, is_image, torso_shape
from asyncrl.machine import available_cores
from asyncrl.seeding import put_back_after

_printing = threading.RLock()


def fast_preset() -> Config:
    """Return the default, for up to four workers: settings chosen by measured time to a score (docs/log.md)."""
    return Config(
        workers=available_cores(),
        envs_per_worker=8,
        t_max=20,
        gae_lambda=0.95,
        final_entropy_fraction=0.0,
        entropy_share=0.5,
        initialization="orthogonal",
        standardize_inputs=True,
        optimizer="adam",
        learning_rate=1e-3,
        decay=0.999,
        optimizer_epsilon=2e-4,
        max_grad_norm=10.0,
    )


def paper_preset() -> Config:
    """Return the settings of the paper's subset runs (section 5.1, supplement 8): 16 workers, B = 1, 2013 network.

    Paper: how long a run is, over which the learning rate anneals, differs between its figures (40 epochs of 4 million
    frames, 14 hours, a day); 320 million frames are the day. It samples the learning rate of each run; 7e-4, epsilon
    0.1 and the value cost are the authors' by e-mail.
    """
    return Config(
        preset="paper",
        workers=16,
        envs_per_worker=1,
        frames=320_000_000,
        network="conv2013",
        t_max=5,
        optimizer="shared-rmsprop",
        learning_rate=7e-4,
        decay=0.99,
        optimizer_epsilon=0.1,
        max_grad_norm=None,
    )


def paper57_preset() -> Config:
    """Return the 57-game recipe (section 5.1): 2015 network, t_max 20 and clip 40 (authors' e-mail)."""
    return dataclasses.replace(paper_preset(), preset="paper57", network="conv2015", t_max=20, max_grad_norm=40.0)


def fast_pixels_preset() -> Config:
    """Return `fast` for images of other worlds than Atari, whose rewards are not clipped: smaller steps.

    With Atari's steps a driver of TORCS loses what it learned, and an agent in a maze takes longer to begin.
    """
    return dataclasses.replace(
        fast_preset(),
        preset="fast-pixels",
        frames=2_000_000,
        entropy_share=1.0,
        learning_rate=5e-4,
        optimizer_epsilon=1e-5,
        reward_scale=0.2,
        max_grad_norm=0.5,
    )


def fast_vector_preset() -> Config:
    """Return `fast` for worlds without images, which are cheap to step and small networks learn: larger steps."""
    return dataclasses.replace(
        fast_preset(),
        preset="fast-vector",
        envs_per_worker=4,
        t_max=16,
        frames=1_000_000,
        learning_rate=3e-3,
        optimizer_epsilon=1e-5,
        entropy_cost=0.005,
        entropy_share=1.0,
        max_grad_norm=None,
        separate_networks=True,
    )


def fast_continuous_preset() -> Config:
    """Return `fast` for continuous actions: many small steps, separate networks, a mean within the actions' bounds."""
    return dataclasses.replace(
        fast_preset(),
        preset="fast-continuous",
        envs_per_worker=4,
        t_max=8,
        frames=1_000_000,
        separate_networks=True,
        policy_variance="per-dimension",
        policy_mean="tanh",
        initialization="torch",
        learning_rate=5e-4,
        optimizer_epsilon=1e-5,
        # Where actions are clipped, wide Gaussians cost nothing: with 0.01 those of a walker's six joints only widen.
        entropy_cost=0.0,
        entropy_share=1.0,
        reward_scale=0.1,
    )


def fast_continuous_pixels_preset() -> Config:
    """Return `fast-continuous` for images: larger batches on one network, which cost half, and noise that stays.

    Where an environment makes few steps a second, a Gaussian that has become narrow ends the learning: its gradients
    grow as the inverse of its variance.
    """
    return dataclasses.replace(
        fast_continuous_preset(),
        preset="fast-continuous-pixels",
        envs_per_worker=8,
        t_max=16,
        separate_networks=False,
        min_deviation=0.2,
    )


def paper_continuous_preset() -> Config:
    """Return the paper's continuous control (section 5.3, supplement 9): LSTM, separate networks, whole episodes.

    Paper: workers, discount and optimiser are not restated for these tasks, so they are those of the subset runs; the
    learning rate of a run is drawn from LogUniform(1e-5, 1e-1), and 7e-4 lies in the middle of that.
    """
    return dataclasses.replace(
        paper_preset(),
        preset="paper-continuous",
        core="lstm",
        lstm_size=128,
        network="mlp200",
        separate_networks=True,
        policy_variance="spherical",
        entropy_cost=1e-4,
        t_max=None,
        # Paper: an update is a whole episode "without bootstrapping", although its episodes end only by a time limit.
        bootstrap_on_truncation=False,
    )


PRESETS: dict[PresetName, Callable[[], Config]] = {
    "fast": fast_preset,
    "paper": paper_preset,
    "paper57": paper57_preset,
    "fast-pixels": fast_pixels_preset,
    "fast-vector": fast_vector_preset,
    "fast-continuous": fast_continuous_preset,
    "fast-continuous-pixels": fast_continuous_pixels_preset,
    "paper-continuous": paper_continuous_preset,
}

# What a preset says otherwise for methods that learn action values. The paper's four have the same settings.
_FOR_ACTION_VALUES: dict[PresetName, dict[str, Any]] = {
    "fast": {"epsilon_frames": None, "epsilon_share": 0.1, "target_frames": None},
    "fast-pixels": {"epsilon_frames": None, "epsilon_share": 0.1, "target_frames": None},
    # Target parameters that change sooner let action values run away: CartPole is learned and lost again.
    "fast-vector": {
        "epsilon_frames": None,
        "target_frames": None,
        "target_share": 0.02,
        "envs_per_worker": 16,
        "t_max": 8,
        "learning_rate": 1e-3,
        "max_grad_norm": 10.0,
    },
}
# One-step targets carry a reward back by one step for each copy to the target parameters: many copies, many updates.
_FOR_ONE_STEP: dict[PresetName, dict[str, Any]] = {
    "fast": {"t_max": 5, "target_share": 0.001},
    "fast-pixels": {"t_max": 5, "target_share": 0.001},
    "fast-vector": {"target_share": 0.008},
}
# What a preset is for images of other worlds than Atari, where observations are no images, and where actions are
# continuous.
_FOR_PICTURES: dict[PresetName, PresetName] = {"fast": "fast-pixels", "fast-continuous": "fast-continuous-pixels"}
_FOR_VECTORS: dict[PresetName, PresetName] = {"fast": "fast-vector"}
_FOR_CONTINUOUS: dict[PresetName, PresetName] = {"fast": "fast-continuous", "paper": "paper-continuous"}
# Sixteen workers of two games each learn Pong from about as many frames as two workers of eight. With four each they
# need more, with eight they had hardly begun when those had won; one each was no better than two, and no faster.
MOST_GAMES = 32  # of all workers together, where each can have one
_FOR_CROWDS: tuple[PresetName, ...] = ("fast", "fast-pixels")


def make_preset(name: PresetName, algo: Algo = "a3c", workers: int | None = None) -> Config:
    """Return the preset `name` as it is for the method `algo`, with as many `workers` or its own number of them.

    Raises:
        UserError: if `workers` is no number of workers.
    """
    config = dataclasses.replace(PRESETS[name](), algo=algo)
    if workers is not None:
        config = dataclasses.replace(config, workers=workers)
    if most_games(config) is not None:
        config = _for_crowds(config)
    if config.is_actor_critic:
        return config
    one_step = _FOR_ONE_STEP.get(name, {}) if algo.startswith("one-step") else {}
    return dataclasses.replace(config, **_FOR_ACTION_VALUES.get(name, {}) | one_step)


def most_games(config: Config) -> int | None:
    """Return how many games the workers of a preset shall have in all, or None if it does not say."""
    return MOST_GAMES if config.algo == "a3c" and config.preset in _FOR_CROWDS else None


def _for_crowds(config: Config) -> Config:
    """Return `config` with fewer games for each of many workers, and with smaller steps, as its updates are noisier."""
    games = max(min(config.envs_per_worker, MOST_GAMES // config.workers), 1)
    rate = config.learning_rate * math.sqrt(games / config.envs_per_worker)
    return dataclasses.replace(config, envs_per_worker=games, learning_rate=float(f"{rate:.3g}"))


def preset_for(
    name: PresetName,
    env: str | None,
    algo: Algo = "a3c",
    env_options: str | Mapping[str, Any] = "",
    workers: int | None = None,
) -> Config:
    """Return the preset `name` as it is for `algo` in the world `env`, which is built once to see its spaces.

    Raises:
        UserError: if there is no such preset, if `env` cannot be built, or if `workers` is neither None nor a number of
            workers.
    """
    if name not in list(PRESETS):
        raise UserError(f"there is no preset {name!r}: {', '.join(PRESETS)} are all")
    if env is None:
        return make_preset(name, algo, workers)
    world = Config(env=env, env_options=env_options)  # type: ignore[arg-type]
    if is_atari(env) or name not in {*_FOR_VECTORS, *_FOR_CONTINUOUS, "paper57", "paper-continuous"}:
        return dataclasses.replace(make_preset(name, algo, workers), env=env, env_options=world.env_options)
    observations, actions = _spaces(world)
    if isinstance(actions, spaces.Box):
        name = _FOR_CONTINUOUS.get(name, name)
    elif not is_image(observations):
        name = _FOR_VECTORS.get(name, name)
    if _is_picture(observations):
        name = _FOR_PICTURES.get(name, name)
    config = dataclasses.replace(make_preset(name, algo, workers), env=env, env_options=world.env_options)
    return _off_atari(config, observations) if name.startswith("paper") else config


def _off_atari(config: Config, observations: spaces.Space) -> Config:
    """Return a `paper` preset with a network that takes `observations`.

    Paper: its networks are for 84x84 pictures, and for joint angles. Its Q methods have pictures only: where there are
    none, runs are shorter, and schedules are as large a share of them as the paper's numbers then are.
    """
    is_picture, network = _is_picture(observations), config.network
    if is_picture != network.startswith("conv"):
        network = "conv2013" if is_picture else "auto"
    if config.is_actor_critic or is_picture:
        return dataclasses.replace(config, network=network)
    return dataclasses.replace(config, network=network, frames=10_000_000, epsilon_frames=None, target_frames=None)


def _is_picture(observations: spaces.Space) -> bool:
    """Return whether they are images large enough for the paper's networks."""
    return (
        isinstance(observations, spaces.Box)
        and is_image(observations)
        and min(torso_shape(observations)[1:]) >= MIN_PICTURE
    )


def _spaces(world: Config) -> tuple[spaces.Space, spaces.Space]:
    # What the environment prints is no output of ours. One thread at a time: there is but one stdout to put back.
    with _printing, contextlib.redirect_stdout(sys.stderr), put_back_after(), opened_envs(world, 1) as envs:
        return envs.observation_space, envs.action_space
