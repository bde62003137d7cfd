"""Continuous actions: the loss against the oracle, whole-episode updates, bounds met at the environment only."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import CONTINUOUS, GO, LIFE_LOST, TERMINATED, TRUNCATED, random_script
from test_algorithms import BASE, ROLLOUTS, T_MAX, Run
from test_rollout import CONFIG, Play, Taped, column

from asyncrl.config import Config
from asyncrl.envs.actions import ActionMap
from asyncrl.envs.vector import GymnasiumEnvironments
from asyncrl.errors import UserError
from asyncrl.evaluate import Player
from asyncrl.networks import make_network
from asyncrl.policies import Gaussian, MultiCategorical, make_gaussian, make_multi_categorical, policy_head

VECTORS = spaces.Box(-np.inf, np.inf, (3,), np.float32)


# The loss


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("core", ["ff", "lstm"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("variance", ["spherical", "per-dimension"])
def test_gradients_equal_finite_differences_of_the_pseudocode(
    variance: str, separate: bool, core: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(
        BASE, policy_variance=variance, separate_networks=separate, core=core, envs_per_worker=batch
    )
    Run(
        config, random_script(ROLLOUTS * T_MAX, batch, seed=1), monkeypatch, CONTINUOUS
    ).assert_gradients_are_the_oracles()


@pytest.mark.parametrize("min_deviation", [0.001, 0.5])
def test_gradients_with_a_bounded_mean_and_scaled_rewards(
    min_deviation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(
        BASE, policy_mean="tanh", min_deviation=min_deviation, reward_scale=0.3, envs_per_worker=4
    )
    Run(config, random_script(ROLLOUTS * T_MAX, 4, seed=3), monkeypatch, CONTINUOUS).assert_gradients_are_the_oracles()


def test_gradients_of_whole_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each update spans one episode, and none bootstraps."""
    config = dataclasses.replace(
        BASE, t_max=None, core="lstm", separate_networks=True, envs_per_worker=1, bootstrap_on_truncation=False
    )
    run = Run(config, random_script(60, 1, seed=2), monkeypatch, CONTINUOUS)
    lengths = [stop - start for start, stop in run.spans()]
    assert len(set(lengths)) > 1
    run.assert_gradients_are_the_oracles()


def test_networks_that_are_separate_share_nothing() -> None:
    config = Config(separate_networks=True, core="lstm", network="mlp200", lstm_size=128)
    network = make_network(config, VECTORS, CONTINUOUS)
    observations = torch.randn(4, 2, 3)
    outputs, state = network(observations, torch.zeros(4, 2, dtype=torch.bool), network.initial_state(2))
    parameters = dict(network.named_parameters())
    for loss, prefixes in (
        (outputs.values.sum(), ("value",)),
        (outputs.policy.log_prob(torch.zeros(4, 2, 2)).sum(), ("trunk", "policy")),
    ):
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        moved = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
        assert moved == {name for name in parameters if name.startswith(prefixes)}
    assert [tuple(x.shape) for x in state] == [(2, 128)] * 4
    # By hand: 200 ReLU on 3 inputs, 128 cells, twice; mean and one variance; one value.
    trunk = 4 * 200 + 4 * 128 * (200 + 128 + 2)
    assert sum(p.numel() for p in network.parameters()) == 2 * trunk + 129 * 3 + 129


# The distributions


def test_the_variance_is_the_softplus_and_never_nothing() -> None:
    outputs = torch.tensor([[[0.5, -0.5, 0.0], [1.0, 2.0, -500.0], [1.0, 2.0, 500.0]]])
    policy = make_gaussian(outputs, 2)
    assert policy.variance.flatten().tolist() == pytest.approx([np.log(2) + 1e-6, 1e-6, 500], rel=1e-6)
    assert torch.equal(policy.mode(), outputs[..., :2])
    assert torch.isfinite(policy.log_prob(torch.zeros(1, 3, 2))).all()


def test_a_smallest_deviation_is_never_undercut() -> None:
    observations, actions = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float32)
    certain, x = [], torch.zeros(1, 1, 3)
    for deviation in (0.001, 0.2):
        network = make_network(Config(min_deviation=deviation), observations, actions)
        with torch.no_grad():
            network.policy.bias.fill_(-500.0)
            outputs, _ = network(x, torch.zeros(1, 1, dtype=torch.bool), network.initial_state(1))
        certain.append(outputs.policy.variance.sqrt().flatten().tolist())
    assert certain == [pytest.approx([0.001]), pytest.approx([0.2])]


