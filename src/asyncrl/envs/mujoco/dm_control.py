"""`dm_control/cartpole-swingup-v0` and its like: dm_control's suite and manipulation as Gymnasium environments."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from asyncrl.envs.mujoco.camera import RENDER_PIXELS, Camera, check_size, fixed_view
from asyncrl.envs.mujoco.gl import INSTALL_COMMAND, close_in_time, find_backend, foreign_wish, import_mujoco
from asyncrl.envs.options import require_choice, require_whole
from asyncrl.errors import MissingPackageError, UserError

MANIPULATION = "manipulation"
CAMERAS = {"quadruped": 2}  # the one that follows it; elsewhere camera 0 shows what matters
TIME_LIMITS = {"lqr": 30.0}  # seconds: the suite itself sets none there, elsewhere 1,000 steps nearly everywhere
DRAWS = {("quadruped", "escape")}  # dm_control hands its landscape to OpenGL at each reset, seen or not
MAX_FRAME_SKIP = 1000


class DmControlEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of dm_control. See docs/continuous.md for what is observed, rewarded and when it ends.

    An episode that reaches its time limit is truncated. One that the task itself ends with discount 0 is terminated,
    and so is one whose physics diverges: the last sound observation again, reward 0 and info["physics_error"].

    Args:
        domain: as in dm_control.suite.load, "cartpole"; or "manipulation".
        task: likewise, "swingup"; or as in dm_control.manipulation.load, "reach_site_features".
        pixels: observe pictures instead of the state.
        size: pixels along each side of an observed picture.
        camera: number or name of a camera of the model; None takes the usual one.
        frame_skip: how often an action is repeated; rewards add up.
        render_mode: None or "rgb_array".

    Raises:
        UserError: if dm_control is missing, nothing can draw, or an option is impossible; says what to do.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  (Gymnasium's form)

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        pixels: bool = False,
        size: int = 84,
        camera: int | str | None = None,
        frame_skip: int = 1,
        render_mode: str | None = None,
    ) -> None:
        frame_skip = check_options(frame_skip, size, render_mode)
        if pixels or render_mode is not None or (domain, task) in DRAWS:
            find_backend()  # here, before dm_control chooses, and so that a machine without OpenGL shows at once
        self._env = load_task(domain, task)
        self._random = self._env.random_state if domain == MANIPULATION else self._env.task.random
        self._physics_error = _physics_error()
        self._repeats, self.render_mode = range(frame_skip - 1), render_mode
        self.metadata = {**self.metadata, "render_fps": 1 / (frame_skip * self._env.control_timestep())}
        self._camera = CAMERAS.get(domain, 0) if camera is None else camera
        self._eye = Camera(size, quick=True) if pixels else None
        self._film = Camera(RENDER_PIXELS, quick=False)
        self._aim()
        # Manipulation compiles its model anew for each episode, quadruped-escape draws a landscape.
        self._world_changes = domain == MANIPULATION or self.physics.model.nhfield > 0
        self.action_space = make_action_space(self._env.action_spec())
        self._state, self._parts = make_flat_state(self._env.observation_spec())
        self.observation_space = (
            spaces.Box(0, 255, (size, size, 3), np.uint8)
            if pixels
            else spaces.Box(-np.inf, np.inf, self._state.shape, np.float32)
        )
        self._observation = self._state
        self._seeded, self._over = False, True

    @property
    def physics(self) -> Any:
        """The simulation, dm_control's `Physics`."""
        return self._env.physics

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; `seed` fixes this and all to come."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._random.seed(self.np_random.integers(2**32, dtype=np.uint32))
            self._seeded = True
        self._over = False
        with quiet():  # manipulation tells of every posture that it tried for the arm
            state = self._env.reset().observation
        if self._world_changes:
            self._aim()
        self._observation = self._observe(state)
        return self._observation, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Apply `action` for `frame_skip` control steps, or until the episode ends."""
        if self._over:
            raise gymnasium.error.ResetNeeded("call reset() first: no episode is under way")
        try:
            moment = self._env.step(action)
            reward = float(moment.reward)
            for _ in self._repeats:
                if moment.last():
                    break
                moment = self._env.step(action)
                reward += float(moment.reward)
        except self._physics_error as error:
            self._over = True
            return self._observation, 0.0, True, False, {"physics_error": str(error)}
        self._observation = self._observe(moment.observation)
        if not moment.last():
            return self._observation, reward, False, False, {}
        self._over = True
        terminated = moment.discount == 0
        return self._observation, reward, terminated, not terminated, {}

    def render(self) -> np.ndarray | None:
        """Return a picture for people, uint8 [480, 480, 3], with shadows; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() shows nothing: make the environment with render_mode='rgb_array'")
            return None
        return self._film.take_picture()

    def close(self) -> None:
        """Free the cameras. May be called more than once."""
        for camera in (self._eye, self._film):
            if camera is not None:
                camera.close()

    def _aim(self) -> None:
        model, data = self.physics.model.ptr, self.physics.data.ptr
        view = fixed_view(model, self._camera)
        for camera in (self._eye, self._film):
            if camera is not None:
                camera.aim(model, data, view)

    def _observe(self, state: dict[str, Any]) -> np.ndarray:
        if self._eye is not None:
            return self._eye.take_picture()
        for name, part in self._parts:
            part[...] = state[name]
        return self._state.copy()


