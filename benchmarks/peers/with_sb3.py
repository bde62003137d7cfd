"""Contender: A2C or PPO of Stable-Baselines3 on Atari, as documented or over ALE's vector environment.

Settings are those its authors publish for Atari (rl-baselines3-zoo). Only whole iterations, acting and training, count.
"""

import argparse
from typing import Any

import ale_py
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from shared import ENDLESS_STEPS, NETWORKS, PUBLISHED_STEPS, Scaled, finish, make_torso, make_watch, peer_arguments
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack
from torch import Tensor, nn

from asyncrl.envs.atari import AtariEnvironments, rom_name
from asyncrl.machine import available_cores

gymnasium.register_envs(ale_py)  # here, where the processes of SubprocVecEnv see it too


class Features(BaseFeaturesExtractor):
    """The convolutions and hidden layer, shared by policy and values."""

    def __init__(self, observation_space: spaces.Box, network: str) -> None:
        super().__init__(observation_space, features_dim=NETWORKS[network][1])
        self.layers = make_torso(network)

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


class Watching(BaseCallback):
    """Ends the training when the watch says so, between two iterations."""

    def __init__(self, watch: Any) -> None:
        super().__init__()
        self.watch = watch
        self.over = False

    def _on_rollout_start(self) -> None:
        self.over = self.watch.is_over(self.num_timesteps)

    def _on_step(self) -> bool:
        return not self.over


class AleVecEnv(VecEnv):
    """ALE's C++ vector environment as Stable-Baselines3 wants it. As in its own wrapper a lost life ends an episode."""

    def __init__(self, env: str, num_envs: int) -> None:
        self._envs = AtariEnvironments(rom_name(env), num_envs, threads=available_cores())
        super().__init__(num_envs, self._envs.observation_space, self._envs.action_space)
        self._actions = np.zeros(num_envs, np.int64)

    def reset(self) -> np.ndarray:
        return self._envs.reset(seed=self._seeds[0])

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        step = self._envs.step(self._actions)
        dones = step.terminated | step.truncated | step.lives_lost
        infos: list[dict] = [{"TimeLimit.truncated": bool(truncated)} for truncated in step.truncated]
        final = step.observations if step.final_observations is None else step.final_observations
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = final[i]
        return step.observations, np.sign(step.rewards), dones, infos

    def close(self) -> None:
        self._envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs  # it asks for "render_mode"

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def make_envs(args: argparse.Namespace) -> VecEnv:
    """Build the environments, those of SB3 with its own AtariWrapper and frame stack."""
    if args.engine == "ale":
        envs = AleVecEnv(args.env, args.envs)
        envs.seed(args.seed)
        return envs
    kwargs = {"frameskip": 1, "repeat_action_probability": 0.0}  # the wrapper alone skips frames
    kind = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[args.engine]
    return VecFrameStack(make_atari_env(args.env, args.envs, seed=args.seed, env_kwargs=kwargs, vec_env_cls=kind), 4)


def make_model(args: argparse.Namespace, envs: VecEnv) -> BaseAlgorithm:
    """Return the algorithm with its published settings for Atari."""
    policy: dict[str, Any] = {
        "features_extractor_class": Features,
        "features_extractor_kwargs": {"network": args.network},
        "net_arch": [],
    }
    common: dict[str, Any] = {"policy_kwargs": policy, "device": "cpu", "seed": args.seed, "ent_coef": 0.01}
    if args.algo == "a2c":
        if args.snapshots:  # published for learning, but slower than its default
            from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

            policy |= {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
        return A2C("CnnPolicy", envs, vf_coef=0.25, **common)
    return PPO(
        "CnnPolicy",
        envs,
        n_steps=128,
        n_epochs=4,
        batch_size=256,
        learning_rate=lambda left: 2.5e-4 * left,
        clip_range=lambda left: 0.1 * left,
        vf_coef=0.5,
        **common,
    )


def policy_of(model: BaseAlgorithm) -> nn.Module:
    """Return the layers from frames to logits."""
    policy: Any = model.policy
    return Scaled(policy.features_extractor.layers, policy.action_net)


def main() -> None:
    """Train, measure, print."""
    parser = peer_arguments(__doc__)
    parser.add_argument("--algo", choices=("a2c", "ppo"), default="a2c")
    parser.add_argument("--engine", choices=("dummy", "subproc", "ale"), required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = make_model(args, make_envs(args))
    watch = make_watch(args, lambda: policy_of(model))
    # Where speed is measured the length makes no difference; where it learns its schedules run over what is published.
    model.learn(PUBLISHED_STEPS if args.snapshots else ENDLESS_STEPS, callback=Watching(watch))
    finish(watch)


if __name__ == "__main__":
    main()
