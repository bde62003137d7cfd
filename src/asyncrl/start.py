"""What a training begins with: spaces, a network, the statistics of its inputs."""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from asyncrl.checkpoint import Checkpoint, restore_network
from asyncrl.config import Config
from asyncrl.envs import Environments, make_envs
from asyncrl.networks import InputStatistics, Network, make_network

RANDOM_STEPS = 200  # of each of RANDOM_ENVS environments; 0.5 s on Atari
RANDOM_ENVS = 8


class Start(NamedTuple):
    """The beginning of a training, fresh or restored."""

    spaces: tuple[spaces.Space, spaces.Space]  # observation and action of one environment
    network: Network
    statistics: InputStatistics | None


def fresh_start(config: Config) -> Start:
    """Build an environment to learn its spaces, measure its inputs, draw the weights.

    Any mistake in the environment's name shows here, before a process is started.
    """
    envs = make_envs(config, RANDOM_ENVS if config.standardize_inputs else 1)
    try:
        measurable = config.standardize_inputs and isinstance(envs.observation_space, spaces.Box)
        statistics = measure_inputs(envs, config.seed) if measurable else None
        network = make_network(config, envs.observation_space, envs.action_space, statistics)
        return Start((envs.observation_space, envs.action_space), network, statistics)
    finally:
        envs.close()


def restored_start(config: Config, checkpoint: Checkpoint) -> Start:
    """Go on from a checkpoint, with the statistics it was trained with."""
    envs = make_envs(config, 1)
    try:
        network = restore_network(config, checkpoint)
        inputs = network.trunk.inputs
        statistics = InputStatistics(inputs.mean.numpy(), 1 / inputs.scale.numpy())
        return Start((envs.observation_space, envs.action_space), network, statistics)
    finally:
        envs.close()


def measure_inputs(envs: Environments, seed: int) -> InputStatistics:
    """Return the mean of each input over random play, and one deviation for all of them.

    Not in the paper. On Pong inputs around zero are the difference between leaving -20 after 0.25 and after more than
    a million steps (docs/log.md): most pixels never change, and as a constant they drown what does.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1_000_000,)))
    envs.action_space.seed(int(generator.integers(2**31)))
    envs.reset(seed=int(generator.integers(2**31)))
    total, squares, count = 0.0, 0.0, 0
    for _ in range(RANDOM_STEPS):
        actions = np.stack([envs.action_space.sample() for _ in range(envs.num_envs)])
        observations = envs.step(actions).observations.astype(np.float64)
        total = total + observations.sum(0)
        squares += float(np.square(observations).sum())
        count += envs.num_envs
    mean = np.asarray(total / count)
    variance = squares / (count * mean.size) - mean.mean() ** 2
    return InputStatistics(mean.astype(np.float32), np.array(np.sqrt(variance) + 1e-8, np.float32))
