"""Contender: PPO or A2C of Tianshou over EnvPool, which it takes by itself where it is installed.

PPO has the settings of its Atari example, A2C has those where the two methods share them. The example saves memory by
keeping one picture of each stack and no next ones, and says that this can be left out where there is room: here it is.
"""

import argparse
import logging
from typing import Any

import torch
from shared import (
    ENDLESS_STEPS,
    NETWORKS,
    PUBLISHED_STEPS,
    Scaled,
    finish,
    game_name,
    make_torso,
    make_watch,
    orthogonal,
    peer_arguments,
)
from tianshou.algorithm import A2C, PPO
from tianshou.algorithm.algorithm_base import OnPolicyAlgorithm
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env.atari.atari_network import ScaledObsInputActionReprNet
from tianshou.env.atari.atari_wrapper import AtariEnvFactory
from tianshou.highlevel.env import EnvMode
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ActionReprNetWithVectorOutput
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

STEPS = 1000  # of all games per iteration
EPOCH_STEPS = 100_000
LEARNING_RATE = 2.5e-4
# Iteration, minibatch and passes over it.
SHAPES = {"ppo": (STEPS, 256, 4), "a2c": (80, None, 1)}


class Torso(ActionReprNetWithVectorOutput):
    """The convolutions and hidden layer, in the interface that its actors and critics want."""

    def __init__(self, network: str) -> None:
        super().__init__(NETWORKS[network][1])
        self.layers = make_torso(network, orthogonal)

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        return self.layers(torch.as_tensor(obs, dtype=torch.float32)), state


def make_algorithm(args: argparse.Namespace, actor: DiscreteActor, envs: Any) -> OnPolicyAlgorithm:
    """Return the algorithm; actor and critic share the torso."""
    policy = DiscreteActorPolicy(
        actor=actor,
        dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
        action_space=envs.action_space,
        observation_space=envs.observation_space,
    )
    optimizer = AdamOptimizerFactory(lr=LEARNING_RATE, eps=1e-5).with_lr_scheduler_factory(
        LRSchedulerFactoryLinear(PUBLISHED_STEPS // EPOCH_STEPS, EPOCH_STEPS, SHAPES[args.algo][0])
    )
    common: dict[str, Any] = {
        "policy": policy,
        "critic": DiscreteCritic(preprocess_net=actor.preprocess),
        "optim": optimizer,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "vf_coef": 0.25,
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
    }
    return (
        A2C(**common)
        if args.algo == "a2c"
        else PPO(eps_clip=0.1, value_clip=True, advantage_normalization=True, **common)
    )


def main() -> None:
    """Train, measure, print."""
    parser = peer_arguments(__doc__)
    parser.add_argument("--algo", choices=tuple(SHAPES), default="ppo")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    factory = AtariEnvFactory(f"{game_name(args.env)}NoFrameskip-v4", frame_stack=4)
    envs = factory.create_venv(args.envs, EnvMode.TRAINING, seed=args.seed)
    torso = Torso(args.network)
    num_actions = int(envs.action_space.n)
    actor = DiscreteActor(
        preprocess_net=ScaledObsInputActionReprNet(torso), action_shape=num_actions, softmax_output=False
    )
    algorithm = make_algorithm(args, actor, envs)
    buffer = VectorReplayBuffer(2 * STEPS, args.envs, ignore_obs_next=False)
    collector = Collector[CollectStats](algorithm, envs, buffer, exploration_noise=True)
    watch = make_watch(args, lambda: Scaled(torso.layers, actor.last.model))  # its MLP around them warns when traced

    def between_iterations(epoch: int, steps: int) -> None:
        if watch.is_over(steps):
            finish(watch)  # its trainer itself would end only after a test

    steps, batch, passes = SHAPES[args.algo]
    algorithm.run_training(
        OnPolicyTrainerParams(
            max_epochs=ENDLESS_STEPS // EPOCH_STEPS,
            epoch_num_steps=EPOCH_STEPS,
            training_collector=collector,
            collection_step_num_env_steps=steps,
            batch_size=batch,
            update_step_num_repetitions=passes,
            training_fn=between_iterations,
            show_progress=False,
            verbose=False,
        )
    )


if __name__ == "__main__":
    main()
