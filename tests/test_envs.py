"""Gymnasium environments behind our interface: no dead steps, true final observations, names told apart."""

import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from asyncrl.config import Config
from asyncrl.envs import Environments, Step, make_envs
from asyncrl.envs.vector import GymnasiumEnvironments
from asyncrl.errors import UserError

B, STEPS = 3, 40


class Stairs(gymnasium.Env):
    """Action 1 climbs, 0 waits; the reward is the height before. Height 3 ends the world, 5 actions end the time.

    Observation [height, actions so far, episode].
    """

    observation_space = spaces.Box(0, 1000, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.height = self.actions = 0
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.height = self.actions = 0
        self.episode += 1
        return self.observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(self.height)
        self.height += int(action)
        self.actions += 1
        return self.observe(), reward, self.height == 3, self.actions == 5, {}

    def observe(self) -> np.ndarray:
        return np.array([self.height, self.actions, self.episode], np.float32)


def make_stairs() -> gymnasium.Env:
    return Stairs()


def play(envs: Environments, actions: list[list[int]]) -> list[Step]:
    return [envs.step(np.array(row)) for row in actions]


class Rewarding(Stairs):
    """Gives the same reward always."""

    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self.reward, *rest


def test_a_table_by_hand() -> None:
    """Environment 0 climbs straight to the end; environment 1 waits into the time limit."""
    envs = GymnasiumEnvironments(make_stairs, 2)
    assert envs.reset().tolist() == [[0, 0, 0], [0, 0, 0]]
    steps = play(envs, [[1, 0]] * 6)
    assert [s.observations[0].tolist() for s in steps] == [
        [1, 1, 0],
        [2, 2, 0],
        [0, 0, 1],
        [1, 1, 1],
        [2, 2, 1],
        [0, 0, 2],
    ]
    assert [s.observations[1].tolist() for s in steps] == [[0, n, 0] for n in (1, 2, 3, 4)] + [[0, 0, 1], [0, 1, 1]]
    assert [s.rewards.tolist() for s in steps] == [[0, 0], [1, 0], [2, 0]] * 2
    assert [s.terminated.tolist() for s in steps] == [[False, False], [False, False], [True, False]] * 2
    assert [s.truncated.tolist() for s in steps] == [[False, n == 4] for n in range(6)]
    finals = [s.final_observations for s in steps]
    assert [f is None for f in finals] == [True, True, False, True, False, False]
    assert finals[2][0].tolist() == [3, 3, 0]
    assert finals[4][1].tolist() == [0, 5, 0]
    assert finals[5][0].tolist() == [3, 3, 1]
    assert not any(s.lives_lost.any() for s in steps)


def test_an_end_at_the_time_limit_is_an_end() -> None:
    envs = GymnasiumEnvironments(make_stairs, 1)
    envs.reset()
    last = play(envs, [[0], [0], [1], [1], [1]])[-1]
    assert last.terminated.tolist() == [True]
    assert last.truncated.tolist() == [False]


def test_steps_keep_their_arrays() -> None:
    envs = GymnasiumEnvironments(make_stairs, 2)
    envs.reset()
    steps = play(envs, [[1, 0]] * 3)
    kept = [s.observations.copy() for s in steps]
    play(envs, [[1, 1]] * 3)
    assert all(np.array_equal(s.observations, k) for s, k in zip(steps, kept, strict=True))


def test_copies_that_differ_are_refused() -> None:
    choices = iter([2, 3])

    def make() -> gymnasium.Env:
        env = Stairs()
        env.action_space = spaces.Discrete(next(choices))
        return env

    with pytest.raises(UserError, match="the same spaces"):
        GymnasiumEnvironments(make, 2)


def test_one_environment_given_twice_is_refused() -> None:
    env = make_stairs()
    with pytest.raises(UserError, match="make a new one at each call"):
        GymnasiumEnvironments(lambda: gymnasium.wrappers.TimeLimit(env, 9), 2)
    assert GymnasiumEnvironments(lambda: env, 1).num_envs == 1


@pytest.mark.parametrize(
    ("reward", "number"), [(2, 2.0), (np.float32(2), 2.0), (np.array([2.0]), 2.0), ([2], 2.0), (True, 1.0)]
)
def test_rewards_are_numbers_or_arrays_of_one(reward: Any, number: float) -> None:
    envs = GymnasiumEnvironments(lambda: Rewarding(reward), 1)
    envs.reset()
    assert envs.step(np.array([0])).rewards.tolist() == [number]


@pytest.mark.parametrize("reward", [np.array([1.0, 2.0]), "much", {}])
def test_other_rewards_are_told(reward: Any) -> None:
    envs = GymnasiumEnvironments(lambda: Rewarding(reward), 1)
    envs.reset()
    with pytest.raises(UserError, match="give one number"):
        envs.step(np.array([0]))


def test_observations_beyond_the_networks_floats_are_told() -> None:
    env = Stairs()
    env.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    env.observe = lambda: np.array([0.0, 1e300, 0.0])  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"observed 1e\+300: give finite numbers"):
        GymnasiumEnvironments(lambda: env, 1).reset()


