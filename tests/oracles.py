"""Slow, obvious NumPy beside the library's formulas: loops in the paper's notation, float64, no autograd.

One network of two tanh layers, perhaps an LSTM, and linear heads, or two for policy and value; a scripted world to act
in; and for each method the loss of a rollout summed sample by sample, differentiated by finite differences.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from asyncrl.config import Config
from asyncrl.envs import Environments, Step
from asyncrl.networks import ActorCritic, QNetwork, SeparateActorCritic
from asyncrl.policies import policy_head
from asyncrl.torsos import LSTM, FeedForward, Perceptron, Standardize, Trunk

NUM_INPUTS, HIDDEN, CELLS, NUM_ACTIONS, NUM_DIMENSIONS = 2, 3, 2, 3, 2
CONTINUOUS = spaces.Box(-2.0, 2.0, (NUM_DIMENSIONS,), np.float32)
GO, TERMINATED, TRUNCATED, LIFE_LOST = range(4)

Params = dict[str, np.ndarray]
State = tuple[np.ndarray, ...]  # hidden and cell, of one network or of two


# Returns


def n_step_return(rewards: Any, discounts: Any, cut_values: Any, bootstrap: Any, t: int, b: int) -> float:
    """Forward view: the discounted sum of all that still comes, then the bootstrap."""
    total, weight = 0.0, 1.0
    for i in range(t, len(rewards)):
        total += weight * (rewards[i][b] + cut_values[i][b])
        weight *= discounts[i][b]
    return total + weight * bootstrap[b]


def lambda_return(rewards: Any, discounts: Any, cut_values: Any, values: Any, lambda_: float, t: int, b: int) -> float:
    """Forward view: sum over n of (1 - lambda) lambda^(n-1) G^(n), the longest G taking the rest of the weight.

    `values` is [T + 1, B], the bootstrap its last row.
    """
    longest = len(rewards) - t
    total = 0.0
    for n in range(1, longest + 1):
        stop = t + n
        g = n_step_return(rewards[:stop], discounts[:stop], cut_values[:stop], values[stop], t, b)
        weight = lambda_ ** (n - 1) * (1 - lambda_ if n < longest else 1)
        total += weight * g
    return total


# A network


def tiny_network(
    config: Config, _: object = None, actions: spaces.Space | None = None, __: object = None
) -> ActorCritic | SeparateActorCritic | QNetwork:
    """Build the library's network at the size of the oracle's."""
    torch.manual_seed(config.seed)
    if config.algo != "a3c":
        return QNetwork(_tiny_trunk(config), NUM_ACTIONS)
    spherical, bounds_mean = config.policy_variance == "spherical", config.policy_mean == "tanh"
    space = actions or spaces.Discrete(NUM_ACTIONS)
    least = config.min_deviation
    head = policy_head(space, "the oracle", spherical=spherical, bounds_mean=bounds_mean, min_deviation=least)
    if config.separate_networks:
        return SeparateActorCritic(_tiny_trunk(config), _tiny_trunk(config), head)
    return ActorCritic(_tiny_trunk(config), head)


def _tiny_trunk(config: Config) -> Trunk:
    core = LSTM(HIDDEN, CELLS) if config.is_recurrent else FeedForward(HIDDEN)
    space = spaces.Box(-np.inf, np.inf, (NUM_INPUTS,), np.float32)
    return Trunk(Standardize(space, None), Perceptron((NUM_INPUTS,), HIDDEN), core)


def split_theta(theta: np.ndarray, network: torch.nn.Module) -> Params:
    """Cut the flat theta [P] into the network's named parameters, in float64."""
    params, start = {}, 0
    for name, parameter in network.named_parameters():
        params[name] = theta[start : start + parameter.numel()].reshape(parameter.shape).astype(np.float64)
        start += parameter.numel()
    assert start == len(theta)
    return params


