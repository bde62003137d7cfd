"""dm_control and MuJoCo from pixels, on the real simulator."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from asyncrl.config import Config
from asyncrl.envs import make_envs
from asyncrl.envs.mujoco import DmControlEnv, PixelsEnv, find_backend, gl
from asyncrl.envs.registration import our_spec, our_worlds
from asyncrl.errors import UserError

if importlib.util.find_spec("dm_control") is None:
    pytest.skip("dm_control is not installed: pip install 'asyncrl[mujoco]'", allow_module_level=True)
try:
    find_backend()
    blind = ""
except UserError as error:
    blind = str(error)
needs_pixels = [pytest.mark.pixels, pytest.mark.skipif(bool(blind), reason=blind or "there is an OpenGL")]

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Return a maker of environments by id that are closed after the test, in a folder for MuJoCo's log."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make_one(env_id, **options):
        made.append(gymnasium.make(env_id, **options))
        return made[-1]

    yield make_one
    for env in made:
        env.close()


def play(env, seed, steps):
    """Return what an episode of seeded random actions shows and pays, going on after its end."""
    env.action_space.seed(seed)
    observations, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        rewards.append(reward)
        observations.append(env.reset()[0] if terminated or truncated else observation)
    return np.stack(observations), np.array(rewards)


def run_python(code, **variables):
    """Run `code` in a Python of its own; return its exit code and what it told."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
    for name in ("MUJOCO_GL", "ASYNCRL_MUJOCO_GL"):
        environment.pop(name, None) if name not in variables else None
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_every_task_of_dm_control_has_an_id():
    code = "from dm_control import suite, manipulation; print(*suite.ALL_TASKS, *manipulation.ALL, sep='\\n')"
    status, out, told = run_python(code)
    assert status == 0, told
    here = set()
    for line in out.splitlines():
        if line.startswith("("):
            domain, task = eval(line)
            here |= {f"dm_control/{domain}-{task}-v0", f"dm_control/{domain}-{task}-pixels-v0"}
        elif line.endswith("_features"):
            here.add(f"dm_control/{line}-v0")
    assert here == {env_id for env_id in our_worlds() if env_id.startswith("dm_control/")}


@pytest.mark.parametrize(
    ("domain", "task"), [("cartpole", "swingup"), ("walker", "walk"), ("manipulation", "reach_site_features")]
)
def test_it_is_dm_controls_own_task(domain, task):
    """State by state and reward by reward, given the same seed of its generator."""
    env = DmControlEnv(domain, task)
    observation, _ = env.reset(seed=3)
    bare = DmControlEnv(domain, task)._env
    generator = bare.random_state if domain == "manipulation" else bare.task.random
    expected_seed = np.random.default_rng(np.random.SeedSequence(3)).integers(2**32, dtype=np.uint32)
    generator.seed(expected_seed)
    moment = bare.reset()
    rewards = []
    env.action_space.seed(0)
    for _ in range(60):
        expected = np.concatenate([np.ravel(value) for value in moment.observation.values()])
        np.testing.assert_array_equal(observation, expected.astype(np.float32))
        action = env.action_space.sample()
        observation, reward, _, _, _ = env.step(action)
        moment = bare.step(action)
        assert reward == moment.reward
        rewards.append(reward)
    assert max(rewards) > 0


