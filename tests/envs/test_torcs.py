"""The TORCS environment on the real game."""

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from asyncrl.envs.options import OptionError
from asyncrl.envs.torcs import TorcsEnv, build_host, cars, robots, tracks
from asyncrl.envs.torcs.autopilot import follow_centre, follow_centre_discrete
from asyncrl.errors import UserError

try:
    build_host()
    missing = ""
except UserError as error:
    missing = str(error)
pytestmark = [pytest.mark.torcs, pytest.mark.skipif(bool(missing), reason=missing or "TORCS is there")]

LEFT_FAST, STRAIGHT_FAST, STRAIGHT_COAST, STRAIGHT_BRAKE = 0, 3, 4, 5


@pytest.fixture
def make():
    """Return a maker of environments that are closed after the test."""
    made = []

    def make_one(**options):
        made.append(TorcsEnv(**options))
        return made[-1]

    yield make_one
    for env in made:
        env.close()


def play(env, seed, steps, policy=follow_centre_discrete):
    """Return observations, rewards and final info of an episode of at most `steps` steps."""
    observation, info = env.reset(seed=seed)
    observations, rewards = [observation], []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(policy(env.unwrapped.car))
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    return observations, rewards, info


def run_into(env, action):
    """Repeat one action until the episode ends; return steps, terminated, truncated and what ended it."""
    for step in range(1, 2000):
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return step, terminated, truncated, info["ended_by"]
    raise AssertionError("the episode does not end")


def test_pixels_show_a_changing_road(make):
    observations, _, _ = play(make(), 0, 60)
    first, last = observations[0], observations[-1]
    assert first.shape == (84, 84, 3) and first.dtype == np.uint8
    assert first.std() > 20 and len(np.unique(first.reshape(-1, 3), axis=0)) > 100
    assert first[:20].mean() > first[-20:].mean() + 20  # the sky is above the road
    assert np.abs(first.astype(int) - last).mean() > 2
    assert observations[0] is not observations[1] and not np.shares_memory(observations[0], observations[1])


@pytest.mark.parametrize("options", [{}, {"opponents": 3, "observation": "both"}], ids=["alone", "opponents"])
def test_a_seed_means_one_race_in_any_process_and_after_any_race(make, options):
    fresh, used = make(**options), make(**options)
    play(used, 5, 40, lambda car: LEFT_FAST)
    one, other = play(fresh, 11, 40), play(used, 11, 40)
    assert one[1] == other[1] and one[2] == other[2]
    for a, b in zip(one[0], other[0], strict=True):
        pairs = [(a, b)] if isinstance(a, np.ndarray) else [(a[key], b[key]) for key in a]
        assert all(np.array_equal(x, y) for x, y in pairs)


def test_seeds_give_different_starts_and_the_grid_gives_one(make):
    env = make(observation="state")
    positions = [env.reset(seed=seed) and env.car.lap_position for seed in range(20)]
    assert np.ptp(positions) > 800 and len(set(positions)) == 20
    grid = make(observation="state", random_start=False)
    assert len({grid.reset(seed=seed) and grid.car.lap_position for seed in range(3)}) == 1
    grid.reset(options={"start_metres": 300.0, "track_pos": 0.5})
    assert grid.car.lap_position == pytest.approx(300, abs=2) and grid.car.track_pos == pytest.approx(0.5, abs=0.02)


def test_reward_is_metres_along_the_road(make):
    _, rewards, info = play(make(observation="state", reward_scale=0.1), 3, 200)  # 0.1 per m/s for 0.1 s: metres
    assert info["distance"] > 300
    assert sum(rewards) == pytest.approx(info["distance"], rel=0.02)
    assert min(rewards) > -0.05 and max(rewards) < 5.1  # 50 m/s is all the slow car has


@pytest.mark.parametrize("discrete", [True, False])
def test_scripted_driver_laps_the_default_track(make, discrete):
    env = make(observation="state", random_start=False, actions="discrete" if discrete else "continuous")
    env.reset(seed=0)
    left_road = False
    for _ in range(900):
        _, _, terminated, truncated, info = env.step((follow_centre_discrete if discrete else follow_centre)(env.car))
        left_road |= info["off_track"]
        assert not terminated and not truncated
        if info["laps"]:
            break
    assert info["laps"] == 1 and not left_road and info["damage"] == 0
    assert 50 < info["lap_seconds"] < 80


