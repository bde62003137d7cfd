"""The labyrinth as an environment, played on the real engine."""

import hashlib
import itertools
import math
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

pytest.importorskip("vizdoom", reason="ViZDoom is not installed: pip install 'asyncrl[labyrinth]'")

from asyncrl.envs.labyrinth import (
    LabyrinthEnv,
    Maze,
    OptionError,
    art,
    engine,
    view,
)
from asyncrl.envs.labyrinth.env import locate
from asyncrl.envs.labyrinth.maze import NEIGHBOURS, measure_distances

FORWARD, LEFT, RIGHT = 0, 4, 5


@pytest.fixture(scope="module")
def env():
    """One environment for all tests that leave it usable: an engine takes a second to start."""
    env = LabyrinthEnv(render_mode="rgb_array")
    yield env
    env.close()


def aim(env, info, target):
    """Choose the action of an agent that knows the maze and walks to `target` cell by cell."""
    distances, here = measure_distances(env.maze.open, target), locate(info["position"])
    x, y = info["position"]
    goal = target
    if here != target:
        goal = next(
            c for c in ((here[0] + a, here[1] + b) for a, b in NEIGHBOURS) if distances[c] == distances[here] - 1
        )
        aside = y - here[1] - 0.5 if goal[0] != here[0] else x - here[0] - 0.5
        if abs(aside) > 0.25:  # first to the middle of the cell, or the corner of the wall is in the way
            goal = here
    wanted = math.degrees(math.atan2(goal[1] + 0.5 - y, goal[0] + 0.5 - x))
    turn = (wanted - info["heading"] + 180) % 360 - 180
    return LEFT if turn > 10 else RIGHT if turn < -10 else FORWARD


def walk_to(env, info, target, steps=400):
    """Walk to an apple or the portal until it is taken; return the rewards on the way and the last info."""
    rewards, portals = [], info["portals"]
    for _ in range(steps):
        _, reward, _, _, info = env.step(aim(env, info, target))
        rewards.append(reward)
        if info["portals"] > portals or (target in env.maze.apples and target not in env._apples_left):
            break
    return rewards, info


def play(env, seed, actions):
    """Return a digest of every frame and reward after `reset(seed=seed)`."""
    digest = hashlib.sha256()
    observation, _ = env.reset(seed=seed)
    digest.update(observation.tobytes())
    for action in actions:
        observation, reward, _, truncated, info = env.step(action)
        digest.update(observation.tobytes() + repr((reward, truncated, info["position"].tolist())).encode())
        if truncated:
            digest.update(env.reset()[0].tobytes())
    return digest.hexdigest()


# --- what the agent sees and gets -------------------------------------------------------------------------


def test_frames_show_something_and_change(env):
    observation, _ = env.reset(seed=0)
    assert observation.shape == (84, 84, 3) and observation.dtype == np.uint8
    frames = [observation]
    for _ in range(8):
        frames.append(env.step(LEFT)[0])
    assert all(frame.std() > 10 for frame in frames)
    assert all((a != b).mean() > 0.1 for a, b in itertools.pairwise(frames))
    assert len(np.unique(np.stack(frames).reshape(-1, 3), axis=0)) > 30


def test_an_observation_is_the_mean_of_2_by_2_pixels():
    screen = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (192, 256), dtype=np.uint8)
    pixels = art.make_palette()[screen[12:180, 44:212]].astype(float)
    wanted = pixels.reshape(84, 2, 84, 2, 3).mean((1, 3))
    error = view.make_observation(screen) - wanted
    assert abs(error).max() <= 1 and abs(error.mean()) < 0.05


def make_hall(heading=0, portal=(9, 9)):
    """Return a maze of one big room with the agent in the middle."""
    grid = np.zeros((11, 11), bool)
    grid[1:-1, 1:-1] = True
    return Maze(grid, (5, 5), heading, portal, (), seed=0)


@pytest.mark.parametrize("heading", [0, 90, 225])
def test_every_action_does_what_its_name_says(heading):
    env = LabyrinthEnv(forward_turns=True)
    moves = {"forward": 0, "backward": 180, "strafe left": 90, "strafe right": -90}
    motor = engine.Engine(11)
    for action, buttons in zip(env.actions, env._buttons, strict=True):
        start = motor.enter(make_hall(heading), (5, 5), heading, "plain", 0)
        end = motor.act(buttons, 4)
        turned = (end.heading - heading + 180) % 360 - 180
        assert turned == pytest.approx(-4 * action.turn, abs=0.1)
        moved = math.dist((start.x, start.y), (end.x, end.y))
        assert (moved > 4) == ("turn" not in action.name or "forward" in action.name)
        if action.name in moves:
            course = math.degrees(math.atan2(end.y - start.y, end.x - start.x)) - heading
            assert (course - moves[action.name] + 180) % 360 - 180 == pytest.approx(0, abs=1)
    motor.close()