def test_an_episode_is_truncated_after_a_thousand_steps(make):
    env = make("dm_control/cartpole-balance-v0")
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(1000)]
    assert ends == [(False, False)] * 999 + [(False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_a_task_that_ends_itself_terminates(make):
    env = make("dm_control/lqr-lqr_2_1-v0")
    env.reset(seed=0)
    physics = env.unwrapped.physics
    physics.data.qpos[:] = physics.data.qvel[:] = 0  # at rest in the middle: solved
    physics.forward()
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, False)


def test_actuators_without_limits_have_none_here(make):
    assert np.isinf(make("dm_control/lqr-lqr_2_1-v0").action_space.high).all()
    np.testing.assert_allclose(make("dm_control/quadruped-walk-v0").action_space.high.max(), 1.1)


def test_diverging_physics_end_the_episode_with_the_last_sound_observation(make):
    env = make("dm_control/cartpole-swingup-v0")
    last, _ = env.reset(seed=0)
    env.unwrapped.physics.data.qvel[:] = np.nan
    observation, reward, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert terminated and not truncated and reward == 0.0 and "BADQ" in info["physics_error"]
    np.testing.assert_array_equal(observation, last)
    observation, _ = env.reset()
    assert np.isfinite(observation).all()
    assert env.step(np.zeros(1, np.float32))[2:4] == (False, False)


def test_frame_skip_repeats_the_action_and_adds_up_the_rewards(make):
    one, four = make("dm_control/walker-walk-v0"), make("dm_control/walker-walk-v0", frame_skip=4)
    one.reset(seed=1)
    four.reset(seed=1)
    action = np.full(6, 0.5, np.float32)
    singles = [one.step(action) for _ in range(4)]
    observation, reward, *_ = four.step(action)
    np.testing.assert_array_equal(observation, singles[-1][0])
    assert reward == pytest.approx(sum(single[1] for single in singles))
    three = make("dm_control/walker-walk-v0", frame_skip=3)
    three.reset(seed=1)
    ends = [three.step(action)[3] for _ in range(334)]
    assert ends == [False] * 333 + [True]  # the last one is a third as long
    assert four.unwrapped.metadata["render_fps"] * 4 == one.unwrapped.metadata["render_fps"]


@pytest.mark.parametrize(
    "env_id",
    [
        "dm_control/cartpole-swingup-v0",
        "dm_control/lqr-lqr_2_1-v0",
        "dm_control/reach_site_features-v0",
        pytest.param("dm_control/cartpole-swingup-pixels-v0", marks=needs_pixels),
        pytest.param("dm_control/quadruped-escape-pixels-v0", marks=needs_pixels),
        pytest.param("asyncrl/HalfCheetah-pixels-v5", marks=needs_pixels),
    ],
)
def test_seeds_repeat_and_differ(make, env_id):
    one, other = make(env_id), make(env_id)
    observations, rewards = play(one, 5, 30)
    again, rewards_again = play(other, 5, 30)
    np.testing.assert_array_equal(observations, again)
    np.testing.assert_array_equal(rewards, rewards_again)
    assert np.unique(rewards).size > 1
    second, second_again = one.reset()[0], other.reset()[0]  # the seed fixes what follows, too
    np.testing.assert_array_equal(second, second_again)
    assert not np.array_equal(second, observations[0])
    assert not np.array_equal(one.reset(seed=6)[0], observations[0])


@pytest.mark.parametrize(
    "env_id",
    [
        "dm_control/cartpole-swingup-v0",
        "HalfCheetah-v5",
        "InvertedPendulum-v5",
        pytest.param("dm_control/cheetah-run-pixels-v0", marks=needs_pixels),
        pytest.param("asyncrl/Reacher-pixels-v5", marks=needs_pixels),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*recommend using a symmetric and normalized space")
def test_gymnasium_finds_nothing_wrong(make, env_id):
    drawn = not env_id.startswith(("HalfCheetah", "Inverted")) and not blind
    check_env(make(env_id, render_mode="rgb_array" if drawn else None).unwrapped, skip_render_check=not drawn)


PIXELS = ["dm_control/cartpole-swingup-pixels-v0", "dm_control/walker-walk-pixels-v0", "asyncrl/HalfCheetah-pixels-v5"]


@pytest.mark.pixels
@pytest.mark.skipif(bool(blind), reason=blind or "there is an OpenGL")
class TestPixels:
    """Worlds seen as pictures."""

    @pytest.mark.parametrize("env_id", PIXELS)
    def test_a_picture_shows_something_that_moves(self, make, env_id):
        observations, rewards = play(make(env_id), 0, 40)
        assert observations.shape == (41, 84, 84, 3) and observations.dtype == np.uint8
        assert observations[0].std() > 10
        changed = np.abs(observations[40].astype(int) - observations[0]).max(-1) > 20
        assert 5 < changed.sum() < 0.6 * 84 * 84
        assert np.abs(rewards).max() > 0

    def test_up_is_up(self, make):
        """The cart stands above the floor, which is darker than the sky."""
        observation, _ = make("dm_control/cartpole-swingup-pixels-v0").reset(seed=0)
        sky, floor = observation[:30].mean(), observation[-20:].mean()
        assert sky > floor + 10

    def test_cameras_of_one_process_do_not_disturb_each_other(self, make):
        alone = [play(make(env_id), 1, 6)[0] for env_id in PIXELS]
        envs = [make(env_id) for env_id in PIXELS]
        together = []
        for env in envs:
            env.action_space.seed(1)
            together.append([env.reset(seed=1)[0]])
        for _ in range(6):
            for env, observations in zip(envs, together, strict=True):
                observations.append(env.step(env.action_space.sample())[0])
        np.testing.assert_array_equal(np.array(together), np.array(alone))

    def test_a_cheetah_that_runs_stays_in_the_picture(self, make):
        env = make("asyncrl/HalfCheetah-pixels-v5")
        env.reset(seed=0)
        world = env.unwrapped._env.unwrapped
        world.data.qpos[0] = 30.0  # metres
        observation, *_ = env.step(np.zeros(6, np.float32))
        brown = (observation[..., 0] > observation[..., 2].astype(int) + 30).sum()
        assert brown > 50

    @pytest.mark.parametrize("env_id", ["dm_control/quadruped-walk-pixels-v0", "asyncrl/HalfCheetah-pixels-v5"])
    def test_cameras_by_number_and_name(self, make, env_id):
        usual = make(env_id).reset(seed=0)[0]
        other = make(env_id, camera=0 if "quadruped" in env_id else "track").reset(seed=0)[0]
        assert np.array_equal(usual, other) == (env_id == "asyncrl/HalfCheetah-pixels-v5")
        with pytest.raises(UserError, match=r"there is no camera 'nose': 0 to \d are "):
            make(env_id, camera="nose")

    def test_a_model_without_cameras_says_so(self, make):
        with pytest.raises(UserError, match="there is no camera 'nose': the model has none of its own"):
            make("asyncrl/Pusher-pixels-v5", camera="nose")

    @pytest.mark.parametrize("env_id", ["dm_control/cartpole-swingup-v0", "asyncrl/Reacher-pixels-v5"])
    def test_people_get_a_larger_picture_that_changes_nothing(self, make, env_id):
        plain, filmed = make(env_id), make(env_id, render_mode="rgb_array")
        expected = play(plain, 2, 5)[0]
        filmed.action_space.seed(2)
        observations = [filmed.reset(seed=2)[0]]
        for _ in range(5):
            picture = filmed.render()
            assert picture.shape == (480, 480, 3) and picture.std() > 5
            observations.append(filmed.step(filmed.action_space.sample())[0])
        np.testing.assert_array_equal(np.array(observations), expected)

    def test_the_size_is_free(self, make):
        observation, _ = make("dm_control/reacher-easy-v0", pixels=True, size=48).reset(seed=0)
        assert observation.shape == (48, 48, 3)

    @pytest.mark.parametrize("env_id", ["dm_control/cartpole-swingup-pixels-v0", "asyncrl/InvertedPendulum-pixels-v5"])
    def test_vector_environments_run_it(self, make, env_id):
        spec = our_spec(env_id)
        expected = [make(env_id).reset(seed=seed)[0] for seed in (4, 5)]
        asynchronous = AsyncVectorEnv([lambda: gymnasium.make(spec)] * 2, context="forkserver")
        for envs in (SyncVectorEnv([lambda: gymnasium.make(spec)] * 2), asynchronous):
            observations, _ = envs.reset(seed=4)
            np.testing.assert_array_equal(observations, expected)
            for _ in range(3):
                envs.step(envs.action_space.sample())
            envs.close()

    def test_a_fork_of_a_process_that_has_drawn_is_refused_rather_than_hung(self):
        code = """
import os, gymnasium
from asyncrl.envs.registration import our_spec
from asyncrl.errors import UserError
gymnasium.make(our_spec("dm_control/cartpole-swingup-pixels-v0")).reset()
child = os.fork()
if not child:
    try:
        gymnasium.make(our_spec("dm_control/cartpole-swingup-pixels-v0")).reset()
    except UserError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
        status, out, told = run_python(code)
        assert status == 0, told
        assert 'context="forkserver"' in out

    def test_the_end_of_python_is_silent(self):
        code = """
import gymnasium
from asyncrl.envs.registration import our_spec
envs = [gymnasium.make(our_spec("asyncrl/Reacher-pixels-v5"))]
envs[0].reset()
envs.append(gymnasium.make(our_spec("dm_control/cartpole-swingup-pixels-v0"), render_mode="rgb_array"))
envs[1].reset()
envs[1].render()
"""
        assert run_python(code) == (0, "", "")

    def test_asyncrl_films_gymnasiums_own_tasks_without_a_screen(self):
        code = """
from asyncrl.config import Config
from asyncrl.envs.make import make_filmed_env
envs = make_filmed_env(Config(env="InvertedPendulum-v5"))
envs.reset(seed=0)
print(envs.picture().std() > 1)
"""
        status, out, told = run_python(code, DISPLAY="")
        assert status == 0 and out == "True\n", told


def test_ours_is_made_whoever_else_has_the_name(monkeypatch):
    """Shimmy registers other environments, with observations in parts, under dm_control's ids."""
    foreign = gymnasium.envs.registration.EnvSpec("dm_control/point_mass-easy-v0", entry_point="nowhere:Nothing")
    monkeypatch.setitem(gymnasium.registry, foreign.id, foreign)
    envs = make_envs(Config(env=foreign.id), 2)
    assert envs.reset(seed=0).shape == (2, 4)
    envs.close()


def test_an_unknown_task_is_told():
    with pytest.raises(UserError, match="dm_control has no dm_control/cartpole-nope-v0"):
        DmControlEnv("cartpole", "nope")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"frame_skip": 0}, "frame_skip must be a whole number from 1 to 1000, not 0"),
        ({"frame_skip": 1.5}, "not 1.5"),
        ({"render_mode": "human"}, "render_mode must be one of None, 'rgb_array', not 'human'"),
        ({"size": 4, "pixels": True}, "size must be a whole number from 8 to 4096, not 4"),
        ({"size": "x"}, "size must be a whole number from 8 to 4096, not 'x'"),
    ],
)
def test_impossible_options_are_told(options, complaint):
    with pytest.raises(UserError, match=complaint):
        DmControlEnv("cartpole", "swingup", **options)
    if "pixels" not in options:
        with pytest.raises(UserError, match=complaint):
            PixelsEnv("Reacher-v5", **options)