def test_leaving_the_road_ends(make):
    env = make(observation="state")
    env.reset(seed=0)
    steps, terminated, truncated, why = run_into(env, LEFT_FAST)
    assert terminated and not truncated and why == "off_track" and steps > 10
    assert abs(env.car.to_middle) >= env.car.width / 2 + 1


def test_standing_ends(make):
    env = make(observation="state", track="g-track-1")
    env.reset(options={"start_metres": 100.0})
    assert run_into(env, STRAIGHT_BRAKE) == (50, True, False, "stuck")


def test_driving_backward_costs_and_ends(make):
    env = make(observation="state", actions="continuous", rules={"off_track_metres": None})
    env.reset(options={"start_metres": 50.0, "track_pos": -0.8})
    for _ in range(300):
        _, reward, terminated, _, info = env.step([1.0, 0.35 if env.car.speed_x < 6 else 0.0])
        if abs(info["angle"]) > 2.8:
            break
    rewards = []
    while not terminated:
        _, reward, terminated, truncated, info = env.step([0.0, 0.6])
        rewards.append(reward)
        assert not truncated
    assert info["ended_by"] == "backward" and rewards[-1] < -0.02 and info["speed_along"] < -2


def test_damage_ends_only_if_asked_for(make):
    free = {"off_track_metres": None, "backward_seconds": None, "episode_seconds": 40.0}
    env = make(observation="state", track="michigan", rules={**free, "damage_limit": 1})
    env.reset(options={"start_metres": 100.0})
    assert run_into(env, STRAIGHT_FAST)[3] == "damage" and env.car.damage >= 1
    unbreakable = make(observation="state", track="michigan", damage=False, rules={**free, "damage_limit": 1})
    unbreakable.reset(options={"start_metres": 100.0})
    assert run_into(unbreakable, STRAIGHT_FAST)[3] in ("stuck", "time") and unbreakable.car.damage == 0


def test_time_limit_truncates(make):
    env = make(observation="state", rules={"episode_seconds": 1.5}, action_seconds=0.3)
    env.reset(seed=0)
    assert run_into(env, STRAIGHT_COAST) == (5, False, True, "time")
    assert env.car.seconds == pytest.approx(1.5)


@pytest.mark.parametrize("opponents", [0, 2])
def test_fast_car_is_faster(make, opponents):
    distances = {}
    for car in ("slow", "fast"):
        env = make(observation="state", car=car, opponents=opponents, random_start=False, track="b-speedway")
        distances[car] = play(env, 0, 100)[2]["distance"]
    assert distances["fast"] > 1.4 * distances["slow"]


def test_opponents_race(make):
    env = make(observation="state", opponents=3, random_start=False)
    env.reset(seed=0)
    for _ in range(45):  # we stand; they drive off
        env.step(STRAIGHT_BRAKE)
    assert env.car.race_position == 4 and env.car.gap_ahead > 25


def test_traction_control_keeps_the_fast_car_straight(make):
    turned = {}
    for control in (True, False):
        env = make(observation="state", car="fast", random_start=False, track="b-speedway", traction_control=control)
        env.reset(seed=0)
        turned[control] = max(abs(env.step(STRAIGHT_FAST)[4]["angle"]) for _ in range(40))
    assert turned[True] < 0.3 < 1.0 < turned[False]


def test_opponents_are_seen(make):
    alone, race = make(), make(opponents=3)
    place = {"start_metres": 100.0, "track_pos": 0.0}
    without, _ = alone.reset(seed=0, options=place)
    withthem, _ = race.reset(seed=0, options=place)
    assert race.car.race_position == 4 and race.car.gap_ahead == pytest.approx(10, abs=1)
    changed = (np.abs(without.astype(int) - withthem) > 30).any(-1)
    assert 20 < changed.sum() < 1500 and changed[:25].sum() == 0  # cars stand on the road, not in the sky


def test_robots_of_their_own_choice(make):
    env = make(observation="state", opponents=["bt:3", "inferno:1:p406"])
    _, _, info = play(env, 0, 30)
    assert 1 <= info["race_position"] <= 3


