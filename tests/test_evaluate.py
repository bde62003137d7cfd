"""Evaluation: whole games, raw scores, fair shares, memory that begins anew with each episode."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import GO, LIFE_LOST, TERMINATED, TRUNCATED, Script, ScriptedEnvironments

from asyncrl.config import Config
from asyncrl.envs import make_envs
from asyncrl.evaluate import EVALUATION_EPSILON, Player, evaluate
from asyncrl.networks import Network, make_network
from asyncrl.seeding import seed_everything

VECTORS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTIONS = spaces.Discrete(3)


def script(events: list[list[int]], rewards: list[list[float]], repeats: int = 8) -> Script:
    flags = np.array(events * repeats)
    zeros = np.zeros((len(flags) + 1, flags.shape[1], 2), np.float32)
    return Script(zeros, np.array(rewards * repeats, np.float32), flags, zeros[:-1])


def network_of(config: Config) -> Network:
    return make_network(config, VECTORS, ACTIONS)


def test_neighbouring_seeds_share_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of ten environments gets a seed: that of the first, and those after it."""
    first: list[int] = []

    class Envs:
        num_envs = 10

        def reset(self, seed: int) -> None:
            first.append(seed)
            raise RuntimeError("enough")

        def close(self) -> None: ...

    monkeypatch.setattr("asyncrl.evaluate.make_envs", lambda *_: Envs())
    for seed in range(5):
        with pytest.raises(RuntimeError, match="enough"):
            evaluate(Config(), network_of(Config()), episodes=30, seed=seed)
    assert min(np.diff(sorted(first))) >= 10 and min(first) >= 0


def test_raw_scores_of_full_games_in_fair_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment 0 has games of 1 step, environment 1 of 3: each plays two, though 0 is done with many more."""
    events = [[TERMINATED, GO], [TERMINATED, LIFE_LOST], [TERMINATED, TRUNCATED]]
    world = script(events, [[5, 1], [6, 10], [7, -100]])
    monkeypatch.setattr("asyncrl.evaluate.make_envs", lambda *_: ScriptedEnvironments(world))
    monkeypatch.setattr("asyncrl.evaluate._MAX_ENVS", 2)
    episodes = evaluate(Config(), network_of(Config()), episodes=4)
    played = sorted((e.environment, e.score, e.steps, e.truncated) for e in episodes)
    assert played == [(0, 5, 1, False), (0, 6, 1, False), (1, -89, 3, True), (1, -89, 3, True)]


def test_episodes_without_an_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment 0 never ends and is cut after 3 steps, environment 1 ends in its second."""
    world = script([[GO, GO], [GO, TERMINATED]], [[1, 10], [2, 20]])
    monkeypatch.setattr("asyncrl.evaluate.make_envs", lambda *_: ScriptedEnvironments(world))
    monkeypatch.setattr("asyncrl.evaluate._MAX_ENVS", 2)
    monkeypatch.setattr("asyncrl.evaluate.EPISODE_LIMIT_STEPS", 3)
    episodes = evaluate(Config(), network_of(Config()), episodes=4)
    played = sorted((e.environment, e.score, e.steps, e.truncated) for e in episodes)
    assert played == [(0, 4, 3, True), (0, 5, 3, True), (1, 30, 2, False), (1, 30, 2, False)]


def test_an_odd_number_of_episodes_is_met_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    world = script([[TERMINATED, TERMINATED, TERMINATED]], [[1, 2, 3]])
    monkeypatch.setattr("asyncrl.evaluate.make_envs", lambda *_: ScriptedEnvironments(world))
    monkeypatch.setattr("asyncrl.evaluate._MAX_ENVS", 3)
    episodes = evaluate(Config(), network_of(Config()), episodes=7)
    assert sorted(e.environment for e in episodes) == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("algo", ["a3c", "n-step-q"])