def test_a_bounded_mean_stays_where_the_bounds_are_finite() -> None:
    low = np.array([-2, -np.inf, -1], np.float32)
    head = policy_head(spaces.Box(low, np.array([2, 1, 1], np.float32)), "x", spherical=True, bounds_mean=True)
    policy = head.make(torch.tensor([[[9.0, 9.0, 0.5, 0.0]]]))
    assert policy.mode().flatten().tolist() == pytest.approx([np.tanh(9), 9, np.tanh(0.5)])


def test_draws_have_the_mean_and_the_variance() -> None:
    n = 20_000
    mean = torch.tensor([1.0, -2.0]).expand(1, n, 2)
    policy = Gaussian(mean, torch.tensor([0.25, 4.0]).expand(1, n, 2))
    drawn = policy.sample(torch.Generator().manual_seed(0))[0]
    assert drawn.mean(0).tolist() == pytest.approx([1, -2], abs=0.06)
    assert drawn.var(0).tolist() == pytest.approx([0.25, 4], rel=0.05)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.03
    again = policy.sample(torch.Generator().manual_seed(0))[0]
    assert torch.equal(drawn, again)


def test_several_choices_are_independent() -> None:
    policy = make_multi_categorical(torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)), [2, 3])
    assert isinstance(policy, MultiCategorical)
    total, entropy = torch.zeros(3, 2), torch.zeros(3, 2)
    for i in range(2):
        for j in range(3):
            log_prob = policy.log_prob(torch.tensor([i, j]).expand(3, 2, 2))
            total += log_prob.exp()
            entropy -= log_prob.exp() * log_prob
    torch.testing.assert_close(total, torch.ones(3, 2))
    torch.testing.assert_close(policy.entropy(), entropy)
    drawn = torch.stack([policy.sample(torch.Generator().manual_seed(s)) for s in range(200)])
    assert drawn.amax((0, 1, 2)).tolist() == [1, 2] and drawn.amin() == 0
    best = policy.log_prob(policy.mode())
    assert all((best >= policy.log_prob(draw)).all() for draw in drawn)


# Whole episodes


def test_whole_episode_updates_are_monte_carlo_returns() -> None:
    """One rollout per episode however long, ending where it ends; the buffers grow; nothing is bootstrapped."""
    length = 700
    events = [[GO]] * (length - 1) + [[TRUNCATED]] + [[GO]] * 2 + [[TERMINATED]]
    rewards = np.random.default_rng(0).normal(size=(len(events), 1))
    envs = Taped(events, rewards.tolist())
    config = dataclasses.replace(CONFIG, t_max=None, bootstrap_on_truncation=False, clip_rewards="off", gamma=0.99)
    play = Play(config, envs)
    first, second = play.collect(), play.collect()
    assert [len(first.rewards), len(second.rewards)] == [length, 3]
    assert column(first.observations[..., 0])[:3] == [0, 10, 20]
    assert column(first.observations[..., 0])[length - 1] == 10 * (length - 1)
    assert not any(call[0] == "evaluate" for call in envs.tape)
    assert (
        (first.cut_values == 0).all() and first.discounts[-1] == 0 and (first.discounts[:-1] == np.float32(0.99)).all()
    )
    from asyncrl.returns import n_step_returns

    returns = n_step_returns(first.rewards, first.discounts, first.cut_values, torch.tensor([1e9]))
    wanted = [sum(0.99 ** (k - t) * rewards[k, 0] for k in range(t, length)) for t in (0, 300, length - 1)]
    assert [returns[t, 0].item() for t in (0, 300, length - 1)] == pytest.approx(wanted, rel=1e-4)


def test_environments_that_end_together_may_share_an_update() -> None:
    config = dataclasses.replace(CONFIG, t_max=None, bootstrap_on_truncation=False)
    play = Play(config, Taped([[GO, GO], [TRUNCATED, TERMINATED], [TERMINATED, TRUNCATED]]))
    assert [len(play.collect().rewards), len(play.collect().rewards)] == [2, 1]


