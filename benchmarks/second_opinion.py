"""Second opinion: on the same batches, A3C's gradient is pfrl's, and returns, targets and Q losses are rlax's.

    python benchmarks/second_opinion.py

In an environment of its own, since pfrl (frozen in 2023) wants the old gym: torch, numpy, gymnasium, rlax, jax and
gym==0.26.2, then `pip install --no-deps --no-build-isolation pfrl==0.4.0`, and this repository's src on PYTHONPATH.
Prints the largest differences; exits with 1 if one is above 1e-5 of the largest number compared.
"""

import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pfrl
import rlax
import torch
from gymnasium import spaces
from torch import Tensor, nn

from asyncrl.algorithms import ALGORITHMS, actor_critic_loss
from asyncrl.config import Config
from asyncrl.flat import flat_gradient
from asyncrl.networks import ActorCritic, QNetwork, make_network
from asyncrl.returns import lambda_returns, n_step_returns, one_step_targets
from asyncrl.rollout import Rollout

TOLERANCE = 1e-5
STEPS, ACTIONS, GAMMA = 5, 6, 0.99
# A high cost and a policy far from uniform: where that is nearly uniform, the entropy's gradient is nearly 0.
CONFIG = Config(network="conv2013", gamma=GAMMA, entropy_cost=0.3)
SHARPER = 20
IMAGES, CHOICES = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(ACTIONS)
ENDS = ("goes on", "terminated", "truncated")


