"""Contender: APPO of Sample Factory on Atari with the settings of its example, over its own or EnvPool's environments.

It counts steps when its learner has trained on them, so the watch is asked after each training iteration.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import torch
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.env_info import obtain_env_info_in_a_separate_process
from sample_factory.model.actor_critic import create_actor_critic
from sample_factory.train import make_runner
from shared import ENDLESS_STEPS, FRAMES_PER_STEP, finish, game_name, make_watch, peer_arguments
from torch import Tensor, nn

# EnvPool 1.2.5 wants a newer gymnasium. Done on import, since each process of Sample Factory imports this file.
gymnasium.vector.VectorEnv.closed, gymnasium.vector.VectorEnv.viewer = False, None
PUBLISHED_FRAMES = 10_000_000  # of its Atari examples, over which the learning rate falls
SAVE_SECONDS = 10  # what is judged is at most that much older than its steps say
NEVER_SECONDS = 10**6
# Its names for the two networks: convolutions, then hidden units.
ARCHITECTURES = {"conv2013": ("convnet_impala", 256), "conv2015": ("convnet_atari", 512)}


class Watching(AlgoObserver):
    """Ends the training when the watch says so, between two iterations."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        if self.watch.is_over(sum(runner.env_steps.values()) // FRAMES_PER_STEP):
            finish(self.watch)


class Policy(nn.Module):
    """The layers of one of its checkpoints, from bytes to logits."""

    def __init__(self, cfg: Any, env_info: Any, checkpoint: Path) -> None:
        super().__init__()
        self.actor_critic = create_actor_critic(cfg, env_info.obs_space, env_info.action_space)
        # Unpickling runs what the file says, and its checkpoints hold more than tensors. Safe: the file was written by
        # the training that this script itself started, into a temporary folder of its own.
        self.actor_critic.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=False)["model"])
        self.actor_critic.eval()

    def forward(self, frames: Tensor) -> Tensor:
        normal = self.actor_critic.normalize_obs({"obs": frames})
        features, _ = self.actor_critic.forward_core(
            self.actor_critic.forward_head(normal), torch.zeros(len(frames), 1)
        )
        return self.actor_critic.forward_tail(features, False, False)["action_logits"]


def settings(args: argparse.Namespace, folder: str) -> list[str]:
    """Return the command line of its Atari example."""
    architecture, hidden = ARCHITECTURES[args.network]
    options: dict[str, Any] = {
        "algo": "APPO",
        "env": f"atari_{game_name(args.env).lower()}",
        "experiment": "bench",
        "train_dir": folder,
        "device": "cpu",
        "seed": args.seed,
        "encoder_conv_architecture": architecture,
        "encoder_conv_mlp_layers": hidden,
        "train_for_env_steps": PUBLISHED_FRAMES if args.snapshots else FRAMES_PER_STEP * ENDLESS_STEPS,
        "async_rl": args.mode == "async",
        "serial_mode": args.mode == "serial",
        "num_workers": args.workers,
        "save_every_sec": SAVE_SECONDS if args.snapshots else NEVER_SECONDS,
        "heartbeat_reporting_interval": NEVER_SECONDS,  # it would give up after being stopped for three minutes
    }
    if args.engine == "envpool":
        options |= {"env_agents": args.envs // args.workers}
    else:
        options |= {"num_envs_per_worker": args.envs // args.workers}
        # Two groups in turn, one stepped while the other waits for its actions, as its guide recommends.
        options |= {"worker_num_splits": 2 if args.mode == "async" and args.envs // args.workers > 1 else 1}
    return [f"--{name}={value}" for name, value in options.items()]


def latest_policy(cfg: Any, env_info: Any) -> Policy | None:
    """Return the policy of the newest checkpoint, if there is one."""
    checkpoints = Path(cfg.train_dir, cfg.experiment, "checkpoint_p0").glob("checkpoint_*.pth")
    newest = max(checkpoints, default=None)
    return None if newest is None else Policy(cfg, env_info, newest)


def main() -> None:
    """Train, measure, print."""
    parser = peer_arguments(__doc__)
    parser.add_argument("--engine", choices=("own", "envpool"), default="own")
    parser.add_argument("--mode", choices=("sync", "async", "serial"), default="sync")
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.engine == "envpool":
        from sf_examples.envpool.atari import train_envpool_atari as example
    else:
        from sf_examples.atari import train_atari as example
    example.register_atari_components()
    with tempfile.TemporaryDirectory() as folder:
        cfg = example.parse_atari_args(settings(args, folder))
        env_info = obtain_env_info_in_a_separate_process(cfg) if args.snapshots else None
        watch = make_watch(args, lambda: latest_policy(cfg, env_info))
        cfg, runner = make_runner(cfg)
        runner.register_observer(Watching(watch))
        runner.init()
        runner.run()
    sys.exit("its runner ended before the watch did")


if __name__ == "__main__":
    main()
