"""Compile the TORCS host into the user's cache, once per version of its source.

Nothing is compiled when asyncrl is installed: `build_host` does it, called by the first environment or by hand
(`python -m asyncrl.envs.torcs`).
"""

import hashlib
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from asyncrl.errors import UserError
from asyncrl.machine import cache_folder, compiled_once

APT_COMMAND = (
    "apt-get update && apt-get install -y --no-install-recommends "
    "torcs g++ libegl-dev libgl-dev libegl-mesa0 libgl1-mesa-dri"
)
# torcs_abi.h holds the binary layout of exactly this version; the rest of the string is Debian's packaging.
TESTED_VERSION = "1.3.7+dfsg-5"
DRIVER_FOLDER = Path(__file__).parent / "driver"
LIBRARY_FOLDER = Path("/usr/lib/x86_64-linux-gnu/torcs")
DATA_FOLDER = Path("/usr/share/games/torcs")

_SOURCES = ("driver.cpp", "screen.cpp", "world.cpp")
_HEADERS = ("screen.h", "torcs_abi.h", "world.h")
_COMPILE = ("-O2", "-std=c++17", "-w", "-rdynamic", "-pthread")  # -rdynamic: see the stand-ins in screen.cpp
# Robot modules do not name the libraries they need, hence --no-as-needed; DT_RPATH (--disable-new-dtags) is also
# searched for the libraries of libraries. The libraries named by file have no -dev package installed.
_LINK = (
    f"-L{LIBRARY_FOLDER}/lib", "-Wl,--no-as-needed", "-ltgf", "-ltgfclient", "-lrobottools", "-ltxml",
    "-Wl,--disable-new-dtags", f"-Wl,-rpath,{LIBRARY_FOLDER}/lib", "-lEGL", "-lGL",
    "-l:libGLU.so.1", "-l:libplibsg.so.1", "-l:libplibul.so.1", "-l:libplibssg.so.1", "-l:libglut.so.3.12",
    "-l:libpng16.so.16", "-l:libXrandr.so.2", "-l:libX11.so.6", "-ldl", "-lm",
)  # fmt: skip


@cache
def check_installed() -> str:
    """Return the installed version of Debian's torcs package.

    Raises:
        UserError: if the machine or the package is not the one that the host is written for.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UserError(f"asyncrl/Torcs-v0 needs Linux on amd64, and this is {platform.system()} {platform.machine()}")
    if not (LIBRARY_FOLDER / "modules").is_dir() or not (DATA_FOLDER / "tracks").is_dir():
        raise UserError(f"TORCS is not installed; on Debian 12, as root: {APT_COMMAND}")
    version = _package_version()
    if not version.startswith(TESTED_VERSION):
        raise UserError(
            f"asyncrl/Torcs-v0 needs Debian's torcs {TESTED_VERSION}*, and {version or 'another build'} is installed"
        )
    return version


def _package_version() -> str:
    try:
        query = ["dpkg-query", "-W", "-f=${Version}", "torcs"]
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def host_path() -> Path:
    """Return where the host of this source is, or would be."""
    digest = hashlib.sha256(" ".join((check_installed(), *_COMPILE, *_LINK)).encode())
    for name in _SOURCES + _HEADERS:
        digest.update((DRIVER_FOLDER / name).read_bytes())
    return cache_folder("torcs") / f"torcs-host-{digest.hexdigest()[:16]}"


def build_host(*, force: bool = False) -> Path:
    """Compile the host unless it is there already, and return its path. Takes about 5 seconds.

    Args:
        force: compile even if the cache has it.

    Raises:
        UserError: if TORCS or a compiler is missing, or the compiler fails.
    """
    return compiled_once(host_path(), _compile, anew=force)


def _compile(output: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        raise UserError(f"building the TORCS host needs g++; on Debian 12, as root: {APT_COMMAND}")
    sources = [str(DRIVER_FOLDER / name) for name in _SOURCES]
    command = [compiler, *_COMPILE, *sources, "-o", str(output), *_LINK]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:  # a file that is no program
        raise UserError(f"{compiler} cannot be run: {error.strerror}") from None
    if result.returncode != 0:
        errors = [line for line in result.stderr.splitlines() if "error" in line or "cannot find" in line]
        why = (errors or result.stderr.splitlines() or ["no message"])[0]
        raise UserError(f"g++ could not build the TORCS host: {why}; are all packages there? {APT_COMMAND}")