@pytest.mark.parametrize(("angle", "seen"), [(0, True), (40, True), (50, False), (-40, True), (-50, False)])
def test_the_field_of_view_is_90_degrees(angle, seen):
    # A portal 4.5 cells off, at an angle to the line of sight: only the portal is magenta.
    heading = {0: 0, 40: -40, 50: -50, -40: 40, -50: 50}[angle] % 360
    motor = engine.Engine(11)
    report = motor.enter(make_hall(portal=(9, 5)), (5, 5), heading, "plain", 0)
    motor.close()
    observation = view.make_observation(report.screen).astype(int)
    assert (abs(observation - (255, 60, 240)).max(-1) < 60).any() == seen


def test_apples_give_one_each_and_are_counted(env):
    _, info = env.reset(seed=3)
    apple = min(env.maze.apples, key=lambda c: measure_distances(env.maze.open, env.maze.start)[c])
    rewards, info = walk_to(env, info, apple)
    assert sum(rewards) == info["apples"] >= 1 and info["portals"] == 0
    assert info["apples_left"] == env.apples - info["apples"]
    assert apple not in env._apples_left


def test_the_portal_gives_ten_moves_the_agent_and_brings_the_apples_back(env):
    _, info = env.reset(seed=4)
    apple = min(env.maze.apples, key=lambda c: measure_distances(env.maze.open, env.maze.start)[c])
    _, info = walk_to(env, info, apple)
    taken = info["apples"]
    rewards, info = walk_to(env, info, env.maze.portal)
    assert rewards[-1] >= 10 and info["portals"] == 1 and info["apples_left"] == env.apples
    assert locate(info["position"]) in env._respawns
    assert sum(rewards) == 10 + info["apples"] - taken
    rewards, again = walk_to(env, info, apple)  # the apple of before gives its point once more
    assert sum(rewards) >= 1 and again["apples"] > info["apples"]


def test_an_episode_ends_by_time_with_a_true_last_frame():
    env = LabyrinthEnv(episode_seconds=1, tics_per_action=4, size=7, apples=2)
    env.reset(seed=0)
    steps = [env.step(FORWARD) for _ in range(9)]
    assert [s[3] for s in steps] == [False] * 8 + [True] and not any(s[2] for s in steps)
    assert steps[-1][4]["tics_left"] == 0 and steps[-2][4]["tics_left"] == 3  # 35 tics = 8 actions of 4 and one of 3
    assert steps[-1][0].std() > 0 and steps[-1][4]["maze_seed"] == steps[0][4]["maze_seed"]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(FORWARD)
    env.close()


def test_sixty_seconds_are_525_actions_by_default():
    env = LabyrinthEnv()
    assert env.episode_tics == 2100 and env.episode_tics // env.tics_per_action == 525


# --- seeds ------------------------------------------------------------------------------------------------

TRIAL = np.random.Generator(np.random.PCG64(7)).choice([0, 0, 0, 1, 2, 3, 4, 5], 150).tolist()


def test_a_seed_repeats_in_this_process_and_in_another(env):
    here = play(env, 11, TRIAL)
    env.reset(seed=99)
    env.step(FORWARD)
    assert play(env, 11, TRIAL) == here != play(env, 12, TRIAL)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_labyrinth as t; "
        "e = t.LabyrinthEnv(); print(t.play(e, 11, t.TRIAL)); e.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


def test_episodes_differ_and_a_maze_seed_brings_one_back(env):
    seeds = [env.reset(seed=5)[1]["maze_seed"], *(env.reset()[1]["maze_seed"] for _ in range(3))]
    assert len(set(seeds)) == 4
    first = env.maze
    observation, info = env.reset(options={"maze_seed": seeds[1]})
    assert info["maze_seed"] == seeds[1] and not np.array_equal(first.open, env.maze.open)
    assert np.array_equal(observation, env.reset(options={"maze_seed": seeds[1]})[0])


def test_two_engines_in_one_process_do_not_mix(env):
    alone = play(env, 21, TRIAL[:40])
    with_other = LabyrinthEnv(size=9, apples=3)
    with_other.reset(seed=1)
    digest = hashlib.sha256()
    digest.update(env.reset(seed=21)[0].tobytes())
    for action in TRIAL[:40]:
        observation, reward, _, truncated, info = env.step(action)
        digest.update(observation.tobytes() + repr((reward, truncated, info["position"].tolist())).encode())
        with_other.step(action)
    with_other.close()
    assert digest.hexdigest() == alone


