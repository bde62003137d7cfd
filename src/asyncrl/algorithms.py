"""The paper's methods side by side: how each acts, values what comes next, and what it minimises. One row each.

All share the network's trunk, the rollout and the worker; they differ in the few lines below.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from asyncrl import losses
from asyncrl.config import Algo, Config
from asyncrl.exploration import epsilon_greedy
from asyncrl.networks import ActorCritic, Network, PolicyValue, QNetwork, SeparateActorCritic
from asyncrl.optim import linear_anneal
from asyncrl.policies import Categorical
from asyncrl.returns import lambda_returns, n_step_returns, one_step_targets
from asyncrl.rollout import Rollout
from asyncrl.torsos import CoreState

Stats = dict[str, float]


@dataclass(frozen=True)
class Algorithm:
    """One method: four functions and what they need.

    `choose` turns the outputs for one step [1, B, ...] into actions [B]; `value` turns outputs [T, B, ...] into state
    values [T, B]; `loss` returns the scalar to minimise and numbers to log.
    """

    choose: Callable[..., Tensor]
    value: Callable[..., Tensor]
    loss: Callable[..., tuple[Tensor, Stats]]
    uses_target: bool = False
    keeps_next_action: bool = False


def sample_policy(outputs: PolicyValue, epsilons: Tensor | None, generator: torch.Generator) -> Tensor:
    """Draw actions [B] from the policy (Algorithm S3: a_t ~ pi(a_t|s_t; theta'))."""
    return outputs.policy.sample(generator)[0]


def state_values(outputs: PolicyValue) -> Tensor:
    """Return V(s) [T, B]."""
    return outputs.values


def choose_epsilon_greedy(outputs: Tensor, epsilons: Tensor, generator: torch.Generator) -> Tensor:
    """Return epsilon-greedy actions [B] (Algorithms 1 and S2)."""
    return epsilon_greedy(outputs[0], epsilons, generator)


def greedy_values(outputs: Tensor) -> Tensor:
    """Return max_a Q(s, a) [T, B]."""
    return outputs.amax(-1)


def actor_critic_loss(
    network: ActorCritic | SeparateActorCritic, target: None, rollout: Rollout, config: Config, progress: float
) -> tuple[Tensor, Stats]:
    """Return A3C's loss (Algorithm S3 and section 4) and its parts.

    Policy -log pi(a|s) A - beta H, plus value_cost times 1/2 (R - V)^2, with A = R - V a constant. `progress` is the
    share of the run that has passed, which beta may follow.
    """
    steps = len(rollout.rewards)
    outputs, state = network(rollout.observations[:steps], rollout.resets, rollout.core_state)
    bootstrap = bootstrap_value(network, rollout, state, state_values)
    values = outputs.values
    args = (rollout.rewards, rollout.discounts, rollout.cut_values)
    if config.gae_lambda == 1:
        returns = n_step_returns(*args, bootstrap)
    else:
        returns = lambda_returns(*args, values.detach(), bootstrap, config.gae_lambda)
    final_cost = config.entropy_cost * config.final_entropy_fraction
    beta = linear_anneal(config.entropy_cost, final_cost, progress / config.entropy_share)
    loss = _actor_critic_loss(outputs, rollout.actions, returns, beta, config.value_cost)
    stats = {
        "policy_loss": loss.policy.item() / steps,
        "value_loss": loss.value.item() / steps,
        "entropy": loss.entropies.mean().item(),
        "value": values.mean().item(),
    }
    return loss.total, stats


def _actor_critic_loss(
    outputs: PolicyValue, actions: Tensor, returns: Tensor, entropy_cost: float, value_cost: float
) -> losses.ActorCriticLoss:
    policy, values = outputs.policy, outputs.values
    if isinstance(policy, Categorical):
        return losses.categorical_actor_critic_loss(
            policy.log_policy, values, actions, returns, entropy_cost, value_cost
        )
    entropies = policy.entropy()
    policy_loss = losses.policy_gradient_loss(policy.log_prob(actions), returns - values.detach())
    value_loss = losses.value_loss(values, returns)
    total = policy_loss - entropy_cost * losses.sum_over_time(entropies) + value_cost * value_loss
    return losses.ActorCriticLoss(total, policy_loss, value_loss, entropies)


def bootstrap_value(network: Network, rollout: Rollout, state: CoreState, value: Callable[..., Tensor]) -> Tensor:
    """Return the value [B] of the observation after the last step; the carried state stays where it is.

    Where the last step ended an episode that observation belongs to the next one, and the discount there is 0.
    """
    no_resets = torch.zeros_like(rollout.resets[:1])
    with torch.no_grad():
        outputs, _ = network(rollout.observations[-1:], no_resets, state)
    return value(outputs)[0]


def n_step_q_loss(
    network: QNetwork, target: QNetwork, rollout: Rollout, config: Config, progress: float
) -> tuple[Tensor, Stats]:
    """Return the loss of asynchronous n-step Q-learning (Algorithm S2): R bootstraps from max_a Q(s_T, a; theta-)."""
    state = rollout.core_state
    if config.is_recurrent:  # only then does what came before matter to the last observation's value
        _, state = _target_outputs(target, rollout, len(rollout.rewards))
    bootstrap = bootstrap_value(target, rollout, state, greedy_values)
    targets = n_step_returns(rollout.rewards, rollout.discounts, rollout.cut_values, bootstrap)
    return _q_loss(network, rollout, targets)


def one_step_q_loss(
    network: QNetwork, target: QNetwork, rollout: Rollout, config: Config, progress: float
) -> tuple[Tensor, Stats]:
    """Return the loss of asynchronous one-step Q-learning (Algorithm 1): y = r + gamma max_a Q(s', a; theta-)."""
    outputs, _ = _target_outputs(target, rollout, len(rollout.observations))
    targets = one_step_targets(rollout.rewards, rollout.discounts, rollout.cut_values, greedy_values(outputs)[1:])
    return _q_loss(network, rollout, targets)


def one_step_sarsa_loss(
    network: QNetwork, target: QNetwork, rollout: Rollout, config: Config, progress: float
) -> tuple[Tensor, Stats]:
    """Return the loss of asynchronous one-step Sarsa (section 4): y = r + gamma Q(s', a'; theta-), a' really taken."""
    outputs, _ = _target_outputs(target, rollout, len(rollout.observations))
    assert rollout.next_actions is not None
    taken_next = torch.cat([rollout.actions[1:], rollout.next_actions[None]])
    q_next = outputs[1:].gather(-1, taken_next.unsqueeze(-1)).squeeze(-1)
    return _q_loss(network, rollout, one_step_targets(rollout.rewards, rollout.discounts, rollout.cut_values, q_next))


def _target_outputs(target: QNetwork, rollout: Rollout, steps: int) -> tuple[Tensor, CoreState]:
    resets = torch.cat([rollout.resets, torch.zeros_like(rollout.resets[:1])])
    with torch.no_grad():
        return target(rollout.observations[:steps], resets[:steps], rollout.core_state)


def _q_loss(network: QNetwork, rollout: Rollout, targets: Tensor) -> tuple[Tensor, Stats]:
    steps = len(rollout.rewards)
    outputs, _ = network(rollout.observations[:steps], rollout.resets, rollout.core_state)
    taken = outputs.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
    loss = losses.q_loss(taken, targets)
    return loss, {"q_loss": loss.item() / steps, "value": greedy_values(outputs).mean().item()}


ALGORITHMS: dict[Algo, Algorithm] = {
    "a3c": Algorithm(sample_policy, state_values, actor_critic_loss),
    "a2c": Algorithm(sample_policy, state_values, actor_critic_loss),
    "n-step-q": Algorithm(choose_epsilon_greedy, greedy_values, n_step_q_loss, uses_target=True),
    "one-step-q": Algorithm(choose_epsilon_greedy, greedy_values, one_step_q_loss, uses_target=True),
    "one-step-sarsa": Algorithm(
        choose_epsilon_greedy, greedy_values, one_step_sarsa_loss, uses_target=True, keeps_next_action=True
    ),
}