def main() -> int:
    """Compare everything; return the exit code."""
    rows = [
        (f"A3C gradient, {core}, {end}: pfrl", *a3c_gradients(core, end)) for core in ("ff", "lstm") for end in ENDS
    ]
    rows += returns_and_targets() + q_losses()
    worst = 0.0
    for name, ours, theirs in rows:
        size = float(np.abs(theirs).max())
        difference = float(np.abs(ours - theirs).max())
        worst = max(worst, difference / size)
        print(f"{name:50} {theirs.size:>7} numbers up to {size:9.3g}, largest difference {difference:.1e}")
    print(f"largest relative difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


def a3c_gradients(core: str, end: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients [P] of the second rollout of an episode, ours and that of pfrl's own agent and network.

    pfrl acts, and its actions are ours; its optimiser has a learning rate of 0, so that both rollouts see the same
    parameters.
    """
    config = replace(CONFIG, core=core)
    network = make_network(config, IMAGES, CHOICES)
    assert isinstance(network, ActorCritic)
    with torch.no_grad():
        network.policy.weight.mul_(SHARPER)
    model = pfrl_model(network)
    agent = pfrl.agents.A3C(
        model,
        torch.optim.SGD(model.parameters(), lr=0),
        t_max=STEPS,
        gamma=GAMMA,
        beta=config.entropy_cost,
        v_loss_coef=config.value_cost,
        phi=lambda image: image.astype(np.float32) / 255,
        recurrent=config.is_recurrent,
    )
    torch.manual_seed(0)  # pfrl draws its actions from the global generator
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2 * STEPS + 1, *IMAGES.shape), np.uint8)
    rewards = generator.normal(size=2 * STEPS).astype(np.float32)
    actions = []
    for t, reward in enumerate(rewards):
        last = t == 2 * STEPS - 1
        actions.append(int(agent.act(images[t])))
        agent.observe(images[t + 1], float(reward), last and end == "terminated", last and end == "truncated")
    theirs = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])

    first, second = (half_of(images, actions, rewards, t) for t in (0, STEPS))
    with torch.no_grad():
        _, carried = network(first.observations[:-1], first.resets, network.initial_state(1))
    second = ended(replace(second, core_state=carried), end, network)
    ours = flat_gradient(actor_critic_loss(network, None, second, config, 0.0)[0], network)
    return ours.numpy(), theirs.numpy()


def half_of(images: np.ndarray, actions: list[int], rewards: np.ndarray, start: int) -> Rollout:
    """Return STEPS steps from `start` of one environment, B = 1, as a rollout within an episode."""
    span = slice(start, start + STEPS)
    return Rollout(
        observations=torch.from_numpy(images[start : start + STEPS + 1, None]),
        actions=torch.tensor(actions[span])[:, None],
        rewards=torch.from_numpy(rewards[span, None]),
        discounts=torch.full((STEPS, 1), GAMMA),
        cut_values=torch.zeros(STEPS, 1),
        resets=torch.zeros(STEPS, 1, dtype=torch.bool),
        core_state=(),
        next_actions=None,
    )


def ended(rollout: Rollout, end: str, network: ActorCritic) -> Rollout:
    """Return `rollout` with its last step ending the episode as `end` says; another episode's image follows."""
    if end == "goes on":
        return rollout
    rollout.discounts[-1] = 0.0
    if end == "truncated":
        with torch.no_grad():
            outputs, _ = network(rollout.observations, torch.zeros(STEPS + 1, 1, dtype=torch.bool), rollout.core_state)
        rollout.cut_values[-1] = GAMMA * outputs.values[-1]
    return replace(rollout, observations=torch.cat([rollout.observations[:-1], rollout.observations[:1]]))


def pfrl_model(network: ActorCritic) -> nn.Module:
    """Return the paper's network in pfrl's parts, with the weights of ours, in shared memory as pfrl wants it."""
    heads = pfrl.nn.Branched(
        nn.Sequential(nn.Linear(256, ACTIONS), pfrl.policies.SoftmaxCategoricalHead()), nn.Linear(256, 1)
    )
    layers: list[nn.Module] = [nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(2592, 256), nn.ReLU()]
    if network.trunk.core.initial_state(1):
        model: nn.Module = pfrl.nn.RecurrentSequential(*layers, nn.LSTM(256, 256), heads)
    else:
        model = nn.Sequential(*layers, heads)
    with torch.no_grad():
        for theirs, ours in zip(model.parameters(), network.parameters(), strict=True):
            theirs.copy_(ours)
    return model.share_memory()


def returns_and_targets() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (name, ours, rlax's) [T, B] of each function of time, on rollouts with ends in the middle."""
    rewards, discounts, values, q, actions = batch()
    zeros, bootstrap = torch.zeros_like(rewards), values[-1]
    q_taken = q.gather(-1, actions[..., None]).squeeze(-1)
    steps, lambda_ = len(rewards), 0.95
    each = lambda function: jax.vmap(function, 1, 1)  # noqa: E731  (over B; rlax's functions are of time alone)
    r, d, v = (numpy(x) for x in (rewards, discounts, values[1:]))
    ours: dict[str, Tensor] = {
        "n-step returns": n_step_returns(rewards, discounts, zeros, bootstrap),
        "lambda returns": lambda_returns(rewards, discounts, zeros, values[:-1], bootstrap, lambda_),
        "one-step Q targets": one_step_targets(rewards, discounts, zeros, q[1:].amax(-1)),
        "one-step Sarsa targets": one_step_targets(rewards, discounts, zeros, q_taken[1:]),
    }
    theirs = {
        "n-step returns": each(lambda *x: rlax.n_step_bootstrapped_returns(*x, n=steps))(r, d, v),
        "lambda returns": each(lambda *x: rlax.lambda_returns(*x, lambda_))(r, d, v),
        "one-step Q targets": td_errors("one-step-q", rewards, discounts, q, q, actions) + numpy(q_taken[:-1]),
        "one-step Sarsa targets": td_errors("one-step-sarsa", rewards, discounts, q, q, actions) + numpy(q_taken[:-1]),
    }
    return [(f"{name}: rlax", numpy(ours[name]), np.asarray(theirs[name])) for name in ours]


def q_losses() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (name, ours, rlax's) gradients [T, B, A] of the Q losses by the outputs, with target parameters."""
    rewards, discounts, _, q, actions = batch()
    target = q.flip(-1) * 1.5
    rows = []
    for algo in ("one-step-q", "one-step-sarsa"):

        def their_loss(outputs: Any, algo: str = algo) -> Any:
            return (td_errors(algo, rewards, discounts, outputs, target, actions) ** 2).sum() / rewards.shape[1]

        outputs = q.clone().requires_grad_()
        rollout = replace(
            half_of(np.zeros((STEPS + 1, 1), np.float32), [0] * STEPS, np.zeros(STEPS, np.float32), 0),
            observations=torch.arange(len(q))[:, None].expand(q.shape[:2]),
            actions=actions[:-1],
            rewards=rewards,
            discounts=discounts,
            cut_values=torch.zeros_like(rewards),
            resets=torch.zeros_like(rewards, dtype=torch.bool),
            next_actions=actions[-1],
        )
        loss, _ = ALGORITHMS[algo].loss(tabular(outputs), tabular(target), rollout, CONFIG, 0.0)
        loss.backward()
        assert outputs.grad is not None
        rows.append((f"{algo} loss's gradient: rlax", numpy(outputs.grad), np.asarray(jax.grad(their_loss)(numpy(q)))))
    return rows


def tabular(outputs: Tensor) -> QNetwork:
    """Return a stand-in for a network: at time t of the rollout its outputs are `outputs[t]` [B, A]."""
    return lambda observations, resets, state: (outputs[: len(observations)], state)  # type: ignore[return-value]


def td_errors(algo: str, rewards: Tensor, discounts: Tensor, q: Any, target: Any, actions: Tensor) -> Any:
    """Return rlax's temporal-difference errors [T, B]; `q` and `target` are [T + 1, B, A]."""
    q, target, a = (x if isinstance(x, jax.Array) else numpy(x) for x in (q, target, actions))
    arguments = [q[:-1], a[:-1], numpy(rewards), numpy(discounts), target[1:]]
    if algo == "one-step-sarsa":
        return jax.vmap(jax.vmap(rlax.sarsa))(*arguments, a[1:])
    return jax.vmap(jax.vmap(rlax.q_learning))(*arguments)


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return random rewards and discounts [T, B], values [T + 1, B], Q [T + 1, B, A] and actions [T + 1, B]."""
    generator = torch.Generator().manual_seed(0)
    steps, environments = 20, 8
    rewards = torch.randn(steps, environments, generator=generator)
    discounts = GAMMA * (torch.rand(steps, environments, generator=generator) > 0.15)
    values = torch.randn(steps + 1, environments, generator=generator)
    q = torch.randn(steps + 1, environments, ACTIONS, generator=generator)
    actions = torch.randint(ACTIONS, (steps + 1, environments), generator=generator)
    return rewards, discounts, values, q, actions


def numpy(values: Any) -> Any:
    """Return a tensor as an array; anything else as it is."""
    return values.numpy() if isinstance(values, Tensor) else values


if __name__ == "__main__":
    sys.exit(main())
