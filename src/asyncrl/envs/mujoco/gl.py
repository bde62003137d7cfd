"""Find an OpenGL that draws without a screen.

MuJoCo and PyOpenGL settle on a library when they are imported, and a wrong one stays: PyOpenGL keeps its platform, some
drivers end the process. So each candidate is tried in a process of its own before anything is loaded here.
"""

import atexit
import importlib
import os
import subprocess
import sys
import tempfile
import weakref
from typing import Any

from asyncrl.errors import MissingPackageError, UserError, install_command

INSTALL_COMMAND = install_command("mujoco")
APT_COMMAND = "apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri"
BACKENDS = ("egl", "osmesa", "glfw")  # in the order of trying
TRIAL_SECONDS = 120  # half a second of processor time: machines are shared
# What dm_control also takes: no drawing, and GLFW, which it imports without a screen as well.
_HARMLESS = ("off", "disable", "disabled", "false", "0", "glfw", "on", "enable", "enabled", "true", "1")
_WANTED, _FOUND = "MUJOCO_GL", "ASYNCRL_MUJOCO_GL"
_TRIAL = """
import mujoco
from mujoco.{} import GLContext
context = GLContext(8, 8)
context.make_current()
drawing = mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_50)
drawing.free()
context.free()
"""


def find_backend() -> str:
    """Return the library to draw with, one of `BACKENDS`, and set MUJOCO_GL to it for whoever else draws.

    MUJOCO_GL, if set, is the only candidate. Child processes find the answer in their environment and do not try again.

    Raises:
        UserError: if none works; says why and what to install.
    """
    wanted = os.environ.get(_WANTED, "").lower()
    if wanted and wanted == os.environ.get(_FOUND):
        return wanted
    if wanted and wanted not in BACKENDS:
        raise UserError(f"{_WANTED}={wanted} draws no pictures: unset it, or set it to {' or '.join(BACKENDS)}")
    failures = {}
    for backend in [wanted] if wanted else _candidates():
        failures[backend] = try_backend(backend)
        if not failures[backend]:
            os.environ[_WANTED] = os.environ[_FOUND] = backend
            return backend
    causes = "; ".join(f"{backend}: {cause}" for backend, cause in failures.items())
    if wanted:
        raise UserError(f"{_WANTED}={wanted} is set and does not work here ({causes}): unset it to try the others")
    raise UserError(
        f"MuJoCo finds no OpenGL to draw pictures with ({causes}); on Debian, as root: {APT_COMMAND} (or libosmesa6)"
    )


def foreign_wish() -> str:
    """Return what somebody else has set MUJOCO_GL to; "" if nobody has, or if it was `find_backend`."""
    wanted = os.environ.get(_WANTED, "")
    return "" if wanted == os.environ.get(_FOUND) else wanted


def why_not_wished() -> str:
    """Return why dm_control cannot be imported under somebody's MUJOCO_GL, or "": also where nothing is to be drawn."""
    wanted = foreign_wish()
    if not wanted or wanted in _HARMLESS:
        return ""
    if wanted not in BACKENDS:
        return f"{_WANTED}={wanted} is set, which dm_control does not know"
    cause = try_backend(wanted)
    return cause and f"{_WANTED}={wanted} is set and does not work here ({cause})"


def import_mujoco() -> Any:
    """Return the mujoco package.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import mujoco
    except ImportError as error:
        raise MissingPackageError(f"MuJoCo is not installed: {INSTALL_COMMAND}") from error
    return mujoco


def _candidates() -> tuple[str, ...]:
    has_screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return BACKENDS if has_screen else BACKENDS[:2]  # GLFW draws behind windows


def try_backend(backend: str) -> str:
    """Make a picture's context in another process; return why that failed, or ""."""
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo writes its log of errors where it runs
        try:
            done = subprocess.run(
                [sys.executable, "-c", _TRIAL.format(backend)],
                cwd=folder,
                env={**os.environ, _WANTED: backend},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=TRIAL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"no answer in {TRIAL_SECONDS} s"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return last.partition(". ")[0][:100] if done.returncode else ""


_contexts: dict[int, Any] = {}  # by process: a forked one finds its parent's here
_cameras: "weakref.WeakSet[Any]" = weakref.WeakSet()


def draw_here() -> None:
    """Make this process's OpenGL context the current one of this thread.

    All cameras of a process share it: switching between contexts costs half a millisecond a picture.

    Raises:
        UserError: if there is no OpenGL, or no more: after a fork its locks are held by threads that do not exist.
    """
    if os.getpid() not in _contexts:
        if _contexts:
            raise UserError(
                "this process was forked from one that had drawn pictures already, and OpenGL does not survive that: "
                'start processes by "forkserver" or "spawn", as in AsyncVectorEnv(..., context="forkserver")'
            )
        _contexts[os.getpid()] = _make_context()
        close_in_time()
    _contexts[os.getpid()].make_current()


def _make_context() -> Any:
    backend = find_backend()
    # Mesa's software renderer would start a thread a core; a worker has one. Where a GPU draws it means nothing.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    return importlib.import_module(f"mujoco.{backend}").GLContext(64, 64)  # cameras bring their own framebuffers


def close_at_exit(camera: Any) -> None:
    """See to it that `camera.close()` is called at the end of Python, while there still is a context."""
    _cameras.add(camera)


def close_in_time() -> None:
    """Close ours before anybody whom Python has been asked to end: EGL has one display, which others terminate."""
    atexit.unregister(_close)
    atexit.register(_close)


def _close() -> None:
    if os.getpid() in _contexts:
        for camera in list(_cameras):
            camera.close()
        _contexts.pop(os.getpid()).free()