def load_task(domain: str, task: str) -> Any:
    """Return a task as it comes, a dm_env.Environment.

    Raises:
        UserError: if dm_control is not installed, or is one that MuJoCo has left behind.
    """
    # The seed is of the model alone: lqr draws its masses and springs, and a task shall always be the same.
    options: dict[str, float] = {"random": 0}
    if domain in TIME_LIMITS:
        options["time_limit"] = TIME_LIMITS[domain]
    try:
        with quiet():
            if domain == MANIPULATION:
                from dm_control import manipulation

                return manipulation.load(task, seed=0)
            from dm_control import suite

            return suite.load(domain, task, task_kwargs=options)
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"dm_control/{domain}-{task}-v0 needs dm_control: {INSTALL_COMMAND}") from error
    except ValueError as error:
        raise UserError(f"dm_control has no dm_control/{domain}-{task}-v0: {error}") from error
    except (ImportError, AttributeError, RuntimeError) as error:
        if foreign_wish():  # it looks for the OpenGL that it is told to use, also where nothing is drawn
            raise UserError(
                f"dm_control cannot be loaded while MUJOCO_GL={foreign_wish()} is set ({error}): unset it, or set it "
                "to a library that is installed: egl, osmesa or glfw"
            ) from error
        if not isinstance(error, AttributeError):
            raise UserError(f"dm_control cannot be loaded: {error}") from error
        versions = f"dm_control {version('dm_control')} and mujoco {version('mujoco')}"
        raise UserError(
            f"{versions} do not fit together ({error}): {INSTALL_COMMAND} chooses a pair that does"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings: that GLFW, the last resort, has no screen, and what is dated in a model's file."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        absl.setLevel(level)
        close_in_time()  # dm_control asks Python to end its OpenGL


def _physics_error() -> type[Exception]:
    from dm_control.rl.control import PhysicsError

    return PhysicsError


def make_flat_state(specs: dict[str, Any]) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Return a vector for all that is observed, float32, and its parts with their names, in the order of `specs`.

    Writing into the parts takes a quarter of the time of `np.concatenate`, a tenth of a small task's step.
    """
    sizes = [int(np.prod(spec.shape)) for spec in specs.values()]
    vector = np.zeros(sum(sizes), np.float32)
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    parts = zip(specs.items(), pieces, strict=True)
    return vector, [(name, piece.reshape(spec.shape)) for (name, spec), piece in parts]


def make_action_space(spec: Any) -> spaces.Box:
    """Return the space of a dm_env action specification; actuators without limits, 1e10 there, have none here."""
    mujoco = import_mujoco()
    low, high = (np.broadcast_to(bound, spec.shape) for bound in (spec.minimum, spec.maximum))
    low, high = np.where(low <= -mujoco.mjMAXVAL, -np.inf, low), np.where(high >= mujoco.mjMAXVAL, np.inf, high)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def check_options(frame_skip: int, size: int, render_mode: str | None) -> int:
    """Return `frame_skip`; raise `OptionError` unless the options that all our MuJoCo worlds share make sense."""
    require_choice("render_mode", render_mode, (None, "rgb_array"))
    check_size(size)
    return require_whole("frame_skip", frame_skip, 1, MAX_FRAME_SKIP)
