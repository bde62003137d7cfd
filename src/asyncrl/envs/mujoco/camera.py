"""Draw a MuJoCo model into an array, off screen."""

from typing import Any, NamedTuple

import numpy as np

from asyncrl.envs.mujoco.gl import close_at_exit, draw_here, import_mujoco
from asyncrl.envs.options import OptionError, require_whole

MAX_GEOMS = 2000  # shapes in a scene; the suite's largest have some hundreds
MAX_PIXELS = 4096  # along a side
RENDER_PIXELS = 480  # along a side of pictures for people, as Gymnasium has it


def check_size(size: int) -> int:
    """Return the side of a picture; raise `OptionError` if it cannot be one."""
    return require_whole("size", size, 8, MAX_PIXELS)


class _Drawing(NamedTuple):
    """What one camera holds of MuJoCo and OpenGL."""

    scene: Any
    context: Any  # the model's textures and meshes, and a framebuffer
    option: Any
    perturbation: Any


class Camera:
    """Takes pictures of a simulation that it is aimed at. Nothing is loaded before the first one; `close` frees all.

    Pictures must be taken in the thread that took the first.

    Args:
        size: pixels along each side of a picture.
        quick: without shadows, reflections and smoothed edges, which take a software renderer 25 times as long.
    """

    def __init__(self, size: int, *, quick: bool) -> None:
        size, self._quick = check_size(size), quick
        self._buffer = np.empty((size, size, 3), np.uint8)
        self._model: Any = None
        self._data: Any = None
        self._view: Any = None
        self._drawing: _Drawing | None = None

    def aim(self, model: Any, data: Any, view: Any) -> None:
        """Look at another simulation, or at one whose textures or landscape have changed.

        Args:
            model: mujoco.MjModel.
            data: mujoco.MjData, drawn as it is at the time of a picture.
            view: mujoco.MjvCamera: from where.
        """
        self.close()
        self._model, self._data, self._view = model, data, view

    def take_picture(self) -> np.ndarray:
        """Return a new picture, uint8 [size, size, 3].

        Raises:
            UserError: if there is no OpenGL (any more: see `draw_here`).
        """
        mujoco = import_mujoco()
        draw_here()
        if self._drawing is None:
            self._drawing = self._prepare()
            close_at_exit(self)
        scene, context, option, perturbation = self._drawing
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, self._data, option, perturbation, self._view, everything, scene)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)  # another camera's may be bound
        rectangle = mujoco.MjrRect(0, 0, *self._buffer.shape[:2])
        mujoco.mjr_render(rectangle, scene, context)
        mujoco.mjr_readPixels(self._buffer, None, rectangle, context)
        return self._buffer[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free what the pictures needed. May be called more than once."""
        if self._drawing is not None:
            draw_here()
            self._drawing.context.free()
            self._drawing = None

    def _prepare(self) -> _Drawing:
        mujoco = import_mujoco()
        scene = mujoco.MjvScene(self._model, MAX_GEOMS)
        whole, quality = self._model.vis.global_, self._model.vis.quality
        before = whole.offwidth, whole.offheight, quality.shadowsize, quality.offsamples
        # The context copies these, so the model is left as it was: several cameras may look at it.
        whole.offwidth, whole.offheight = self._buffer.shape[:2]
        if self._quick:
            quality.shadowsize = quality.offsamples = 0
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                scene.flags[flag] = 0
        context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        whole.offwidth, whole.offheight, quality.shadowsize, quality.offsamples = before
        return _Drawing(scene, context, mujoco.MjvOption(), mujoco.MjvPerturb())


def fixed_view(model: Any, camera: int | str) -> Any:
    """Return the view of a model's own camera, by number or name.

    Raises:
        UserError: if the model has no such camera; lists those it has.
    """
    mujoco = import_mujoco()
    names = [model.camera(i).name for i in range(model.ncam)]
    number = names.index(camera) if camera in names else camera
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < model.ncam:
        cameras = f"0 to {model.ncam - 1} are {', '.join(names)}" if names else "the model has none of its own"
        raise OptionError(f"there is no camera {camera!r}: {cameras}")
    view = mujoco.MjvCamera()
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, number
    return view


def free_view(point: tuple[float, float, float], distance: float, elevation: float) -> Any:
    """Return a view of `point` from `distance` metres off and `elevation` degrees above the horizon."""
    mujoco = import_mujoco()
    view = mujoco.MjvCamera()
    view.lookat[:] = point
    view.distance, view.elevation, view.azimuth = distance, -elevation, 90.0
    return view
