"""`asyncrl/HalfCheetah-pixels-v5` and its like: Gymnasium's MuJoCo tasks from pictures.

Gymnasium itself can be asked for pictures (`AddRenderObservation`), but shadows and smoothed edges then take a software
renderer 20 times as long, and the view stays where the episode began while the cheetah runs away.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from asyncrl.envs.mujoco.camera import RENDER_PIXELS, Camera, fixed_view, free_view
from asyncrl.envs.mujoco.dm_control import check_options, quiet
from asyncrl.envs.mujoco.gl import find_backend

# Where no camera of the model follows the body: near enough for 84 pixels, and nothing leaves the picture.
# (the point looked at in m, distance in m, degrees above the horizon)
VIEWS = {
    "InvertedPendulum-v5": ((0.0, 0.0, 0.2), 2.7, 0.0),
    "InvertedDoublePendulum-v5": ((0.0, 0.0, 0.5), 3.0, 0.0),
    "Pusher-v5": ((0.45, -0.2, -0.2), 2.2, 50.0),
    "Reacher-v5": ((0.0, 0.0, 0.0), 0.62, 90.0),
}


class PixelsEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task of Gymnasium's, seen through a camera that follows the body. All else is as there: rewards, ends, info.

    Args:
        task: id of the task, "HalfCheetah-v5".
        size: pixels along each side of an observed picture.
        camera: number or name of a camera of the model; None follows the body, or looks as `VIEWS` has it.
        frame_skip: how often an action is repeated (each lasts several physics steps already); rewards add up.
        render_mode: None or "rgb_array".

    Raises:
        UserError: if nothing can draw, or an option is impossible; says what to do.
        gymnasium.error.DependencyNotInstalled: without MuJoCo.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  (Gymnasium's form)

    def __init__(
        self,
        task: str,
        *,
        size: int = 84,
        camera: int | str | None = None,
        frame_skip: int = 1,
        render_mode: str | None = None,
    ) -> None:
        frame_skip = check_options(frame_skip, size, render_mode)
        with quiet():
            self._env = gymnasium.make(task, disable_env_checker=True)
        find_backend()  # here, so that a machine without OpenGL shows when the environment is made
        world: Any = self._env.unwrapped
        self._frame_skip, self.render_mode = frame_skip, render_mode
        self.metadata = {**self.metadata, "render_fps": 1 / (frame_skip * world.dt)}
        if camera is None and task in VIEWS:
            view = free_view(*VIEWS[task])
        else:
            view = fixed_view(world.model, "track" if camera is None else camera)
        self._eye, self._film = Camera(size, quick=True), Camera(RENDER_PIXELS, quick=False)
        for camera_ in (self._eye, self._film):
            camera_.aim(world.model, world.data, view)
        self.action_space = self._env.action_space
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; `seed` fixes this and all to come."""
        super().reset(seed=seed)
        _, info = self._env.reset(seed=seed, options=options)
        return self._eye.take_picture(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Apply `action` for `frame_skip` steps, or until the episode ends."""
        total, terminated, truncated, info = 0.0, False, False, {}
        for _ in range(self._frame_skip):
            _, reward, terminated, truncated, info = self._env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return self._eye.take_picture(), total, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Return a picture for people, uint8 [480, 480, 3], with shadows; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() shows nothing: make the environment with render_mode='rgb_array'")
            return None
        return self._film.take_picture()

    def close(self) -> None:
        """Free the cameras. May be called more than once."""
        self._eye.close()
        self._film.close()
        self._env.close()