# --- options ----------------------------------------------------------------------------------------------


def test_options_do_what_they_say():
    env = LabyrinthEnv(size=15, apples=3, textures="plain", forward_turns=True, tics_per_action=2)
    _, info = env.reset(seed=0)
    assert env.action_space.n == 8 and env.metadata["render_fps"] == 17.5
    assert env.maze.open.shape == (15, 15) and info["apples_left"] == 3
    before = info["heading"]
    _, _, _, _, info = env.step(6)
    assert (info["heading"] - before) % 360 == pytest.approx(7.5, abs=0.2)  # two tics
    env.close()


@pytest.mark.parametrize(
    "options",
    [
        {"size": 8},
        {"textures": "none"},
        {"tics_per_action": 0},
        {"episode_seconds": 0.01},
        {"episode_seconds": float("inf")},
        {"episode_seconds": "60"},
        {"render_mode": "human"},
        {"render_view": "up"},
        {"generator": "x"},
    ],
)
def test_wrong_options_are_refused_before_anything_starts(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        LabyrinthEnv(**options)


def test_numpy_numbers_are_numbers():
    assert LabyrinthEnv(size=np.int64(9), apples=np.int64(3), episode_seconds=np.float32(30)).episode_tics == 1050


def test_a_wrong_action_or_maze_costs_nothing(env):
    _, info = env.reset(seed=3)
    for action in (-1, 6, 0.5):
        with pytest.raises(OptionError, match="an action must be a whole number from 0 to 5"):
            env.step(action)
    for seed in (-1, 2**64, 5.0, "5", None):
        with pytest.raises(OptionError, match="the seed of a maze must be a whole number"):
            env.reset(options={"maze_seed": seed})
    assert env.step(0)[4]["maze_seed"] == info["maze_seed"]
    assert env.reset(options={"maze_seed": np.int64(5)})[1]["maze_seed"] == 5


def test_rendering_needs_a_reset():
    env = LabyrinthEnv(render_mode="rgb_array")
    for render in (env.render, env.render_map):
        with pytest.raises(gymnasium.error.ResetNeeded):
            render()


def test_pictures_for_people(env):
    env.reset(seed=3)
    eyes = env.render()
    assert eyes.shape == (504, 504, 3)
    plan = env.render_map()
    assert plan.shape == (504, 504, 3) and len(np.unique(plan.reshape(-1, 3), axis=0)) >= 6
    x, y = env.maze.portal
    assert tuple(plan[503 - int((y + 0.5) * 504 / env.size), int((x + 0.5) * 504 / env.size)]) == (225, 40, 215)
    both = LabyrinthEnv(render_mode="rgb_array", render_view="both")
    both.reset(seed=3)
    assert both.render().shape == (504, 1008, 3)
    both.close()


# --- other libraries --------------------------------------------------------------------------------------


def test_gymnasium_finds_nothing_wrong():
    env = LabyrinthEnv(render_mode="rgb_array", episode_seconds=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
    env.close()


def test_stable_baselines3_finds_nothing_wrong():
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="stable-baselines3 is not installed")
    env = LabyrinthEnv(render_mode="rgb_array", episode_seconds=5)
    checker.check_env(env, warn=True)
    env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_vector_environments(vector, mode):
    make = ShortLabyrinth()
    envs = vector([make, make], autoreset_mode=mode)
    observations, info = envs.reset(seed=0)
    assert observations.shape == (2, 84, 84, 3) and info["maze_seed"][0] != info["maze_seed"][1]
    ended = 0
    for _ in range(12):
        observations, _, _, truncated, info = envs.step(np.array([FORWARD, LEFT]))
        ended += truncated.sum()
        if mode is AutoresetMode.SAME_STEP and truncated.any():
            assert info["final_obs"][0].shape == (84, 84, 3)
            assert not np.array_equal(info["final_obs"][0], observations[0])
        if mode is AutoresetMode.DISABLED and truncated.any():
            observations, info = envs.reset(options={"reset_mask": truncated})
    assert ended == 4 and observations.std() > 0
    envs.close()


class ShortLabyrinth:
    """Make an environment whose episodes last 5 actions; a class, because lambdas cannot go to other processes."""

    def __call__(self):
        return LabyrinthEnv(size=7, apples=2, episode_seconds=20 / 35)
