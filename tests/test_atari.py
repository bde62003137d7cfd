"""The Atari contract of the design, on real games."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("ale_py")

from asyncrl.config import Config
from asyncrl.envs import Environments, Step, make_envs
from asyncrl.envs.atari import AtariEnvironments, AtariMirror, rom_name

NOOP, FIRE = 0, 1
Open = Callable[..., AtariEnvironments]


@pytest.fixture
def open_game() -> Iterator[Open]:
    opened: list[Environments] = []

    def make(rom: str, num_envs: int, **how: object) -> AtariEnvironments:
        envs = AtariEnvironments(rom, num_envs, **how)  # type: ignore[arg-type]
        opened.append(envs)
        return envs

    yield make
    for envs in opened:
        envs.close()


def act(envs: Environments, *actions: int) -> Step:
    return envs.step(np.array(actions))


def test_the_spaces_and_units(open_game: Open) -> None:
    envs = make_envs(Config(env="ALE/Pong-v5"), 2)
    observations = envs.reset(seed=0)
    assert (observations.shape, observations.dtype) == ((2, 4, 84, 84), np.uint8)
    assert (envs.frames_per_step, envs.rewards_are_scores, envs.action_space.n) == (4, True, 6)
    envs.close()
    assert rom_name("ALE/MsPacman-v5") == "ms_pacman"


def test_a_time_limit_truncates_after_exactly_a_quarter_of_its_frames_every_time(open_game: Open) -> None:
    envs = open_game("pong", 2, max_episode_frames=40)
    envs.reset(seed=0)
    steps = [act(envs, NOOP, NOOP) for _ in range(31)]
    assert [n for n, s in enumerate(steps, start=1) if s.truncated.any()] == [10, 20, 30]
    assert all(s.truncated.all() for s in steps[9::10])
    assert not any(s.terminated.any() for s in steps)


def test_a_game_has_108_000_frames_unless_told_otherwise(open_game: Open) -> None:
    envs = open_game("pong", 1)
    envs.reset(seed=0)
    envs._steps[:] = 108_000 // 4 - 2
    assert [bool(act(envs, NOOP).truncated[0]) for _ in range(3)] == [False, True, False]


def test_what_ale_py_is_asked_for(open_game: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 30 no-ops (it draws 0 to 29), raw rewards, no FIRE, and nothing of it that resets a game at a lost life."""
    from ale_py import vector_env

    asked: dict[str, object] = {}
    real = vector_env.AtariVectorEnv
    monkeypatch.setattr(vector_env, "AtariVectorEnv", lambda *args, **how: asked.update(how) or real(*args, **how))
    open_game("pong", 1)
    wanted = {"noop_max": 30, "reward_clipping": False, "use_fire_reset": False, "repeat_action_probability": 0.0}
    assert wanted.items() <= asked.items() and not asked.get("episodic_life", False)


def test_the_final_observation_is_the_one_that_the_game_would_have_shown(open_game: Open) -> None:
    """The same game without the limit shows it too; what is acted on next is the beginning of a new game.

    Freeway, as every frame of it differs.
    """
    limited, endless = open_game("freeway", 2, max_episode_frames=40), open_game("freeway", 2)
    start = limited.reset(seed=7)
    assert np.array_equal(start, endless.reset(seed=7))
    for n in range(10):
        cut, whole = act(limited, 1, 2), act(endless, 1, 2)
        assert np.array_equal(cut.rewards, whole.rewards)
        if n < 9:
            assert np.array_equal(cut.observations, whole.observations)
            assert cut.final_observations is None
    assert cut.final_observations is not None
    assert np.array_equal(cut.final_observations, whole.observations)
    assert not np.array_equal(cut.observations, whole.observations)
    assert (cut.observations[:, :-1] == 0).all()  # a stack of frames that begins anew, like the first one
    assert (start[:, :-1] == 0).all()


def play_breakout(envs: AtariEnvironments, actions: list[tuple[int, ...]], seed: int) -> list[Step]:
    envs.reset(seed=seed)
    return [act(envs, *row) for row in actions]


def test_lives_fall_without_ending_the_game_and_the_last_one_ends_it(open_game: Open) -> None:
    """Breakout has five lives: serve again and again, and never move."""
    steps = play_breakout(open_game("breakout", 1), [(FIRE,)] * 250, seed=0)
    end = next(n for n, s in enumerate(steps) if s.terminated[0])
    lost = [n for n, s in enumerate(steps) if s.lives_lost[0]]
    assert [n < end for n in lost[:4]] == [True] * 4
    assert all(n > end for n in lost[4:])
    assert not steps[end].lives_lost[0]
    assert not any(s.truncated[0] for s in steps)
    assert all(s.final_observations is None for s in steps[:end])
    assert steps[end].final_observations is not None


