"""Returns and targets of the paper's four methods, as pure functions of time-leading tensors.

Letters: T time within a rollout, B environments of one worker (B = 1 is the paper). `discounts[t]` is gamma, or 0 where
the episode ended at step t. `cut_values[t]` stands for the rest of an episode that was *truncated* at step t, already
discounted (gamma V(final observation)), and is 0 elsewhere; there `discounts[t]` is 0, so nothing leaks in from the
episode that follows. Callers detach.
"""

import torch
from torch import Tensor


def n_step_returns(rewards: Tensor, discounts: Tensor, cut_values: Tensor, bootstrap_value: Tensor) -> Tensor:
    """Return the n-step returns of a rollout: the longest that fit, from T steps down to one.

    R_t = r_t + cut_t + discount_t R_{t+1} with R_T = bootstrap_value (Algorithms S2 and S3: R = r_i + gamma R).

    Args:
        rewards: [T, B].
        discounts: [T, B], gamma or 0.
        cut_values: [T, B], discounted value of a truncated episode's final observation, else 0.
        bootstrap_value: [B], value of the observation after the last step.

    Returns:
        [T, B].
    """
    _check_shapes(rewards, discounts, cut_values, bootstrap_value)
    following, returns = bootstrap_value, []
    for immediate, discount in zip(
        reversed((rewards + cut_values).unbind()), reversed(discounts.unbind()), strict=True
    ):
        following = torch.addcmul(immediate, discount, following)
        returns.append(following)
    return torch.stack(returns[::-1])


def lambda_returns(
    rewards: Tensor, discounts: Tensor, cut_values: Tensor, values: Tensor, bootstrap_value: Tensor, lambda_: float
) -> Tensor:
    """Return TD(lambda) returns; subtracting `values` gives generalised advantage estimates (Schulman et al., 2016).

    R_t = r_t + cut_t + discount_t ((1 - lambda) V_{t+1} + lambda R_{t+1}) with R_T = V_T = bootstrap_value.
    With lambda = 1 these are the paper's n-step returns; the paper has no lambda.

    Args:
        rewards: [T, B].
        discounts: [T, B].
        cut_values: [T, B].
        values: [T, B], values of the observations at t = 0 .. T-1.
        bootstrap_value: [B], value of the observation after the last step.
        lambda_: between 0 (one-step) and 1 (n-step).

    Returns:
        [T, B].
    """
    next_values = torch.cat([values[1:], bootstrap_value[None]])
    return n_step_returns(
        rewards + (1 - lambda_) * discounts * next_values, lambda_ * discounts, cut_values, bootstrap_value
    )


def one_step_targets(rewards: Tensor, discounts: Tensor, cut_values: Tensor, next_values: Tensor) -> Tensor:
    """Return one-step targets y_t = r_t + cut_t + discount_t v_{t+1} (the paper's Algorithm 1).

    Args:
        rewards: [T, B].
        discounts: [T, B].
        cut_values: [T, B].
        next_values: [T, B], value of the observation after each step under the target parameters: max_a Q for
            Q-learning, Q of the action really taken next for Sarsa.

    Returns:
        [T, B].
    """
    _check_shapes(rewards, discounts, cut_values, next_values[-1])
    return rewards + cut_values + discounts * next_values


def _check_shapes(rewards: Tensor, discounts: Tensor, cut_values: Tensor, bootstrap_value: Tensor) -> None:
    if not (rewards.shape == discounts.shape == cut_values.shape and rewards.shape[1:] == bootstrap_value.shape):
        shapes = [tuple(x.shape) for x in (rewards, discounts, cut_values, bootstrap_value)]
        raise ValueError(f"rewards, discounts and cut_values must be [T, B] and the bootstrap [B], got {shapes}")
