"""Which worlds are installed here, and what installs the others: the verb `envs`."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from asyncrl.arguments import Flag, parse
from asyncrl.envs.mujoco.gl import APT_COMMAND as OPENGL_COMMAND
from asyncrl.envs.mujoco.gl import INSTALL_COMMAND as MUJOCO_COMMAND
from asyncrl.envs.mujoco.gl import find_backend, why_not_wished
from asyncrl.envs.registration import GYMNASIUM_MUJOCO, our_worlds
from asyncrl.envs.torcs.build import APT_COMMAND as TORCS_COMMAND
from asyncrl.envs.torcs.build import check_installed, host_path
from asyncrl.errors import UserError, install_command, python_command

FIRST_PYTHON_WITHOUT_DM_CONTROL = (3, 14)  # see pyproject.toml


@dataclass(frozen=True)
class World:
    """One kind of world, as it is on this machine."""

    name: str
    ids: tuple[str, ...]  # what `train` takes; the first is a good one to begin with
    found: str = ""  # what it runs on, with versions
    missing: str = ""  # why it cannot be used; "" where it can
    install: str = ""  # the command that brings it; "" where nothing does, or nothing need

    @property
    def installed(self) -> bool:
        """Whether it can be used."""
        return not self.missing


def list_worlds() -> list[World]:
    """Look for every kind of world. Takes a second: OpenGL is tried in another process."""
    return [
        _atari(),
        _packaged("Labyrinth", ("asyncrl/Labyrinth-v0",), ("vizdoom",), install_command("labyrinth")),
        _torcs(),
        _packaged("MuJoCo", _led_by("HalfCheetah-v5", _gymnasium_mujoco()), ("mujoco",), MUJOCO_COMMAND),
        _dm_control(),
        _mujoco_pixels(),
        _packaged("diagnostic", tuple(f"asyncrl/{name}-v0" for name in _DIAGNOSTIC), ("asyncrl", "numpy"), ""),
        _packaged("any other", ("CartPole-v1", "Pendulum-v1"), ("gymnasium",), ""),
    ]


_DIAGNOSTIC = ("Catch", "MemoryChain", "TimeLimitChain", "Target")


def _packaged(name: str, ids: tuple[str, ...], packages: tuple[str, ...], install: str) -> World:
    """Return a world that needs nothing but Python packages."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {_version(package)}")
        except PackageNotFoundError:
            return World(name, ids, missing=f"{package} is not installed", install=install)
    return World(name, ids, ", ".join(found), install=install)


def _version(package: str) -> str:
    if package == "asyncrl":  # also where it is used without being installed
        from asyncrl import __version__

        return __version__
    return version(package)


def _atari() -> World:
    world = _packaged("Atari", ("ALE/Pong-v5",), ("ale-py",), install_command("atari"))
    if not world.installed:
        return world
    import gymnasium

    try:
        import ale_py  # noqa: F401  (registers its ids)
    except Exception as error:  # installed for another Python or another system: whatever it raises
        missing = f"{world.found} cannot be imported: {' '.join(str(error).split())}"
        return dataclasses.replace(world, found="", missing=missing)

    games = [name for name in gymnasium.registry if name.startswith("ALE/")]
    return dataclasses.replace(world, ids=_led_by("ALE/Pong-v5", games))


def _led_by(first: str, ids: Iterable[str]) -> tuple[str, ...]:
    return (first, *(name for name in ids if name != first))


INCLUDE = Path("/usr/include")
_HEADERS = ("EGL/egl.h", "GL/gl.h")


def _torcs() -> World:
    build_command = f"{python_command()} -m asyncrl.envs.torcs"
    name, ids, install = "TORCS", ("asyncrl/Torcs-v0",), f"{TORCS_COMMAND} && {build_command}"
    try:
        found, is_built = f"torcs {check_installed()}", host_path().exists()
    except UserError as error:
        if TORCS_COMMAND in str(error):
            return World(name, ids, missing="Debian's package torcs is not installed", install=install)
        return World(name, ids, missing=str(error))  # another system, or another version: nothing to install
    if is_built:
        return World(name, ids, found, install=install)
    lacking = [name for name in _HEADERS if not (INCLUDE / name).exists()]
    lacking = lacking if shutil.which("g++") else ["g++", *lacking]
    if lacking:
        missing = f"there is no {' and no '.join(lacking)} to build its host with"
        return World(name, ids, missing=missing, install=install)
    return World(name, ids, f"{found}; its host is built at the first use, or by {build_command}", install=install)


def _gymnasium_mujoco() -> Iterable[str]:
    return (f"{name}-v5" for name in GYMNASIUM_MUJOCO)


def _dm_control() -> World:
    tasks = (name for name in our_worlds() if name.startswith("dm_control/") and "-pixels-" not in name)
    ids = _led_by("dm_control/cartpole-swingup-v0", tasks)
    world = _packaged("dm_control", ids, ("dm_control", "mujoco"), MUJOCO_COMMAND)
    if not world.installed and sys.version_info >= FIRST_PYTHON_WITHOUT_DM_CONTROL:
        return dataclasses.replace(world, missing="dm_control cannot be installed for this Python", install="")
    if world.installed and int(version("mujoco").partition(".")[0]) >= 4:
        return dataclasses.replace(world, found="", missing=f"mujoco {version('mujoco')} is too new for dm_control")
    if world.installed and (why := why_not_wished()):
        return dataclasses.replace(world, found="", missing=why, install="unset MUJOCO_GL")
    return world


def _mujoco_pixels() -> World:
    names = [name for name in our_worlds() if "-pixels-" in name]
    ids = _led_by("dm_control/cartpole-swingup-pixels-v0", names)
    if not _dm_control().installed:
        ids = _led_by("asyncrl/HalfCheetah-pixels-v5", (name for name in names if not name.startswith("dm_control/")))
    world = _packaged("MuJoCo pixels", ids, ("mujoco",), MUJOCO_COMMAND)
    if not world.installed:
        return world
    try:
        return dataclasses.replace(world, found=f"{world.found}, drawn by {find_backend()}", install=OPENGL_COMMAND)
    except UserError as error:
        install = OPENGL_COMMAND if OPENGL_COMMAND in str(error) else "unset MUJOCO_GL"
        missing = str(error).partition("; on Debian")[0]
        return dataclasses.replace(world, found="", missing=missing, install=install)


@dataclass(frozen=True)
class EnvsArguments:
    """List the worlds: what is installed, and the command that installs what is missing."""

    # Report in JSON, a world a line, with all of its ids.
    json: Flag = False


def envs_verb(args: Sequence[str]) -> int:
    """List the worlds."""
    given = parse(EnvsArguments, args, "asyncrl envs", EnvsArguments())
    for world in list_worlds():
        if given.json:
            print(json.dumps({**dataclasses.asdict(world), "installed": world.installed}))
        else:
            print(as_text(world))
    return 0


def as_text(world: World) -> str:
    """Return what is told to people: a line where it is installed, else three."""
    first, *others = world.ids
    more = f" and {len(others)} more" if others else ""
    title = f"{world.name:14}{'installed' if world.installed else 'missing':11}{first}{more}"
    if world.installed:
        return f"{title} ({world.found})"
    return "\n".join([title, *(f"{'':25}{line}" for line in (world.missing, world.install) if line)])