def test_a_beat_follows_each_building_and_each_reset() -> None:
    beats: list[None] = []
    envs = GymnasiumEnvironments(make_stairs, 3, lambda: beats.append(None))
    assert len(beats) == 3
    envs.reset(seed=0)
    assert len(beats) == 6


def test_an_observation_of_another_shape_is_refused() -> None:
    envs = GymnasiumEnvironments(make_stairs, 2)
    envs.reset()
    for env in envs._envs:
        env.observe = lambda: np.zeros(1, np.float32)  # which would fit each place of a row
    with pytest.raises(ValueError, match="shape"):
        envs.step(np.array([0, 0]))


def choose(observations: np.ndarray) -> np.ndarray:
    """Any fixed policy that ends some episodes each way: depends on the observation alone and on the environment."""
    height, actions, episode = observations.T.astype(int)
    return ((height + actions + episode * (1 + np.arange(len(observations)))) % 3 < 2).astype(np.int64)


Transition = tuple[int, tuple, float, tuple, bool, bool]


def our_transitions() -> Iterator[Transition]:
    envs = GymnasiumEnvironments(make_stairs, B)
    observations = envs.reset()
    for _ in range(STEPS):
        step = envs.step(choose(observations))
        following = step.observations if step.final_observations is None else step.final_observations.copy()
        going = ~(step.terminated | step.truncated)
        following[going] = step.observations[going]
        for b in range(B):
            yield transition(b, observations, step.rewards, following, step.terminated, step.truncated)
        observations = step.observations


def gymnasium_transitions(mode: AutoresetMode) -> Iterator[Transition]:
    """Read Gymnasium's own stream in each mode, as its documentation says to."""
    envs = SyncVectorEnv([make_stairs] * B, autoreset_mode=mode)
    observations, _ = envs.reset()
    dead = np.zeros(B, bool)
    for _ in range(2 * STEPS):
        following, rewards, terminated, truncated, info = envs.step(choose(observations))
        ended = terminated | truncated
        true_next = following.copy()
        if mode is AutoresetMode.SAME_STEP and ended.any():
            true_next[ended] = np.stack(info["final_obs"][ended])
        for b in np.flatnonzero(~dead):
            yield transition(int(b), observations, rewards, true_next, terminated, truncated & ~terminated)
        dead = ended if mode is AutoresetMode.NEXT_STEP else np.zeros(B, bool)
        if mode is AutoresetMode.DISABLED and ended.any():
            following, _ = envs.reset(options={"reset_mask": ended})
        observations = following


def transition(b: int, observations: Any, rewards: Any, following: Any, terminated: Any, truncated: Any) -> Transition:
    ends = bool(terminated[b]), bool(truncated[b])
    return (b, tuple(observations[b]), float(rewards[b]), tuple(following[b]), *ends)


def one_step_target(item: Transition) -> float:
    _, _, reward, following, terminated, _ = item
    value = 10 * following[0] + following[1] + 0.1 * following[2]
    return reward if terminated else reward + 0.9 * value


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_targets_are_those_of_any_autoreset_mode(mode: AutoresetMode) -> None:
    ours, theirs = list(our_transitions()), list(gymnasium_transitions(mode))
    assert {item[4:] for item in ours} >= {(True, False), (False, True)}
    for b in range(B):
        mine = [item for item in ours if item[0] == b]
        other = [item for item in theirs if item[0] == b][:STEPS]
        assert mine == other
        assert [one_step_target(item) for item in mine] == [one_step_target(item) for item in other]


