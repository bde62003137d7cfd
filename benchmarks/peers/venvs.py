"""One pinned virtual environment per peer, under benchmarks/.peers/: made once, made anew when its pins change.

`<name>.txt` beside this file lists every package, torch first. torch is installed alone, since its own index need not
have the others; the rest without looking for dependencies, since the pins are complete and some contradict what old
packages ask for.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent / ".peers"
ROMS_FROM = "ale-py==0.12.1"  # the first ale-py with ROMs inside is newer than the one Sample Factory needs


class InstallFailed(Exception):
    """A peer's environment cannot be made here; the message says why in one line."""


def python_of(name: str, say: Callable[[str], None]) -> Path:
    """Return the interpreter of the peer `name`, after making its environment if need be.

    Raises:
        InstallFailed: if a package cannot be installed.
    """
    pins, venv = HERE / f"{name}.txt", ROOT / name
    made_from = f"{sys.version}\n{pins.read_text()}"
    marker, python = venv / ".made-from", venv / "bin" / "python"
    if marker.exists() and marker.read_text() == made_from:
        return python
    say(f"{name}: making {venv.relative_to(HERE.parent.parent)}")
    shutil.rmtree(venv, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(venv))
    first, tools, rest = _split(pins.read_text())
    index = os.environ.get("TORCH_INDEX")
    _pip(python, *(("--index-url", index) if index else ()), *first)
    _pip(python, *tools)
    _pip(python, *rest)
    if any(line.startswith("ale-py==0.8.1") for line in rest):
        _add_roms(python)
    marker.write_text(made_from)
    return python


def _split(pins: str) -> tuple[list[str], list[str], list[str]]:
    """Return torch, what others are built with, and the others."""
    lines = [line.partition("#")[0].strip() for line in pins.splitlines()]
    lines = [line for line in lines if line]
    tools = [line for line in lines if line.startswith(("setuptools", "wheel"))]
    return lines[:1], tools, [line for line in lines[1:] if line not in tools]


def _pip(python: Path, *packages: str) -> None:
    if packages:
        _run(
            str(python),
            *("-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-build-isolation"),
            *packages,
        )


def _add_roms(python: Path) -> None:
    """Copy the games of a newer ale-py beside the old one, which has none."""
    where = _run(
        str(python), "-c", "import importlib.util as u; print(u.find_spec('ale_py').submodule_search_locations[0])"
    )
    with tempfile.TemporaryDirectory() as folder:
        _pip(python, "--target", folder, ROMS_FROM)
        for rom in Path(folder, "ale_py", "roms").glob("*.bin"):
            shutil.copy(rom, Path(where.strip(), "roms"))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines() or ["no message"]
        )
        raise InstallFailed(lines[-1].strip())
    return done.stdout
