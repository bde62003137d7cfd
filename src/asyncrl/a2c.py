"""The synchronous twin (A2C): the environments of all workers as one batch, on the CPU's cores or a GPU.

One worker takes the place of all: the same rollout, loss and network with a larger B, so that an update is the mean of
what W synchronous workers of several environments each would compute, clipped once. It acts for all environments in one
forward pass; the emulators step in threads of their own where they can (Atari), and torch uses all cores.
"""

import dataclasses
from collections.abc import Callable

import torch

from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.inputs import InputStatistics
from asyncrl.machine import available_cores
from asyncrl.simulate import Simulation
from asyncrl.store import ParameterStore

THREADED_PARAMETERS = 100_000  # between a perceptron's 10,000 and the 2013 network's 700,000


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
    threads = threads_of(config, store.spec.num_parameters)
    return Simulation(config, store, statistics, generation, threads=threads, is_interrupted=is_interrupted)


def threads_of(config: Config, num_parameters: int) -> int:
    """Return the torch threads of each process that trains `config`: more than one only where one process has all."""
    # A small network gains nothing from threads and loses much where others compute too: each operation waits for the
    # slowest. On a GPU they would only fight those of the emulators.
    gains = config.algo == "a2c" and config.device == "cpu" and num_parameters >= THREADED_PARAMETERS
    return available_cores() if gains else 1
