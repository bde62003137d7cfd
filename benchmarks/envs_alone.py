"""Contender: one world alone in one process under random actions, resets included, stepped in one of three ways.

bare        by the library that it comes from: dm_control's own environments
gymnasium   one environment, as gymnasium.make gives it to anybody
trainer     a batch of them, as the default preset steps it within a worker
"""

from collections.abc import Callable, Iterator
from itertools import cycle

import gymnasium
import numpy as np
from meter import Window, window_arguments

from asyncrl.envs import make_envs
from asyncrl.envs.actions import ActionMap
from asyncrl.keywords import parse_keywords
from asyncrl.presets import preset_for

NUM_ACTIONS = 1000  # drawn beforehand
SEED = 1


def step_bare(env_id: str, _: str) -> Iterator[int]:
    """Step a task of dm_control's suite, such as dm_control/cartpole-swingup-v0; yield the steps taken."""
    from dm_control import suite

    domain, _, task = env_id.removeprefix("dm_control/").removesuffix("-v0").partition("-")
    env = suite.load(domain, task, task_kwargs={"random": SEED})
    low, high = env.action_spec().minimum, env.action_spec().maximum
    shape = (NUM_ACTIONS, *env.action_spec().shape)
    actions = np.random.default_rng(SEED).uniform(low, high, shape)
    env.reset()
    for action in cycle(actions):
        if env.step(action).last():
            env.reset()
        yield 1


def step_gymnasium(env_id: str, env_options: str) -> Iterator[int]:
    """Step one environment; yield the steps taken."""
    env = gymnasium.make(env_id, **parse_keywords(env_options))
    env.reset(seed=SEED)
    env.action_space.seed(SEED)
    for action in cycle([env.action_space.sample() for _ in range(NUM_ACTIONS)]):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
        yield 1


def step_as_trainer(env_id: str, env_options: str) -> Iterator[int]:
    """Step what one worker of the default preset steps; yield the agent steps taken."""
    config = preset_for("fast", env_id, env_options=env_options, workers=1)
    envs = make_envs(config, config.envs_per_worker)
    envs.reset(SEED)
    envs.action_space.seed(SEED)
    draws = ActionMap(envs.action_space)
    for actions in cycle([draws.sample(envs.num_envs) for _ in range(NUM_ACTIONS)]):
        envs.step(actions)
        yield envs.num_envs


WAYS: dict[str, Callable[[str, str], Iterator[int]]] = {
    "bare": step_bare,
    "gymnasium": step_gymnasium,
    "trainer": step_as_trainer,
}


def main() -> None:
    """Step, measure, print."""
    parser = window_arguments(__doc__ or "")
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("--env-options", default="")
    args = parser.parse_args()
    window, steps = Window(args.warmup, args.seconds, args.started), 0
    for taken in WAYS[args.way](args.env, args.env_options):
        steps += taken
        if window.is_over(steps):
            break
    window.print_measurement()


if __name__ == "__main__":
    main()
