"""Rollouts: the order of calls, and every field against tables made by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from oracles import GO, LIFE_LOST, TERMINATED, TRUNCATED, Script, ScriptedEnvironments

from asyncrl.config import Config
from asyncrl.envs import Step
from asyncrl.rollout import Rollout, WorkerState, collect_rollout, start_worker_state
from asyncrl.torsos import CoreState

GAMMA = 0.5
CONFIG = Config(envs_per_worker=1, t_max=5, gamma=GAMMA)


def label(values: np.ndarray | torch.Tensor) -> list[int]:
    return np.asarray(values)[..., 0].astype(int).tolist()


class Taped(ScriptedEnvironments):
    """Environments whose observation at step s is 10 s + b, and whose final one is 1000 + 10 s + b."""

    def __init__(self, events: list[list[int]], rewards: list[list[float]] | None = None) -> None:
        flags = np.array(events)
        numbers = 10.0 * np.arange(len(flags) + 1)[:, None, None] + np.arange(flags.shape[1])[:, None]
        self.tape: list[tuple] = []
        observations = numbers.astype(np.float32)
        super().__init__(Script(observations, _rewards(flags, rewards), flags, 1000 + observations[:-1]))

    def step(self, actions: np.ndarray) -> Step:
        self.tape.append(("step", actions.tolist()))
        return super().step(actions)


def _rewards(flags: np.ndarray, rewards: list[list[float]] | None) -> np.ndarray:
    return np.ones(flags.shape, np.float32) if rewards is None else np.array(rewards, np.float32)


class Play:
    """Collects rollouts. Its network's state counts the steps of an episode; its actions count from 0."""

    def __init__(self, config: Config, envs: Taped, keeps_action: bool = False) -> None:
        self.config, self.envs, self.keeps_action = config, envs, keeps_action
        state = (torch.zeros(envs.num_envs, 1),)
        self.worker: WorkerState = start_worker_state(config, envs, state, np.random.SeedSequence(0))
        self.calls = 0

    def act(self, observations: torch.Tensor, resets: torch.Tensor, state: CoreState) -> tuple[torch.Tensor, CoreState]:
        self.envs.tape.append(("act", label(observations), resets.tolist()))
        action = torch.full((self.envs.num_envs,), self.calls)
        self.calls += 1
        return action, (state[0] * ~resets[:, None] + 1,)

    def evaluate(self, observations: torch.Tensor, state: CoreState) -> torch.Tensor:
        self.envs.tape.append(("evaluate", label(observations), label(state[0])))
        return observations[:, 0] * 2

    def collect(self) -> Rollout:
        rollout = collect_rollout(self.config, self.worker, self.act, self.evaluate, self.keeps_action)
        return dataclasses.replace(  # its tensors are views of buffers
            rollout,
            **{
                name: getattr(rollout, name).clone()
                for name in ("observations", "rewards", "discounts", "cut_values", "resets")
            },
        )


def column(tensor: torch.Tensor, b: int = 0) -> list[float]:
    return tensor[:, b].tolist()


def test_an_ended_environment_is_acted_on_at_once_without_a_dead_step() -> None:
    envs = Taped([[GO, GO], [TERMINATED, GO], [GO, TRUNCATED], [GO, GO]])
    Play(dataclasses.replace(CONFIG, t_max=4), envs).collect()
    assert envs.tape == [
        ("act", [0, 1], [True, True]),
        ("step", [0, 0]),
        ("act", [10, 11], [False, False]),
        ("step", [1, 1]),
        ("act", [20, 21], [True, False]),
        ("step", [2, 2]),
        ("evaluate", [1020, 1021], [1, 3]),  # the true final observation, with the state of that moment
        ("act", [30, 31], [False, True]),
        ("step", [3, 3]),
    ]


def test_the_record_of_two_environments_by_hand() -> None:
    events = [[GO, LIFE_LOST], [TERMINATED, GO], [GO, TRUNCATED], [TRUNCATED, GO]]
    rewards = [[1, 0.5], [-7, 3], [0, 1], [0.25, 0]]
    rollout = Play(dataclasses.replace(CONFIG, t_max=4), Taped(events, rewards)).collect()
    assert label(rollout.observations) == [[0, 1], [10, 11], [20, 21], [30, 31], [40, 41]]
    assert rollout.actions.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert rollout.rewards.tolist() == [[1, 0.5], [-1, 1], [0, 1], [0.25, 0]]
    assert column(rollout.discounts, 0) == [GAMMA, 0, GAMMA, 0]
    assert column(rollout.discounts, 1) == [0, GAMMA, 0, GAMMA]
    assert column(rollout.cut_values, 0) == [0, 0, 0, GAMMA * 2 * 1030]
    assert column(rollout.cut_values, 1) == [0, 0, GAMMA * 2 * 1021, 0]
    assert column(rollout.resets, 0) == [True, False, True, False]
    assert column(rollout.resets, 1) == [True, False, False, True]
    assert rollout.next_actions is None


def test_without_bootstrap_a_truncation_cuts_at_zero_and_values_nothing() -> None:
    envs = Taped([[GO, GO], [TRUNCATED, GO], [GO, GO]])
    config = dataclasses.replace(CONFIG, t_max=3, bootstrap_on_truncation=False)
    rollout = Play(config, envs).collect()
    assert (rollout.cut_values == 0).all()
    assert column(rollout.discounts) == [GAMMA, 0, GAMMA]
    assert not [call for call in envs.tape if call[0] == "evaluate"]