def test_greedy_takes_the_best_and_sampled_explores(algo: str) -> None:
    config = Config(algo=algo)  # type: ignore[arg-type]
    network = network_of(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        head = network.policy if algo == "a3c" else network.q  # type: ignore[union-attr]
        head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    drawn = {}
    for mode in ("greedy", "sampled"):
        player = Player(config, network, 500, mode, seed=0)  # type: ignore[arg-type]
        drawn[mode] = np.concatenate([player.act(np.zeros((500, 2), np.float32)) for _ in range(20)])
    assert (drawn["greedy"] == 1).all()
    best = np.exp(1) / (np.exp(1) + 2) if algo == "a3c" else 1 - EVALUATION_EPSILON * 2 / 3
    assert (drawn["sampled"] == 1).mean() == pytest.approx(best, abs=4 * np.sqrt(best * (1 - best) / 10_000))


def test_the_players_memory_is_the_networks_unrolled_and_forgets_where_told() -> None:
    config = Config(core="lstm", lstm_size=4)
    network, rng = network_of(config), np.random.default_rng(0)
    observations = rng.normal(size=(6, 2, 2)).astype(np.float32)
    player = Player(config, network, 2, "greedy", seed=0)
    for t in range(6):
        player.act(observations[t])
        if t == 2:
            player.forget(np.array([True, False]))
    begins = torch.zeros(6, 2, dtype=torch.bool)
    begins[0] = begins[3, 0] = True
    _, wanted = network(torch.from_numpy(observations), begins, network.initial_state(2))
    for ours, theirs in zip(player.state, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad


def test_memory_begins_anew_with_every_episode_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    config, resets = Config(core="lstm", lstm_size=4), []
    network = network_of(config)
    network.register_forward_pre_hook(lambda _, inputs: resets.append(inputs[1][0].tolist()))
    world = script([[GO, TERMINATED], [LIFE_LOST, GO], [TRUNCATED, GO], [GO, TERMINATED]], [[0, 0]] * 4)
    monkeypatch.setattr("asyncrl.evaluate.make_envs", lambda *_: ScriptedEnvironments(world))
    evaluate(config, network, episodes=2)
    assert resets == [[True, True], [False, True], [False, False]]


@pytest.mark.parametrize("core", ["ff", "lstm"])
def test_an_evaluation_repeats_for_a_seed_and_leaves_the_network_alone(core: str) -> None:
    config = Config(env="CartPole-v1", core=core)  # type: ignore[arg-type]
    envs = make_envs(config, 1)
    network = make_network(config, envs.observation_space, envs.action_space)
    envs.close()
    before = [p.detach().clone() for p in network.parameters()]
    scores = [[e.score for e in evaluate(config, network, episodes=12, seed=seed)] for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]
    assert all(score > 0 for score in scores[0])
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def test_the_runs_sticky_setting_holds_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def make(config: Config, num_envs: int) -> ScriptedEnvironments:
        seen.append((config.sticky, num_envs))
        return ScriptedEnvironments(script([[TERMINATED] * num_envs], [[0.0] * num_envs]))

    monkeypatch.setattr("asyncrl.evaluate.make_envs", make)
    for sticky in (False, True):
        config = dataclasses.replace(Config(), sticky=sticky)
        evaluate(config, network_of(config), episodes=3)
    assert seen == [(False, 3), (True, 3)]


def test_an_evaluation_has_one_thread_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = script([[TERMINATED]], [[1]])
    monkeypatch.setattr("asyncrl.evaluate.make_envs", lambda *_: ScriptedEnvironments(world))
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        evaluate(Config(), network_of(Config()), episodes=2, beat=lambda: seen.append(torch.get_num_threads()))
        assert set(seen) == {1} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_careless_environments_repeat_too_and_the_callers_generators_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for module, draw in (("numpy", np.random.random), ("random", random.random), ("torch", lambda: torch.rand(()))):
        config = Config(env="worlds:careless", env_options={"module": module})
        envs = make_envs(config, 1)
        network = make_network(config, envs.observation_space, envs.action_space)
        envs.close()
        seed_everything(np.random.SeedSequence(1))
        expected = draw()
        seed_everything(np.random.SeedSequence(1))
        scores = [[e.score for e in evaluate(config, network, episodes=4, seed=seed)] for seed in (3, 3, 4)]
        assert scores[0] == scores[1] != scores[2]
        assert draw() == expected