@pytest.mark.parametrize("early", [TERMINATED, TRUNCATED, LIFE_LOST])
def test_episodes_that_end_apart_are_refused_in_one_line(early: int) -> None:
    play = Play(dataclasses.replace(CONFIG, t_max=None), Taped([[GO, GO], [GO, early], [TERMINATED, GO]]))
    with pytest.raises(UserError, match="environment 1 of 2 ended before the others: give --envs-per-worker 1"):
        play.collect()


def test_an_episode_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncrl.rollout.EPISODE_LIMIT_STEPS", 300)  # where the buffers still have room
    with pytest.raises(UserError, match="went on for 300 steps: give a --t-max"):
        Play(dataclasses.replace(CONFIG, t_max=None), Taped([[GO]] * 600)).collect()


# Bounds


class Recording(gymnasium.Env):
    """Remembers the actions it was given."""

    def __init__(self, action_space: spaces.Space) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = action_space
        self.given: list = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.given.append(action)
        return np.zeros(3, np.float32), 0.0, False, False, {}


def given(space: spaces.Space, actions: np.ndarray) -> list:
    env = Recording(space)
    envs = GymnasiumEnvironments(lambda: env, 1)
    kept = actions.copy()
    envs.reset(seed=0)
    for action in actions:
        envs.step(action[None])
    np.testing.assert_array_equal(actions, kept)  # what the learner will see stays as it drew it
    return [np.asarray(a).tolist() for a in env.given]


def test_actions_are_rescaled_and_clipped_at_the_environment() -> None:
    space = spaces.Box(
        np.array([-2.0, 0.0, -np.inf, 1.0], np.float32), np.array([2.0, 10.0, np.inf, np.inf], np.float32)
    )
    actions = np.array([[0, 0, 0, 2], [1, -1, 7, 0.5], [-9, 0.5, -70, 3]], np.float32)
    assert given(space, actions) == [[0, 5, 0, 2], [2, 0, 7, 1], [-2, 7.5, -70, 3]]


def test_bounds_may_be_as_wide_as_floats_and_actions_of_any_shape() -> None:
    widest = float(np.finfo(np.float32).max)
    space = spaces.Box(-widest, widest, (2, 2), np.float32)
    assert given(space, np.array([[0, 1, -1, 2]], np.float32)) == [[[0, widest], [-widest, widest]]]


def test_choices_are_counted_from_the_spaces_first() -> None:
    assert given(spaces.Discrete(3, start=-1), np.array([0, 2])) == [-1, 1]
    space = spaces.MultiDiscrete([2, 3], start=[5, 0])
    assert given(space, np.array([[0, 2], [1, 0]])) == [[5, 2], [6, 0]]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-3.0, 0.0], np.float32), np.array([1.0, 8.0], np.float32), seed=0),
        spaces.Box(-np.inf, np.inf, (2, 2), np.float64, seed=0),
        spaces.Discrete(4, start=3, seed=0),
        spaces.MultiDiscrete([3, 4], start=[1, 2], seed=0),
    ],
)
def test_both_directions_undo_each_other(space: spaces.Space) -> None:
    actions = ActionMap(space)
    theirs = np.stack([space.sample() for _ in range(50)])
    np.testing.assert_allclose(actions.to_environment(actions.from_environment(theirs)), theirs, rtol=1e-6, atol=1e-6)


def test_the_learner_keeps_the_unclipped_action(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(BASE, random_script(ROLLOUTS * T_MAX, 4, seed=0), monkeypatch, CONTINUOUS)
    assert np.abs(run.actions).max() > 2  # beyond the space's bounds, and the scripted world saw what was drawn
    assert run.actions.shape == (ROLLOUTS * T_MAX, 4, 2)


def test_greedy_play_takes_the_mean() -> None:
    network = make_network(Config(), VECTORS, CONTINUOUS)
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    outputs, _ = network(torch.from_numpy(observations)[None], torch.ones(1, 5, dtype=torch.bool), ())
    played = Player(Config(), network, 5, "greedy", 0).act(observations)
    np.testing.assert_array_equal(played, outputs.policy.mode()[0].detach().numpy())
    assert not np.allclose(played, Player(Config(), network, 5, "sampled", 0).act(observations))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 5, (2,), np.int64), "Box actions of floats"),
        (spaces.MultiDiscrete([[2, 2], [2, 2]]), "one row of MultiDiscrete"),
        (spaces.MultiBinary(3), "TransformAction"),
    ],
)
def test_actions_that_nobody_can_take_are_refused(space: spaces.Space, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_network(Config(), VECTORS, space)
