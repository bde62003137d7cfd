"""Contender: PPO in one file over EnvPool, as CleanRL's documentation recommends for Atari; written from that text.

Games stepped as one batch by EnvPool's threads, 128 steps each, then some epochs of minibatches; orthogonal weights,
generalised advantages, clipped policy and value losses, normalised advantages, annealed Adam. By default eight games,
four epochs of four minibatches and clipping at 0.1, as for all of Atari; the options are there for what it publishes
for Pong.
"""

import argparse
from dataclasses import dataclass

import envpool
import numpy as np
import torch
from shared import (
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
from torch import Tensor, nn

from asyncrl.machine import available_cores

STEPS = 128  # of each game per iteration
GAMMA, LAMBDA = 0.99, 0.95
ENTROPY_COST, VALUE_COST, MAX_NORM = 0.01, 0.5, 0.5
LEARNING_RATE, ADAM_EPSILON = 2.5e-4, 1e-5


class Agent(nn.Module):
    """Policy and value on one torso."""

    def __init__(self, network: str, num_actions: int) -> None:
        super().__init__()
        hidden = NETWORKS[network][1]
        self.torso = make_torso(network, orthogonal)
        self.policy = orthogonal(nn.Linear(hidden, num_actions), 0.01)
        self.value = orthogonal(nn.Linear(hidden, 1), 1.0)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities [N, A] and values [N] of bytes [N, 4, 84, 84]."""
        hidden = self.torso(frames.float() / 255)
        return torch.log_softmax(self.policy(hidden), -1), self.value(hidden).squeeze(-1)


@dataclass
class Rollout:
    """What B games did for T steps."""

    frames: Tensor  # [T, B, 4, 84, 84] bytes
    actions: Tensor  # [T, B]
    log_probs: Tensor  # [T, B]
    rewards: Tensor  # [T, B]
    ends: Tensor  # [T, B], 1 where the step ended an episode
    values: Tensor  # [T, B]


def make_rollout(batch: int) -> Rollout:
    """Return room for one rollout."""
    floats = [torch.zeros(STEPS, batch) for _ in range(4)]
    frames = torch.zeros(STEPS, batch, 4, 84, 84, dtype=torch.uint8)
    return Rollout(frames, torch.zeros(STEPS, batch, dtype=torch.long), *floats)


@torch.no_grad()
def play(agent: Agent, envs, frames: np.ndarray, rollout: Rollout) -> np.ndarray:
    """Fill `rollout` from `frames` on; return the frames after it."""
    for t in range(STEPS):
        rollout.frames[t] = torch.from_numpy(frames)
        log_policy, rollout.values[t] = agent(rollout.frames[t])
        actions = torch.multinomial(log_policy.exp(), 1)
        rollout.actions[t] = actions.squeeze(-1)
        rollout.log_probs[t] = log_policy.gather(-1, actions).squeeze(-1)
        frames, rewards, terminated, truncated, _ = envs.step(rollout.actions[t].numpy().astype(np.int32))
        rollout.rewards[t] = torch.from_numpy(rewards)
        rollout.ends[t] = torch.from_numpy(terminated | truncated).float()
    return frames


def advantages_of(rollout: Rollout, last_values: Tensor) -> Tensor:
    """Return generalised advantages [T, B]."""
    advantages, following = torch.zeros_like(rollout.rewards), torch.zeros_like(last_values)
    next_values = last_values
    for t in reversed(range(STEPS)):
        goes_on = GAMMA * (1 - rollout.ends[t])
        error = rollout.rewards[t] + goes_on * next_values - rollout.values[t]
        advantages[t] = following = error + LAMBDA * goes_on * following
        next_values = rollout.values[t]
    return advantages


def learn(
    args: argparse.Namespace, agent: Agent, optimizer: torch.optim.Optimizer, rollout: Rollout, advantages: Tensor
) -> None:
    """Do all epochs over one rollout."""
    fields = (rollout.frames, rollout.actions, rollout.log_probs, rollout.values, advantages)
    flat = [field.flatten(0, 1) for field in fields]
    for _ in range(args.epochs):
        for chosen in torch.randperm(len(advantages.flatten())).chunk(args.minibatches):
            loss = loss_of(agent, args.clip, *(field[chosen] for field in flat))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_NORM)
            optimizer.step()


def loss_of(
    agent: Agent,
    clip: float,
    frames: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    old_values: Tensor,
    advantages: Tensor,
) -> Tensor:
    """Return PPO's clipped loss of one minibatch."""
    log_policy, values = agent(frames)
    ratio = (log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - old_log_probs).exp()
    returns = advantages + old_values
    normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy_loss = torch.max(-normal * ratio, -normal * ratio.clamp(1 - clip, 1 + clip)).mean()
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()
    entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
    return policy_loss - ENTROPY_COST * entropy + VALUE_COST * value_loss


def make_envs(args: argparse.Namespace):
    """Return EnvPool's games with the settings that the documentation recommends."""
    return envpool.make(
        f"{game_name(args.env)}-v5",
        env_type="gymnasium",
        num_envs=args.envs,
        num_threads=available_cores(),
        episodic_life=True,
        reward_clip=True,
        seed=args.seed,
    )


def main() -> None:
    """Train, measure, print."""
    parser = peer_arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--clip", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    envs = make_envs(args)
    agent = Agent(args.network, int(envs.action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=ADAM_EPSILON)
    watch = make_watch(args, lambda: Scaled(agent.torso, agent.policy))
    rollout, steps = make_rollout(args.envs), 0
    frames, _ = envs.reset()
    while not watch.is_over(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * max(0.0, 1 - steps / PUBLISHED_STEPS)
        frames = play(agent, envs, frames, rollout)
        with torch.no_grad():
            last_values = agent(torch.from_numpy(frames))[1]
        learn(args, agent, optimizer, rollout, advantages_of(rollout, last_values))
        steps += rollout.actions.numel()
    finish(watch)


if __name__ == "__main__":
    main()
