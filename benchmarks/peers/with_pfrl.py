"""Contender: A3C of pfrl on Atari with the settings of its reproduction script, over ALE's vector environment.

pfrl 0.4.0 knows the old Gym interface only, hence the small environment here. One process per environment.
"""

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
import traceback

import gym.spaces
import numpy as np
import torch
import torch.multiprocessing as mp
from pfrl import experiments
from pfrl.agents import a3c
from pfrl.nn import Branched
from pfrl.optimizers import rmsprop_eps_inside_sqrt
from pfrl.policies import SoftmaxCategoricalHead
from shared import NETWORKS, Scaled, finish, make_torso, make_watch, peer_arguments
from torch import nn

from asyncrl.envs.atari import AtariEnvironments, rom_name

POLL_SECONDS = 0.02
STEPS = 80_000_000  # agent steps of its training, over which the learning rate falls to 0
LEARNING_RATE = 7e-4


class OneGame:
    """One game with the old Gym interface; as in pfrl's wrapper a lost life ends an episode and rewards are clipped."""

    def __init__(self, env: str, seed: int) -> None:
        self._envs = AtariEnvironments(rom_name(env), 1)
        self.action_space = gym.spaces.Discrete(int(self._envs.action_space.n))
        self._first = self._envs.reset(seed=seed)[0]

    def reset(self) -> np.ndarray:
        return self._first  # of the next game or life: the environments below begin it by themselves

    def step(self, action: int) -> tuple[np.ndarray, float, bool, dict]:
        step = self._envs.step(np.array([action]))
        self._first = seen = step.observations[0].copy()  # it keeps what it has seen until its update
        truncated = bool(step.truncated[0])
        if truncated and step.final_observations is not None:
            seen = step.final_observations[0].copy()  # from whose value it bootstraps
        done = bool((step.terminated | step.lives_lost)[0])
        return seen, float(np.sign(step.rewards[0])), done, {"needs_reset": truncated}

    def close(self) -> None:
        self._envs.close()


def scaled(observation: np.ndarray) -> np.ndarray:
    """Return floats from 0 to 1."""
    return np.asarray(observation, dtype=np.float32) / 255


def make_agent(args: argparse.Namespace, num_actions: int) -> a3c.A3C:
    """Return the agent, its model and optimiser to be shared by all processes."""
    hidden = NETWORKS[args.network][1]
    policy = nn.Sequential(nn.Linear(hidden, num_actions), SoftmaxCategoricalHead())
    model = nn.Sequential(make_torso(args.network), Branched(policy, nn.Linear(hidden, 1)))
    optimizer = rmsprop_eps_inside_sqrt.SharedRMSpropEpsInsideSqrt(
        model.parameters(), lr=LEARNING_RATE, eps=1e-1, alpha=0.99
    )
    return a3c.A3C(model, optimizer, t_max=5, gamma=0.99, beta=1e-2, phi=scaled, max_grad_norm=40.0)


def watch_steps(watch, steps, stop) -> None:
    """Stop the training when the watch says so. This is a thread, whose failure alone would end nothing."""
    try:
        while not watch.is_over(steps.value):
            time.sleep(POLL_SECONDS)
    except BaseException:
        traceback.print_exc()
        os.killpg(0, signal.SIGKILL)
    stop.set()
    finish(watch)


def main() -> None:
    """Train, measure, print."""
    args = peer_arguments(__doc__).parse_args()
    logging.basicConfig(level=logging.WARNING)
    os.environ["OMP_NUM_THREADS"] = "1"  # as its script does
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    game = OneGame(args.env, args.seed)
    agent = make_agent(args, game.action_space.n)
    game.close()
    steps, stop = mp.Value("q", 0, lock=False), mp.Event()

    def count(env: OneGame, agent: a3c.A3C, step: int) -> None:
        steps.value = step

    def anneal(env: OneGame, agent: a3c.A3C, step: int) -> None:
        for group in agent.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * max(0.0, 1 - step / STEPS)

    def policy() -> nn.Module:
        torso, branches = agent.shared_model
        return Scaled(torso, branches.child_modules[0][0])

    watch = make_watch(args, policy)
    threading.Thread(target=watch_steps, args=(watch, steps, stop), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        experiments.train_agent_async(
            agent=agent,
            outdir=folder,
            processes=args.envs,
            make_env=lambda process, test: OneGame(args.env, 1000 * args.seed + process),
            steps=STEPS,
            eval_interval=None,
            global_step_hooks=[count, anneal],
            # Its default, NumPy integers, is refused by Python from 3.11 on.
            random_seeds=[1000 * args.seed + process for process in range(args.envs)],
            stop_event=stop,
        )
    finish(watch)


if __name__ == "__main__":
    main()
