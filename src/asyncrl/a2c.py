"""The synchronous twin (A2C): the environments of all workers as one batch, on the CPU's cores or a GPU.

One worker takes the place of all: the same rollout, loss and network with a larger B, so that an update is the mean of
what W synchronous workers of several environments each would compute, clipped once. It acts for all environments in one
forward pass; the emulators step in threads of their own where they can (Atari), and the arithmetic has all cores.
"""

import dataclasses
from collections.abc import Callable

import torch

from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.inputs import InputStatistics
from asyncrl.simulate import Simulation
from asyncrl.store import ParameterStore


def batched(config: Config) -> Config:
    """Return `config` with one worker that has the environments of all.

    Paper: it has no A2C. There are W times fewer updates than with W workers, and the learning rate is scaled
    (`--learning-rate-scaling`) by all environments.

    Raises:
        UserError: if `config.device` is not there.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here")
    return dataclasses.replace(config, workers=1, envs_per_worker=config.workers * config.envs_per_worker)


def make_batched_worker(
    config: Config,
    store: ParameterStore,
    statistics: InputStatistics | None,
    generation: int,
    is_interrupted: Callable[[], bool],
) -> Simulation:
    """Return the one worker of a `batched` configuration: a simulation of one, hence as reproducible."""
    return Simulation(config, store, statistics, generation, is_interrupted=is_interrupted)