def linear(p: Params, name: str, x: np.ndarray) -> np.ndarray:
    """A linear layer; where policy and value have networks of their own, a head reads its own part of the features."""
    weight = p[f"{name}.weight"]
    size = weight.shape[1]
    return weight @ (x[-size:] if name == "value" else x[:size]) + p[f"{name}.bias"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_step(p: Params, name: str, x: np.ndarray, state: State) -> State:
    """One LSTM step; torch stacks the gates input, forget, cell, output."""
    hidden, cell = state
    gates = p[f"{name}.weight_ih"] @ x + p[f"{name}.bias_ih"] + p[f"{name}.weight_hh"] @ hidden + p[f"{name}.bias_hh"]
    i, f, g, o = np.split(gates, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def zero_state() -> State:
    return np.zeros(CELLS), np.zeros(CELLS)


def features_of(p: Params, observation: np.ndarray, begins: bool, state: State) -> tuple[np.ndarray, State]:
    """Features of one observation of one environment, and the state after it; of both networks if there are two."""
    features, states = [], []
    for i, trunk in enumerate(t for t in ("trunk", "value_trunk") if f"{t}.torso.1.weight" in p):
        x = np.tanh(linear(p, f"{trunk}.torso.1", observation.astype(np.float64)))
        x = np.tanh(linear(p, f"{trunk}.torso.3", x))
        if f"{trunk}.core.cell.weight_ih" in p:
            own = lstm_step(p, f"{trunk}.core.cell", x, zero_state() if begins else state[2 * i : 2 * i + 2])
            states += own
            x = own[0]
        features.append(x)
    return np.concatenate(features), tuple(states)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.sum(np.exp(x)))


def state_value(p: Params, features: np.ndarray) -> float:
    """V(s), or max_a Q(s, a) where the network has Q values."""
    if "value.weight" in p:
        return linear(p, "value", features).item()
    return linear(p, "q", features).max()


# A world that follows a script


@dataclass(frozen=True)
class Script:
    """What happens at each step whatever the actions: for steps s = 0 .. S-1 and environments b."""

    observations: np.ndarray  # [S + 1, B, ...] to act on
    rewards: np.ndarray  # [S, B]
    events: np.ndarray  # [S, B] of GO, TERMINATED, TRUNCATED, LIFE_LOST
    finals: np.ndarray  # [S, B, ...] true last observations, where an episode ended

    def begins(self, s: int, b: int) -> bool:
        """Whether the observation at s is the first of an episode."""
        return s == 0 or self.events[s - 1, b] in (TERMINATED, TRUNCATED)


def random_script(steps: int, batch: int, seed: int) -> Script:
    """Draw a script in which a third of the steps end something."""
    rng = np.random.default_rng(seed)
    return Script(
        observations=rng.normal(size=(steps + 1, batch, NUM_INPUTS)).astype(np.float32),
        rewards=rng.normal(scale=2, size=(steps, batch)).astype(np.float32),
        events=rng.choice([GO, TERMINATED, TRUNCATED, LIFE_LOST], p=[0.64, 0.12, 0.12, 0.12], size=(steps, batch)),
        finals=rng.normal(size=(steps, batch, NUM_INPUTS)).astype(np.float32),
    )


class ScriptedEnvironments(Environments):
    """Plays a script and keeps the actions it was given; scores are clipped as on Atari, four frames a step."""

    frames_per_step = 4
    rewards_are_scores = True
    observation_space = spaces.Box(-np.inf, np.inf, (NUM_INPUTS,), np.float32)

    def __init__(self, script: Script, action_space: spaces.Space | None = None) -> None:
        self.action_space = action_space or spaces.Discrete(NUM_ACTIONS)
        self.script = script
        self.num_envs = script.rewards.shape[1]
        self.actions: list[np.ndarray] = []

    def reset(self, seed: int | None = None) -> np.ndarray:
        return self.script.observations[0].copy()

    def step(self, actions: np.ndarray) -> Step:
        s = len(self.actions)
        self.actions.append(actions.copy())
        events = self.script.events[s]
        ended = (events == TERMINATED) | (events == TRUNCATED)
        return Step(
            observations=self.script.observations[s + 1].copy(),
            rewards=self.script.rewards[s].copy(),
            terminated=events == TERMINATED,
            truncated=events == TRUNCATED,
            lives_lost=events == LIFE_LOST,
            final_observations=self.script.finals[s].copy() if ended.any() else None,
        )

    def close(self) -> None:
        pass


# The losses of one rollout of one environment, from script and actions alone


@dataclass(frozen=True)
class Window:
    """One rollout of one environment b: the script's steps from `start` up to `stop`, and the state carried into it."""

    script: Script
    actions: np.ndarray  # [S, B] or [S, B, A], all that were ever taken
    b: int
    start: int
    stop: int
    state: State

    @property
    def steps(self) -> range:
        return range(self.start, self.stop)


def unroll(p: Params, window: Window) -> tuple[list[np.ndarray], list[State]]:
    """Features of the observations from start to stop, the last included, and the states after each."""
    features, states, state = [], [], window.state
    for s in range(window.start, window.stop + 1):
        x, state = features_of(p, window.script.observations[s, window.b], window.script.begins(s, window.b), state)
        features.append(x)
        states.append(state)
    return features, states


def reward_and_rest(
    config: Config, window: Window, s: int, p: Params, states: list[State]
) -> tuple[float, bool, float]:
    """Return the learner's reward of step s, whether its episode goes on, and what stands for the episode's rest."""
    event = window.script.events[s, window.b]
    reward = config.reward_scale * float(np.clip(window.script.rewards[s, window.b], -1, 1))
    rest = 0.0
    if event == TRUNCATED and config.bootstrap_on_truncation:
        final, _ = features_of(p, window.script.finals[s, window.b], False, states[s])
        rest = state_value(p, final)
    return reward, event == GO or (event == LIFE_LOST and not config.life_loss_ends), rest


def paper_returns(config: Config, window: Window, p: Params, states: list[State]) -> list[float]:
    """R of Algorithms S2 and S3, backwards from max_a Q(s_T, a; theta-) or V(s_T) under the parameters `p`.

    With a lambda (not in the paper) R takes each next state's value for 1 - lambda of what follows.
    `states` are those while acting, by step: they go with the values of truncated episodes' final observations.
    """
    features, _ = unroll(p, window)
    big_r = state_value(p, features[-1])
    returns = []
    for s in reversed(window.steps):
        reward, goes_on, rest = reward_and_rest(config, window, s, p, states)
        following = state_value(p, features[s + 1 - window.start])
        following += config.gae_lambda * (big_r - following)
        big_r = reward + config.gamma * (following if goes_on else rest)
        returns.insert(0, big_r)
    return returns


def one_step_y(config: Config, window: Window, p: Params, states: list[State]) -> list[float]:
    """y of Algorithm 1 (max over actions) or of Sarsa (the action really taken next), under theta- = `p`."""
    features, _ = unroll(p, window)
    targets = []
    for s in window.steps:
        reward, goes_on, rest = reward_and_rest(config, window, s, p, states)
        q_next = linear(p, "q", features[s + 1 - window.start])
        following = q_next.max() if config.algo == "one-step-q" else q_next[window.actions[s + 1, window.b]]
        targets.append(reward + config.gamma * (following if goes_on else rest))
    return targets


def rollout_loss(config: Config, window: Window, p: Params, targets: list[float], values: list[float]) -> float:
    """Sum what the pseudocode differentiates; `targets` and the `values` within the advantages are constants."""
    features, _ = unroll(p, window)
    loss = 0.0
    for s, x, target, value in zip(window.steps, features[:-1], targets, values, strict=True):
        action = window.actions[s, window.b]
        if config.algo != "a3c":
            loss += (target - linear(p, "q", x)[action]) ** 2
            continue
        outputs = linear(p, "policy", x)
        is_continuous = bool(np.ndim(action))
        log_pi, entropy = gaussian(outputs, action, config) if is_continuous else categorical(outputs, action)
        loss += -log_pi * (target - value) - config.entropy_cost * entropy
        loss += config.value_cost * 0.5 * (target - state_value(p, x)) ** 2
    return loss


def categorical(outputs: np.ndarray, action: int) -> tuple[float, float]:
    """Log-probability of an action, and entropy."""
    log_pi = log_softmax(outputs)
    return log_pi[action], -sum(np.exp(lp) * lp for lp in log_pi)


def gaussian(outputs: np.ndarray, action: np.ndarray, config: Config) -> tuple[float, float]:
    """Log-density of an action and entropy, one dimension after the other (supplement 9)."""
    log_pi = entropy = 0.0
    for d in range(len(action)):
        mean, rest = outputs[d], outputs[len(action) :]
        mean = np.tanh(mean) if config.policy_mean == "tanh" else mean
        variance = np.log(1 + np.exp(rest[d] if len(rest) > 1 else rest[0])) + config.min_deviation**2
        log_pi += np.log(np.exp(-((float(action[d]) - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))
        entropy += 0.5 * (np.log(2 * np.pi * variance) + 1)
    return log_pi, entropy


def finite_difference(f: Any, theta: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of f at theta [P], one coordinate after the other."""
    gradient = np.empty_like(theta)
    for i in range(len(theta)):
        offset = np.zeros_like(theta)
        offset[i] = step
        gradient[i] = (f(theta + offset) - f(theta - offset)) / (2 * step)
    return gradient
