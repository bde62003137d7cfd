"""What a training begins with: spaces, a network, the statistics of its inputs."""

import math
import time
from multiprocessing.context import BaseContext
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from asyncrl import kernels
from asyncrl.checkpoint import Checkpoint, input_statistics, restore_network
from asyncrl.config import Config
from asyncrl.envs import Environments
from asyncrl.envs.actions import ActionMap
from asyncrl.envs.make import is_atari, opened_envs
from asyncrl.errors import UserError, blaming
from asyncrl.flat import flatten_parameters_
from asyncrl.images import is_image
from asyncrl.inputs import NEVER_CHANGED, InputStatistics, statistics_of, sums_of
from asyncrl.machine import available_cores
from asyncrl.networks import Network, largest_supported_torso, make_network
from asyncrl.seeding import put_back_after, seeded
from asyncrl.spaces_json import other_space
from asyncrl.store import ParameterStore, StoreSpec

RANDOM_ENVS, RANDOM_STEPS = 8, 1600  # environments, and steps of all of them together
# A game takes 0.2 s to build and reset, and two that go on are as varied as eight that have just begun (docs/log.md).
ATARI_ENVS, ATARI_STEPS = 2, 1000
ENOUGH_STEPS, PATIENCE_SECONDS = 100, 60.0  # slow worlds are not played for longer, once there are so many steps
# ... but where runs repeat to the last bit, which a clock must not decide.


class Start(NamedTuple):
    """The beginning of a training, fresh or restored."""

    spaces: tuple[spaces.Space, spaces.Space]  # observation and action of one environment
    network: Network
    statistics: InputStatistics | None
    sums: np.ndarray | None  # [1 + 2 D] of observations so far, where they are measured all along


def require_kernels(config: Config) -> None:
    """Raise a UserError if the kernels that `config` wants cannot be had on this machine."""
    if config.kernels == "bf16" and not kernels.has_bfloat16():
        why = kernels.why_none() or "the processor, or what the compiler knows of it, has no AVX-512 BF16"
        raise UserError(f"--kernels bf16: {why}. Choose --kernels auto, which computes in float32")


def slower_without(config: Config) -> str | None:
    """Return in a line that `config` would compute faster with our kernels, and why there are none; else None."""
    if config.kernels != "auto" or config.device != "cpu" or (why := kernels.why_none()) is None:
        return None
    return f"PyTorch computes alone, which is slower: {why}"


def fresh_start(config: Config) -> Start:
    """Build an environment to learn its spaces, measure its inputs, draw the weights.

    Any mistake in the environment's name shows here, before a worker is started.
    """
    num_envs, steps = (ATARI_ENVS, ATARI_STEPS) if is_atari(config.env) else (RANDOM_ENVS, RANDOM_STEPS)
    num_envs = min(num_envs, config.workers * config.envs_per_worker)  # a port or a licence may allow no more
    with (
        seeded(np.random.SeedSequence(config.seed, spawn_key=(20_000, 2))),
        opened_envs(config, num_envs if config.standardize_inputs else 1, threads=available_cores()) as envs,
    ):
        spaces_, statistics, sums = (envs.observation_space, envs.action_space), None, None
        if config.network == "auto" and len(spaces_[0].shape or ()) == 4 and spaces_[0].dtype == np.uint8:
            raise UserError(
                f"{config.env} observes {spaces_[0]}, a stack of pictures: make one picture of it with the channels of "
                "all (gymnasium.wrappers.TransformObservation), or choose --network mlp"
            )
        network = make_network(config, *spaces_)
        _require_convolutions(config, network, spaces_[0])
        if config.standardize_inputs:
            with blaming(f"{config.env} failed in random play, before the training"):
                repeats = config.is_in_one_process or config.workers == 1
                patience = math.inf if repeats else PATIENCE_SECONDS
                statistics, sums = measure_inputs(envs, config.seed, steps, patience)
            network = make_network(config, *spaces_, statistics)
        return Start(spaces_, network, statistics, sums)


def restored_start(config: Config, checkpoint: Checkpoint) -> Start:
    """Go on from a checkpoint, with the statistics it was trained with.

    Raises:
        UserError: if it is not of this network, or the environment has become another one.
    """
    with put_back_after(), opened_envs(config, 1) as envs:
        network, spaces_ = restore_network(config, checkpoint), (envs.observation_space, envs.action_space)
        _require_convolutions(config, network, spaces_[0])
        if (name := other_space(spaces_, checkpoint.state["spaces"])) is not None:
            raise UserError(f"{config.env} has another {name} space now than in {checkpoint.path}: train anew")
        statistics = input_statistics(config, checkpoint)
        sums = _input_sums(checkpoint, math.prod(envs.observation_space.shape or ()))
        return Start(spaces_, network, statistics, sums)


def _require_convolutions(config: Config, network: Network, space: spaces.Space) -> None:
    """Raise a UserError if the kernels that `config` wants have nothing to compute in `network`."""
    if config.kernels == "bf16" and not largest_supported_torso(network, space):
        raise UserError(
            f"--kernels bf16 is for convolutions on pictures of bytes, and {config.env} with this network has none of "
            "them: leave it out"
        )


def make_store(config: Config, start: Start, context: BaseContext | None) -> ParameterStore:
    """Return a store that holds what `start` begins with, shared with processes of `context` if there is one."""
    theta = flatten_parameters_(start.network)
    num_inputs = 0 if start.sums is None else len(start.sums) // 2
    store = ParameterStore(StoreSpec.of(config, theta.numel(), num_inputs), config, context)
    if store.inputs is not None and start.sums is not None:
        store.inputs.start_from(start.sums)
    store.theta.copy_(theta)
    store.target.copy_(theta[: len(store.target)])
    return store


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


def measure_inputs(
    envs: Environments, seed: int, steps: int, patience: float = math.inf
) -> tuple[InputStatistics, np.ndarray | None]:
    """Return statistics of the inputs in `steps` of random play, and for vectors the sums that workers go on with.

    After `patience` seconds ENOUGH_STEPS are enough.

    Vectors have a deviation for each number. Images have one for all: most pixels never change.

    Not in the paper. On Pong inputs around zero are the difference between leaving -20 after 0.25 and after more than
    a million steps (docs/log.md): what never changes drowns as a constant what does.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1_000_000,)))
    envs.action_space.seed(int(generator.integers(2**31)))
    envs.reset(seed=int(generator.integers(2**31)))
    actions, sums = ActionMap(envs.action_space), np.zeros(())
    end = time.monotonic() + patience
    for played in range(0, steps, envs.num_envs):
        if played >= ENOUGH_STEPS and time.monotonic() > end:
            break
        sums = sums + sums_of(envs.step(actions.sample(envs.num_envs)).observations[None])
    if not isinstance(envs.observation_space, spaces.Box) or not is_image(envs.observation_space):
        return statistics_of(sums), sums
    shape = envs.observation_space.shape
    assert shape is not None
    mean, squares = (half.reshape(shape) / sums[0] for half in np.split(sums[1:], 2))
    variance = max(squares.mean() - mean.mean() ** 2, 0.0) + NEVER_CHANGED
    # All black in random play: what is to be seen later must not be blown up.
    brightest = float(np.max(envs.observation_space.high))
    deviation = max(np.sqrt(variance), brightest / 255 if math.isfinite(brightest) else 0.0)
    return InputStatistics(mean.astype(np.float32), np.array(deviation, np.float32)), None
