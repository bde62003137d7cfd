"""The diagnostic worlds keep Gymnasium's contract and reward what they say they do."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from asyncrl.envs.diagnostic import Catch, MemoryChain, Target, TimeLimitChain


@pytest.mark.parametrize("name", ["Catch", "MemoryChain", "TimeLimitChain", "Target"])
def test_keeps_the_contract_of_gymnasium(name: str) -> None:
    check_env(gymnasium.make(f"asyncrl/{name}-v0").unwrapped)


@pytest.mark.parametrize("offset", [0, 1])
def test_catch_rewards_the_paddle_under_the_ball_and_nothing_else(offset: int) -> None:
    env = Catch()
    for seed in range(10):
        board, _ = env.reset(seed=seed)
        goal = (int(board[0, 0].argmax()) + offset) % env.columns
        for step in range(env.rows - 1):
            paddle = int(board[0, -1].argmax())
            board, reward, ended, truncated, _ = env.step(np.int64(1 + np.sign(goal - paddle)))
            assert ended == (step == env.rows - 2)
            assert not truncated
            assert reward == (0.0 if not ended else 1.0 if offset == 0 else -1.0)


def test_memory_chain_shows_its_cue_once_and_asks_for_it_at_the_end() -> None:
    env = MemoryChain(length=5)
    for seed in range(6):
        first, _ = env.reset(seed=seed)
        cue, ended, reward, seen = first[0], False, 0.0, []
        while not ended:
            observation, reward, ended, _, _ = env.step(np.int64(cue > 0))
            seen.append(observation[0])
        assert abs(cue) == 1
        assert not any(seen)
        assert reward == 1.0
        env.reset(seed=seed)
        assert [env.step(np.int64(cue < 0))[1] for _ in range(6)] == [0, 0, 0, 0, 0, -1]


def test_time_limit_chain_is_cut_and_never_ends() -> None:
    env = TimeLimitChain(states=3, limit=4)
    env.reset(seed=0)
    assert [env.step(np.int64(0))[1:4] for _ in range(4)] == [(1.0, False, t == 3) for t in range(4)]


def test_target_rewards_closeness() -> None:
    env = Target()
    observation, _ = env.reset(seed=3)
    rewards = []
    for _ in range(20):
        way = observation[2:] - observation[:2]
        observation, reward, _, truncated, _ = env.step(np.clip(way * 4, -1, 1))
        rewards.append(reward)
    assert rewards[-1] == pytest.approx(0.0, abs=1e-5)
    assert rewards == sorted(rewards)
    assert truncated
