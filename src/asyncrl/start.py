"""What a training begins with: spaces, a network, the statistics of its inputs."""

import math
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from asyncrl.checkpoint import Checkpoint, input_statistics, restore_network
from asyncrl.config import Config
from asyncrl.envs import Environments
from asyncrl.envs.actions import ActionMap
from asyncrl.envs.make import is_atari, opened_envs
from asyncrl.errors import UserError, blaming
from asyncrl.images import is_image
from asyncrl.inputs import InputStatistics, statistics_of, sums_of
from asyncrl.machine import available_cores
from asyncrl.networks import Network, make_network
from asyncrl.spaces_json import other_space

RANDOM_ENVS, RANDOM_STEPS = 8, 200  # environments, and steps of each
# A game takes 0.2 s to build and reset, and two that go on are as varied as eight that have just begun (docs/log.md).
ATARI_ENVS, ATARI_STEPS = 2, 500


class Start(NamedTuple):
    """The beginning of a training, fresh or restored."""

    spaces: tuple[spaces.Space, spaces.Space]  # observation and action of one environment
    network: Network
    statistics: InputStatistics | None
    sums: np.ndarray | None  # [1 + 2 D] of observations so far, where they are measured all along


def fresh_start(config: Config) -> Start:
    """Build an environment to learn its spaces, measure its inputs, draw the weights.

    Any mistake in the environment's name shows here, before a worker is started.
    """
    num_envs, steps = (ATARI_ENVS, ATARI_STEPS) if is_atari(config.env) else (RANDOM_ENVS, RANDOM_STEPS)
    with opened_envs(config, num_envs if config.standardize_inputs else 1, threads=available_cores()) as envs:
        spaces_, statistics, sums = (envs.observation_space, envs.action_space), None, None
        network = make_network(config, *spaces_)
        if config.standardize_inputs:
            with blaming(f"{config.env} failed in random play, before the training"):
                statistics, sums = measure_inputs(envs, config.seed, steps)
            network = make_network(config, *spaces_, statistics)
        return Start(spaces_, network, statistics, sums)


def restored_start(config: Config, checkpoint: Checkpoint) -> Start:
    """Go on from a checkpoint, with the statistics it was trained with.

    Raises:
        UserError: if it is not of this network, or the environment has become another one.
    """
    with opened_envs(config, 1) as envs:
        network, spaces_ = restore_network(config, checkpoint), (envs.observation_space, envs.action_space)
        if (name := other_space(spaces_, checkpoint.state["spaces"])) is not None:
            raise UserError(f"{config.env} has another {name} space now than in {checkpoint.path}: train anew")
        statistics = input_statistics(config, checkpoint)
        sums = _input_sums(checkpoint, math.prod(envs.observation_space.shape or ()))
        return Start(spaces_, network, statistics, sums)


def _input_sums(checkpoint: Checkpoint, size: int) -> np.ndarray | None:
    """Return the sums [1 + 2 D] of observations of `size` = D numbers, or None where they were not measured all along.

    Raises:
        UserError: if they are of other observations.
    """
    sums = checkpoint.optimizer.get("input_sums")
    if sums is not None and (
        sums.shape != (1 + 2 * size,)
        or sums.dtype != torch.float64
        or min(sums[0], *sums[1 + size :]) < 0  # their number, and sums of squares
    ):
        raise UserError(f"{checkpoint.path} is damaged: its input_sums are not those of its observations")
    return None if sums is None else sums.numpy()


def measure_inputs(envs: Environments, seed: int, steps: int) -> tuple[InputStatistics, np.ndarray | None]:
    """Return statistics of the inputs in random play, and for vectors the sums that workers go on with.

    Vectors have a deviation for each number. Images have one for all: most pixels never change.

    Not in the paper. On Pong inputs around zero are the difference between leaving -20 after 0.25 and after more than
    a million steps (docs/log.md): what never changes drowns as a constant what does.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1_000_000,)))
    envs.action_space.seed(int(generator.integers(2**31)))
    envs.reset(seed=int(generator.integers(2**31)))
    actions, sums = ActionMap(envs.action_space), np.zeros(())
    for _ in range(steps):
        sums = sums + sums_of(envs.step(actions.sample(envs.num_envs)).observations[None])
    if not is_image(envs.observation_space):
        return statistics_of(sums), sums
    shape = envs.observation_space.shape
    assert shape is not None
    mean, squares = (half.reshape(shape) / sums[0] for half in np.split(sums[1:], 2))
    variance = max(squares.mean() - mean.mean() ** 2, 0.0)
    return InputStatistics(mean.astype(np.float32), np.array(np.sqrt(variance) + 1e-8, np.float32)), None
