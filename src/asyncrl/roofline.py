"""What parts of an agent step cost one core by themselves: emulator, arithmetic at its peak, memory traffic.

They are the least that each can take, but for the arithmetic of our kernels: they do not compute all products.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from asyncrl.envs.actions import ActionMap
from asyncrl.envs.atari import BareGame, rom_name
from asyncrl.envs.make import is_atari
from asyncrl.store import ParameterStore
from asyncrl.worker import Learner, compute_update

PEAK_SIZE = 1024  # of the square matrices whose product stands for the peak
TRAFFIC_FLOATS = 1 << 24  # far beyond any cache
FLOAT_BYTES = 4
DRAWN_ACTIONS = 64  # batches of them, taken again and again

FLOORS = {
    "emulator": "Atari: the game alone under random actions, no picture fetched",
    "pictures": "Atari: fetching, shrinking and stacking them besides",
    "environment": "other worlds, and A2C: stepped alone under random actions",
    "arithmetic": "all products of the passes, at the speed of a large one; what stands still in pictures needs fewer",
    "memory": "parameters, gradient and statistics moved once per pull and push",
}


def floors(learner: Learner, store: ParameterStore, seconds: float) -> dict[str, float]:
    """Return seconds per agent step, measured for about `seconds` for each of FLOORS that this world has.

    Call it when the training is over: it plays on with the learner's environments.
    """
    flops, steps = _flops(learner)
    in_bfloat16 = learner.config.kernels == "bf16" and bool(learner.passes)
    return {
        **_environment_floors(learner, seconds),
        "arithmetic": flops / steps / _peak_flops(seconds, torch.bfloat16 if in_bfloat16 else torch.float32),
        "memory": update_bytes(store) / steps / _bytes_per_second(seconds),
    }


def update_bytes(store: ParameterStore) -> int:
    """Return the bytes that one pull and one push move at least."""
    vectors = 2 + 1 + 2 + 2 * len(store.spec.statistics)  # pull; gradient; parameters and statistics, read and written
    return vectors * FLOAT_BYTES * store.spec.num_parameters


def _flops(learner: Learner) -> tuple[int, int]:
    """Return the floating-point operations of one update, and its agent steps.

    PyTorch counts only its own: another learner does the update, without our kernels.
    """
    counted = Learner(dataclasses.replace(learner.config, kernels="torch"), learner.worker)
    counter = FlopCounterMode(display=False)
    with contextlib.closing(counted), counter:
        update = compute_update(counted)
    return counter.get_total_flops(), update.steps


def _environment_floors(learner: Learner, seconds: float) -> dict[str, float]:
    envs, env = learner.state.envs, learner.config.env
    actions = ActionMap(envs.action_space)
    envs.action_space.seed(learner.worker)
    drawn = itertools.cycle([actions.sample(envs.num_envs) for _ in range(DRAWN_ACTIONS)])  # drawing is no stepping
    environment = _repeat(lambda: envs.step(next(drawn)), seconds) / envs.num_envs
    if not is_atari(env) or learner.config.algo == "a2c":  # whose emulators have all cores
        return {"environment": environment}
    emulator = _repeat(BareGame(rom_name(env), learner.worker).step, seconds)
    return {"emulator": emulator, "pictures": max(0.0, environment - emulator)}


def _peak_flops(seconds: float, dtype: torch.dtype) -> float:
    left, right, product = (torch.rand(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(3))
    return 2 * PEAK_SIZE**3 / _repeat(lambda: torch.mm(left, right, out=product), seconds)


def _bytes_per_second(seconds: float) -> float:
    source, target = torch.ones(TRAFFIC_FLOATS), torch.ones(TRAFFIC_FLOATS)
    return 2 * FLOAT_BYTES * TRAFFIC_FLOATS / _repeat(lambda: target.copy_(source), seconds)


def _repeat(do: Callable[[], object], seconds: float) -> float:
    """Return the seconds of one `do()`: the fastest of ten tries, as others can only make it slower."""
    do()
    times = []
    for _ in range(10):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / 10:
            do()
            count += 1
        times.append((time.perf_counter() - began) / count)
    return min(times)