def test_an_immediate_reset_does_not_disturb_the_other_environments(open_game: Open) -> None:
    """Environment 1 plays beside one that dies, as it plays alone."""
    rng = np.random.default_rng(0)
    actions = [(FIRE, int(rng.integers(4))) for _ in range(200)]
    together = play_breakout(open_game("breakout", 2), actions, seed=5)
    alone = play_breakout(open_game("breakout", 1), [row[1:] for row in actions], seed=6)
    assert any(s.terminated[0] for s in together)
    for pair, single in zip(together, alone, strict=True):
        assert np.array_equal(pair.observations[1], single.observations[0])
        assert (pair.rewards[1], pair.lives_lost[1]) == (single.rewards[0], single.lives_lost[0])
        assert pair.terminated[1] == single.terminated[0]


def test_a_game_reset_at_once_takes_its_first_action(open_game: Open) -> None:
    """Breakout serves only on FIRE: the ball flies after one step of the new game, so that step was no dead one."""
    envs = open_game("breakout", 1, max_episode_frames=40)
    envs.reset(seed=0)
    for _ in range(10):
        step = act(envs, NOOP)
    assert step.truncated[0]
    waiting = step.observations
    for _ in range(5):
        served = act(envs, FIRE).observations
    envs.reset(seed=0)
    for _ in range(10):
        act(envs, NOOP)
    for _ in range(5):
        still = act(envs, NOOP).observations
    assert np.array_equal(still[0, -1], waiting[0, -1])
    assert not np.array_equal(served[0, -1], still[0, -1])


def test_rewards_are_raw_scores(open_game: Open) -> None:
    envs = open_game("ms_pacman", 1)
    envs.reset(seed=0)
    rewards = [act(envs, 3).rewards for _ in range(120)]
    assert max(r[0] for r in rewards) >= 10
    assert rewards[0].dtype == np.float32


def frames(envs: Environments, seed: int, steps: int = 80) -> np.ndarray:
    rng = np.random.default_rng(0)
    first = envs.reset(seed=seed)
    actions = rng.integers(3, size=(steps, 1)).repeat(envs.num_envs, 1)
    return np.stack([first] + [envs.step(row).observations for row in actions])


def test_equal_seeds_repeat_also_with_sticky_actions(open_game: Open) -> None:
    for sticky in (False, True):
        one, other = (open_game("freeway", 2, sticky=sticky) for _ in range(2))
        first = frames(one, seed=3)
        assert np.array_equal(first, frames(other, seed=3))
        assert not np.array_equal(first, frames(other, seed=4))


def test_every_seed_that_a_user_may_give_serves_every_number_of_games(open_game: Open) -> None:
    """ale-py seeds game i with the first seed + i and wants all of them below 2**31: the next one is 0."""
    last = 2**31 - 1
    envs, zero, mirror = open_game("pong", 3), open_game("pong", 2), AtariMirror("ALE/Pong-v5", sticky=False, seed=last)
    observations = envs.reset(seed=last)
    np.testing.assert_array_equal(observations, envs.reset(seed=last))
    np.testing.assert_array_equal(observations[1:], zero.reset(seed=0))
    assert mirror.picture(None).any()
    mirror.close()


def test_no_ops_vary_with_the_seed_and_sticky_actions_are_off_unless_asked_for(open_game: Open) -> None:
    """Games that start after as many no-ops stay together under the same actions, unless actions stick at random."""
    splits = {}
    for sticky in (False, True):
        played = frames(open_game("freeway", 12, sticky=sticky), seed=0)
        starts = [played[0, i].tobytes() for i in range(12)]
        assert len(set(starts)) > 3
        pairs = [(i, j) for i in range(12) for j in range(i) if starts[i] == starts[j]]
        assert pairs
        splits[sticky] = [not np.array_equal(played[:, i], played[:, j]) for i, j in pairs]
    assert not any(splits[False])
    assert all(splits[True])


def test_make_envs_hands_sticky_on(open_game: Open) -> None:
    """The configuration's switch is the emulator's."""
    played = {}
    for sticky in (False, True):
        envs = make_envs(Config(env="ALE/Freeway-v5", sticky=sticky), 1)
        played[sticky] = frames(envs, seed=0)
        envs.close()
        assert np.array_equal(played[sticky], frames(open_game("freeway", 1, sticky=sticky), seed=0))
    assert not np.array_equal(played[False], played[True])


def test_steps_keep_their_arrays(open_game: Open) -> None:
    envs = open_game("pong", 1, max_episode_frames=40)
    observations = envs.reset(seed=0)
    steps = [act(envs, 2) for _ in range(10)]
    kept = [observations.copy(), *(s.observations.copy() for s in steps)]
    assert steps[-1].final_observations is not None
    final = steps[-1].final_observations.copy()
    for _ in range(12):
        act(envs, 3)
    assert all(
        np.array_equal(x, k) for x, k in zip([observations, *(s.observations for s in steps)], kept, strict=True)
    )
    assert np.array_equal(steps[-1].final_observations, final)