def test_a_lost_life_ends_the_return_but_neither_memory_nor_episode() -> None:
    envs = Taped([[GO, GO], [LIFE_LOST, GO], [GO, GO], [TERMINATED, GO]])
    play = Play(dataclasses.replace(CONFIG, t_max=4), envs)
    rollout = play.collect()
    assert column(rollout.discounts) == [GAMMA, 0, GAMMA, 0]
    assert column(rollout.resets) == [True, False, False, False]
    assert label(play.worker.core_state[0]) == [4, 4]
    assert [(e.environment, e.steps, e.score) for e in play.worker.finished] == [(0, 4, 4.0)]


class LosesAtTheLimit(Taped):
    """Loses a life in the step that the time limit cuts."""

    def step(self, actions: np.ndarray) -> Step:
        step = super().step(actions)
        return step._replace(lives_lost=step.truncated)


@pytest.mark.parametrize(("ends", "rest"), [(True, 0.0), (False, GAMMA * 2 * 1000)])
def test_a_life_lost_at_the_time_limit_leaves_nothing_to_come(ends: bool, rest: float) -> None:
    config = dataclasses.replace(CONFIG, t_max=1, life_loss_ends=ends)
    assert column(Play(config, LosesAtTheLimit([[TRUNCATED]])).collect().cut_values) == [rest]


def test_lives_count_for_nothing_when_told_so() -> None:
    config = dataclasses.replace(CONFIG, t_max=2, life_loss_ends=False)
    rollout = Play(config, Taped([[LIFE_LOST], [LIFE_LOST]])).collect()
    assert column(rollout.discounts) == [GAMMA, GAMMA]


@pytest.mark.parametrize("event", [TERMINATED, TRUNCATED, LIFE_LOST])
def test_one_environment_stops_at_its_end(event: int) -> None:
    play = Play(CONFIG, Taped([[GO], [GO], [event], *[[GO]] * 9]))
    lengths = [len(play.collect().rewards) for _ in range(2)]
    assert lengths == [3, 5]


def test_several_environments_go_on_over_an_end() -> None:
    play = Play(CONFIG, Taped([[TERMINATED, GO]] * 10))
    assert [len(play.collect().rewards) for _ in range(2)] == [5, 5]


def test_a_discount_of_zero_is_no_end() -> None:
    assert len(Play(dataclasses.replace(CONFIG, gamma=0.0), Taped([[GO]] * 5)).collect().rewards) == 5


def test_rollouts_join_without_gap_or_overlap() -> None:
    play = Play(dataclasses.replace(CONFIG, t_max=3), Taped([[GO, GO], [GO, GO], [TERMINATED, GO], *[[GO, GO]] * 3]))
    first, second = play.collect(), play.collect()
    assert label(first.observations[-1]) == label(second.observations[0]) == [30, 31]
    assert second.resets[0].tolist() == [True, False]
    assert label(first.core_state[0]) == [0, 0]
    assert label(second.core_state[0]) == [3, 3]  # the reset zeroes it, not the record
    assert second.actions.tolist() == [[3, 3], [4, 4], [5, 5]]


def test_the_last_observation_is_not_acted_on_twice() -> None:
    """Only Sarsa chooses its action early; then it is not chosen again, and the state carried is the one before it."""
    for keeps_action in (False, True):
        envs = Taped([[GO, GO]] * 4)
        play = Play(dataclasses.replace(CONFIG, t_max=2), envs, keeps_action)
        first, second = play.collect(), play.collect()
        acted = [call[1][0] for call in envs.tape if call[0] == "act"]
        assert acted == ([0, 10, 20, 30, 40] if keeps_action else [0, 10, 20, 30])
        assert label(second.core_state[0]) == [2, 2]
        if keeps_action:
            assert first.next_actions is not None
            assert first.next_actions.tolist() == second.actions[0].tolist() == [2, 2]


def test_sarsa_chooses_the_first_action_of_the_next_episode_too() -> None:
    envs = Taped([[GO], [TERMINATED], [GO], [GO]])
    play = Play(dataclasses.replace(CONFIG, t_max=2), envs, keeps_action=True)
    play.collect()
    assert envs.tape[-1] == ("act", [20], [True])
    second = play.collect()
    assert second.actions[0].tolist() == [2]
    assert second.resets[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(("clip", "seen"), [("auto", [1, -1]), ("on", [1, -1]), ("off", [3, -4])])
def test_scores_are_raw_whatever_the_learner_sees(clip: str, seen: list[float]) -> None:
    config = dataclasses.replace(CONFIG, t_max=2, clip_rewards=clip)  # type: ignore[arg-type]
    play = Play(config, Taped([[GO, GO], [TERMINATED, GO]], [[3, 0], [-4, 0]]))
    assert column(play.collect().rewards) == seen
    assert [e.score for e in play.worker.finished] == [-1]


def test_rewards_that_are_no_scores_are_not_clipped_by_default() -> None:
    envs = Taped([[GO]], [[3]])
    envs.rewards_are_scores = False
    assert column(Play(dataclasses.replace(CONFIG, t_max=1), envs).collect().rewards) == [3]


def test_episodes_span_rollouts_and_are_logged_once() -> None:
    events = [[GO, GO], [GO, TRUNCATED], [GO, GO], [TERMINATED, GO], [GO, TERMINATED], [GO, GO]]
    rewards = [[1, 10], [2, 20], [4, 40], [8, 80], [16, 160], [32, 320]]
    play = Play(dataclasses.replace(CONFIG, t_max=2), Taped(events, rewards))
    for _ in range(3):
        play.collect()
    logged = [(e.environment, e.score, e.steps, e.truncated) for e in play.worker.finished]
    assert logged == [(1, 30, 2, True), (0, 15, 4, False), (1, 280, 3, False)]