def test_equal_seeds_repeat_and_environments_differ() -> None:
    def observations(seed: int) -> np.ndarray:
        envs = make_envs(Config(env="CartPole-v1"), 2)
        rows = [envs.reset(seed=seed)] + [envs.step(np.array([t % 2, 1])).observations for t in range(60)]
        envs.close()
        return np.stack(rows)

    first = observations(3)
    assert np.array_equal(first, observations(3))
    assert not np.array_equal(first, observations(4))
    assert not np.array_equal(first[0, 0], first[0, 1])


def test_gymnasiums_time_limit_is_a_truncation_with_its_last_state() -> None:
    envs = make_envs(Config(env="Pendulum-v1"), 2)
    observations = envs.reset(seed=0)
    for n in range(1, 201):
        step = envs.step(np.zeros((2, 1), np.float32))
        assert step.truncated.tolist() == [n == 200] * 2
        before, observations = observations, step.observations
    assert step.final_observations is not None
    assert np.abs(step.final_observations - before).max() < 1  # one small swing on from the step before
    assert not np.array_equal(step.final_observations, step.observations)
    assert not step.terminated.any()


def test_a_function_can_be_named_by_import_path() -> None:
    envs = make_envs(Config(env="test_envs:make_stairs"), 2)
    assert envs.reset().tolist() == [[0, 0, 0], [0, 0, 0]]
    assert (envs.num_envs, envs.frames_per_step, envs.rewards_are_scores) == (2, 1, False)


def test_one_that_cannot_be_closed_leaves_no_other_open() -> None:
    closed: list[gymnasium.Env] = []

    class Stuck(gymnasium.Env):
        observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

        def close(self) -> None:
            closed.append(self)
            if len(closed) == 1:
                raise RuntimeError("stuck")

    envs = GymnasiumEnvironments(Stuck, 3)
    with pytest.raises(RuntimeError, match="stuck"):
        envs.close()
    assert len(set(map(id, closed))) == 3
    envs.close()
    assert len(closed) == 3


def test_closing_twice_closes_each_environment_once() -> None:
    closed: list[gymnasium.Env] = []

    class Counted(Stairs):
        def close(self) -> None:
            closed.append(self)

    envs = GymnasiumEnvironments(Counted, 2)
    envs.close()
    envs.close()
    assert len(closed) == len(set(map(id, closed))) == 2


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CartPole-v7x", "did you mean CartPole-v1"),
        ("Pong-v77", "did you mean ALE/Pong-v5?"),
        ("SpaceInvaders-v5", "did you mean ALE/SpaceInvaders-v5?"),
        ("space_invaders", "did you mean ALE/SpaceInvaders-v5?"),
        ("ale/Pnog-v5", "did you mean ALE/Pong-v5?"),
        ("BreakoutDeterministic-v4", "did you mean ALE/Breakout-v5?"),
        ("Pong-ramNoFrameskip-v4", "did you mean ALE/Pong-v5?"),
        ("Blackjack-v2", "did you mean Blackjack-v1?"),
        ("Blackjak-v1", "did you mean Blackjack-v1?"),
        ("ALE/Pogn-v5", "did you mean ALE/Pong-v5"),
        ("no_such_module:make", "cannot import no_such_module:make"),
        ("test_envs:no_such_function", "cannot import test_envs:no_such_function"),
        ("no_such_module:World-v0", "no_such_module"),
        ("MiniGrid-Empty-5x5-v0", "is the package that brings it installed? PACKAGE:MiniGrid-Empty-5x5-v0 has"),
        ("MinAtar/Breakout-v1", "PACKAGE:MinAtar/Breakout-v1 has a package imported"),
        ("Torcs-v0", "did you mean asyncrl/Torcs-v0?"),
        ("cartpole", "did you mean CartPole-v1?"),
        ("ale_py:ALE/Pong-v5", "did you mean ALE/Pong-v5?"),
    ],
)
def test_a_wrong_name_is_told_in_one_line(env: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_envs(Config(env=env), 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_ale_py_a_game_is_told_by_the_look_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py.registration", None)
    with pytest.raises(UserError, match="Atari games are named like ALE/Pong-v5"):
        make_envs(Config(env="PongNoFrameskip-v4"), 1)


def test_sticky_actions_are_refused_off_atari() -> None:
    with pytest.raises(UserError, match="--sticky is for Atari"):
        make_envs(Config(env="CartPole-v1", sticky=True), 1)