def test_render_is_the_same_view_larger_and_changes_nothing(make):
    rendered, plain = make(render_mode="rgb_array"), make()
    rendered.reset(seed=4), plain.reset(seed=4)
    for _ in range(5):
        picture = rendered.render()
        observation, *_ = rendered.step(STRAIGHT_FAST)
        assert np.array_equal(observation, plain.step(STRAIGHT_FAST)[0])
    small, large = observation.astype(float), rendered.render().astype(float)
    assert picture.shape == (336, 336, 3)
    assert np.abs(large.reshape(84, 4, 84, 4, 3).mean((1, 3)) - small).mean() < 4
    assert plain.render() is None


@pytest.mark.parametrize("actions", ["discrete", "continuous"])
@pytest.mark.parametrize("observation", ["pixels", "state", "both"])
def test_gymnasium_and_sb3_checks(make, observation, actions):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on spaces
        check_env(make(observation=observation, actions=actions, render_mode="rgb_array"), skip_render_check=False)
        checker = pytest.importorskip(
            "stable_baselines3.common.env_checker", reason="Stable-Baselines3 is not installed"
        )
        checker.check_env(make(observation=observation, actions=actions))


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_vector_environments(vector):
    envs = vector([lambda: TorcsEnv(rules={"episode_seconds": 1.0})] * 2)
    try:
        observations, _ = envs.reset(seed=1)
        assert observations.shape == (2, 84, 84, 3) and not np.array_equal(*observations)
        ended = sum(envs.step(np.array([STRAIGHT_FAST, STRAIGHT_COAST]))[3].sum() for _ in range(12))
        assert ended == 2
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track": "monza"}, "no track 'monza'; it has dirt/dirt-1, "),
        ({"car": "beetle"}, "no car 'beetle'; use slow, fast or one of 155-DTM, "),
        ({"opponents": ["bt:77"]}, "no robot 'bt:77'; it has berniw:1, "),
        ({"opponents": 40}, "opponents, unless a list of robots, must be a whole number from 0 to 9"),
        ({"opponents": None}, "opponents must be a number or a list of at most 9 robots, not None"),
        ({"opponents": [3]}, "opponents must be a number or a list"),
        ({"observation": "sound"}, "observation must be one of 'pixels', 'state', 'both', not 'sound'"),
        ({"size": 84.5}, "size must be a whole number from 8 to 1024, not 84.5"),
        ({"render_scale": 1.5}, "render_scale must be a whole number"),
        ({"reward_scale": float("nan")}, "reward_scale must be a finite number, not nan"),
        ({"timeout_seconds": "a"}, "timeout_seconds must be a finite number from 0.01"),
        ({"max_restarts": -1}, "max_restarts must be a whole number"),
        ({"action_seconds": "1"}, "action_seconds must be a finite number"),
        ({"rules": {"stuck_seconds": "x"}}, "stuck_seconds must be a finite number from 0"),
        ({"rules": {"laps": 3}}, "rules has no laps; it has off_track_metres, "),
        ({"action_seconds": 0.05}, "multiple of 0.02"),
        ({"steer_lock": 2.0}, "steer_lock must be"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message):
    with pytest.raises(UserError) as caught:
        TorcsEnv(**options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_catalogue():
    assert "oval/e-track-5" in tracks() and "p406" in cars() and "bt:0" in robots()
    assert not any(name.startswith("human") for name in robots())
    assert all(Path("/usr/share/games/torcs/tracks", track).is_dir() for track in tracks())


def test_step_needs_a_reset(make):
    with pytest.raises(gymnasium.error.ResetNeeded):
        make().step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        make(render_mode="rgb_array").render()


def test_what_a_race_is_asked_for_is_checked_and_the_race_goes_on(make):
    env = make(observation="state")
    for options in ({"start_metres": float("inf")}, {"track_pos": 5.0}, {"track_pos": "left"}):
        with pytest.raises(OptionError, match=f"{next(iter(options))} must be a finite number"):
            env.reset(options=options)
    env.reset(seed=1, options={"start_metres": np.float32(100.0), "track_pos": 0.5})
    for action in (-1, 9, 1.5):
        with pytest.raises(OptionError, match="an action must be a whole number from 0 to 8"):
            env.step(action)
    assert env.step(np.int64(3))[1] > 0
