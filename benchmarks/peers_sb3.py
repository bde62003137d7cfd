"""Contender: A2C of Stable-Baselines3 on Atari as its documentation sets it up, but with the 2013 network."""

import argparse

import ale_py
import gymnasium
import torch
from gymnasium import spaces
from meter import Window, window_arguments
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack
from torch import Tensor, nn

VECTOR_ENVIRONMENTS = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}


class Conv2013(BaseFeaturesExtractor):
    """Two convolutions of 16 and 32 channels and 256 hidden units, shared by policy and values."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=256)
        self.layers = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], 16, 8, 4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 9 * 9, 256),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


class Measure(BaseCallback):
    """Ends the training when the window is over."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def _on_step(self) -> bool:
        return not self.window.is_over(self.num_timesteps)


def make_envs(args: argparse.Namespace) -> VecEnv:
    """Build the environments with SB3's own AtariWrapper and frame stack; frames are skipped by the wrapper alone."""
    gymnasium.register_envs(ale_py)
    kwargs = {"frameskip": 1, "repeat_action_probability": 0.0}
    kind = VECTOR_ENVIRONMENTS[args.vector]
    return VecFrameStack(make_atari_env(args.env, args.envs, seed=0, env_kwargs=kwargs, vec_env_cls=kind), 4)


def main() -> None:
    """Train, measure, print."""
    parser = window_arguments(__doc__ or "")
    parser.add_argument("--envs", type=int, required=True)
    parser.add_argument("--vector", choices=list(VECTOR_ENVIRONMENTS), required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    envs = make_envs(args)
    policy = {"features_extractor_class": Conv2013, "net_arch": []}
    model = A2C("CnnPolicy", envs, ent_coef=0.01, vf_coef=0.25, policy_kwargs=policy, device="cpu", seed=0)
    window = Window(args.warmup, args.seconds, args.started)
    model.learn(10**12, callback=Measure(window))
    envs.close()
    window.print_measurement()


if __name__ == "__main__":
    main()