def test_a_pair_of_versions_that_does_not_fit_is_named(monkeypatch):
    from dm_control import suite

    def broken(*_, **__):
        raise AttributeError("'MjModel' object has no attribute 'flex_vertedge'")

    monkeypatch.setattr(suite, "load", broken)
    with pytest.raises(UserError, match=r"dm_control \S+ and mujoco \S+ do not fit together .*flex_vertedge.*asyncrl"):
        DmControlEnv("cartpole", "swingup")


class TestFindingOpenGL:
    """Which library draws, and what is told where none does."""

    @pytest.fixture(autouse=True)
    def _nothing_found_yet(self, monkeypatch):
        for name in ("MUJOCO_GL", "ASYNCRL_MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.setenv(name, "")  # so that what is set meanwhile is taken back
            monkeypatch.delenv(name)

    def test_the_first_that_works_is_taken_and_told_to_child_processes(self, monkeypatch):
        tried = []
        monkeypatch.setattr(gl, "try_backend", lambda name: tried.append(name) or ("broken" if name == "egl" else ""))
        assert find_backend() == "osmesa" and tried == ["egl", "osmesa"]
        assert os.environ["MUJOCO_GL"] == "osmesa"
        assert find_backend() == "osmesa" and tried == ["egl", "osmesa"]  # as a child process would

    def test_where_none_works_causes_and_cure_are_told_in_a_line(self, monkeypatch):
        monkeypatch.setattr(gl, "try_backend", lambda name: f"no {name} here")
        with pytest.raises(UserError) as error:
            find_backend()
        told = str(error.value)
        assert "egl: no egl here; osmesa: no osmesa here" in told and "libegl1" in told and "libosmesa6" in told
        assert "glfw" not in told and "\n" not in told and "MUJOCO_GL" not in os.environ
        monkeypatch.setenv("DISPLAY", ":0")
        with pytest.raises(UserError, match="glfw: no glfw here"):
            find_backend()

    def test_a_choice_of_the_users_is_respected(self, monkeypatch):
        monkeypatch.setattr(gl, "try_backend", lambda name: "" if name == "egl" else f"no {name} here")
        monkeypatch.setenv("MUJOCO_GL", "osmesa")
        with pytest.raises(UserError, match=r"MUJOCO_GL=osmesa is set and does not work here .*unset it"):
            find_backend()
        monkeypatch.setenv("MUJOCO_GL", "disable")
        with pytest.raises(UserError, match=r"MUJOCO_GL=disable draws no pictures: unset it"):
            find_backend()

    def test_a_library_that_fails_is_not_loaded_here(self, monkeypatch):
        """EGL without a driver, and one that ends the process that tries it."""
        monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent")
        assert gl.try_backend("egl") != ""
        monkeypatch.setattr(gl, "_TRIAL", "import os; os.abort()")
        assert gl.try_backend("egl") == "ended by signal 6"

    def test_state_needs_no_opengl(self):
        code = """
from asyncrl.envs.mujoco import DmControlEnv
env = DmControlEnv("cartpole", "swingup")
env.reset()
print(env.step(env.action_space.sample())[0].shape)
"""
        nothing = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent", "DISPLAY": ""}
        assert run_python(code, **nothing) == (0, "(5,)\n", "")

    @pytest.mark.parametrize("wanted", ["foo", "osmesa"])
    def test_a_wish_that_dm_control_dies_of_is_named(self, wanted):
        code = """
import sys
sys.modules["OpenGL.osmesa"] = sys.modules["OpenGL.raw.osmesa.mesa"] = None  # as if it were not installed
from asyncrl.envs.mujoco import DmControlEnv
from asyncrl.errors import UserError
try:
    DmControlEnv("cartpole", "swingup")
except UserError as error:
    print(error)
"""
        status, out, told = run_python(code, MUJOCO_GL=wanted)
        assert (status, told) == (0, "") and out.count("\n") == 1
        assert f"dm_control cannot be loaded while MUJOCO_GL={wanted} is set" in out and "unset it" in out

    @pytest.mark.parametrize("pixels", [False, True])
    def test_a_broken_choice_of_the_users_is_told_in_a_line(self, pixels):
        code = f"""
from asyncrl.envs.mujoco import DmControlEnv
from asyncrl.errors import UserError
try:
    DmControlEnv("cartpole", "swingup", pixels={pixels})
except UserError as error:
    print(error)
"""
        status, out, told = run_python(code, __EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent", MUJOCO_GL="egl")
        assert (status, told) == (0, "") and out.count("\n") == 1
        assert "MUJOCO_GL=egl" in out and "unset" in out and "Cannot initialize a" in out
