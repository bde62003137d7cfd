"""Contenders that no trainer can beat: the environments alone, and the cheapest acting and training pass alone.

One process per core, as when training, so that shared caches and clocks count for both.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator

import numpy as np
from meter import Window, window_arguments

POLL_SECONDS = 0.02


def step_environments(args: argparse.Namespace, worker: int) -> Iterator[int]:
    """Take random actions in B environments; yield the agent steps taken."""
    from ale_py.vector_env import AtariVectorEnv

    from asyncrl.envs.atari import rom_name

    envs = AtariVectorEnv(
        rom_name(args.env),
        args.envs_per_worker,
        num_threads=1,
        reward_clipping=False,
        use_fire_reset=False,
        repeat_action_probability=0.0,
    )
    envs.reset(seed=worker)
    shape = (1000, args.envs_per_worker)
    actions = np.random.default_rng(worker).integers(envs.single_action_space.n, size=shape)
    while True:
        for action in actions:
            envs.step(action)
            yield args.envs_per_worker


def act_and_train(args: argparse.Namespace, worker: int) -> Iterator[int]:
    """Act T times on B stored frames, then compute a gradient; yield the agent steps that this stands for."""
    import torch
    from net_pass import PASSES

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    do = PASSES[args.way](args.network, args.env, args.envs_per_worker, args.t_max)
    while True:
        do()
        yield args.envs_per_worker * args.t_max


WORK: dict[str, Callable[[argparse.Namespace, int], Iterator[int]]] = {
    "environments": step_environments,
    "network": act_and_train,
}


def run(args: argparse.Namespace, worker: int, counts) -> None:
    """Be one process: work for ever, counting."""
    for steps in WORK[args.what](args, worker):
        counts[worker] += steps


def main() -> None:
    """Keep every core busy, measure, print."""
    parser = window_arguments(__doc__ or "")
    parser.add_argument("what", choices=list(WORK))
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--envs-per-worker", type=int, required=True)
    parser.add_argument("--t-max", type=int, default=1)
    parser.add_argument("--way", default=None)
    parser.add_argument("--network", default="conv2013")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    counts = context.RawArray("q", args.workers)
    processes = [context.Process(target=run, args=(args, w, counts), daemon=True) for w in range(args.workers)]
    for process in processes:
        process.start()
    window = Window(args.warmup, args.seconds, args.started)
    while not window.is_over(sum(counts) if all(counts) else 0):
        time.sleep(POLL_SECONDS)
        if not all(process.is_alive() for process in processes):
            raise SystemExit(1)  # its own last line tells why
    window.print_measurement()
    for process in processes:
        process.terminate()


if __name__ == "__main__":
    main()
