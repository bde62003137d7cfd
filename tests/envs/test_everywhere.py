"""Each world with the libraries that people use: made by its registered id, stepped in batches, trained by SB3."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from asyncrl.worlds import World, list_worlds

WORLDS = {world.name: world for world in list_worlds()}
IDS = {
    "asyncrl/Labyrinth-v0": "Labyrinth",
    "asyncrl/Torcs-v0": "TORCS",
    "HalfCheetah-v5": "MuJoCo",
    "dm_control/cartpole-swingup-v0": "dm_control",
    "dm_control/cartpole-swingup-pixels-v0": "MuJoCo pixels",
    "asyncrl/HalfCheetah-pixels-v5": "MuJoCo pixels",
    "asyncrl/Catch-v0": "diagnostic",
}
MARKS = {"TORCS": [pytest.mark.torcs], "MuJoCo pixels": [pytest.mark.pixels]}


def needs(world: World, env_id: str) -> list[pytest.MarkDecorator]:
    is_there, reason = world.installed and env_id in world.ids, f"{world.missing or env_id}: {world.install}"
    return [*MARKS.get(world.name, []), pytest.mark.skipif(not is_there, reason=reason)]


every_world = pytest.mark.parametrize(
    "env_id", [pytest.param(env_id, marks=needs(WORLDS[name], env_id)) for env_id, name in IDS.items()]
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it runs


@every_world
def test_some_hundred_steps_show_and_pay_something(env_id):
    """Random actions, and the same again from the same seed: pictures change, rewards come, all of it repeats."""
    steps = 100 if "pixels" in env_id else 400
    played = [_play(gymnasium.make(env_id), steps) for _ in range(2)]
    (observations, rewards), again = played
    np.testing.assert_array_equal(observations, again[0])
    np.testing.assert_array_equal(rewards, again[1])
    assert np.isfinite(rewards).all() and np.abs(rewards).max() > 0
    assert observations.std(0).max() > 0
    if observations.dtype == np.uint8 and observations.shape[1] >= 84:
        assert min(observation.std() for observation in observations) > 5  # of 255


def _play(env: gymnasium.Env, steps: int) -> tuple[np.ndarray, np.ndarray]:
    env.action_space.seed(7)
    observations, rewards = [env.reset(seed=7)[0]], []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(env.reset()[0] if terminated or truncated else observation)
        rewards.append(float(reward))
    env.close()
    return np.stack(observations), np.array(rewards)


@every_world
def test_gymnasiums_vector_environments_run_it(env_id):
    envs = SyncVectorEnv([lambda: gymnasium.make(env_id)] * 2)
    observations, _ = envs.reset(seed=3)
    assert observations.shape == envs.observation_space.shape
    for _ in range(20):
        observations, rewards, *_ = envs.step(envs.action_space.sample())
    assert rewards.shape == (2,) and not np.array_equal(observations[0], observations[1])
    envs.close()


@every_world
@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_checks_it_and_trains_on_it(env_id):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    from stable_baselines3.common.env_checker import check_env

    env = gymnasium.make(env_id)
    check_env(env.unwrapped, skip_render_check=True)
    large = len(env.observation_space.shape) == 3 and env.observation_space.shape[0] >= 84
    model = sb3.A2C("CnnPolicy" if large else "MlpPolicy", env, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(1000)
    assert model.num_timesteps == 1000
    assert any((parameter != old).any() for parameter, old in zip(model.policy.parameters(), before, strict=True))
    env.close()


@every_world
def test_one_import_is_enough(env_id):
    assert told_space("asyncrl.envs, gymnasium", env_id).startswith("Box(")


def test_an_id_may_name_the_import():
    assert told_space("gymnasium", "asyncrl.envs:asyncrl/Catch-v0").startswith("Box(")


def told_space(imports: str, env_id: str) -> str:
    """Return the observation space as a Python tells it that has imported nothing else."""
    code = f"import {imports}; print(gymnasium.make({env_id!r}).observation_space)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
