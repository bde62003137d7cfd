"""Starting and ending the Doom engine's process so that nothing of it outlives us, and nothing fails unexplained."""

import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from asyncrl.envs.labyrinth.wad import MIN_SLOT_BYTES, make_wad
from asyncrl.errors import MissingPackageError, install_command

REHEARSAL_SECONDS = 120  # far more than the half second it takes: machines are shared

# ViZDoom starts this in place of the engine. It keeps the engine's files and messages in our folder, lets
# Python alone decide about signals, and clears up when the pipe `alive` closes because Python was killed.
LAUNCHER = """#!/bin/sh
exec 2>/dev/null
trap '' INT TERM HUP
cd {folder} || exit 1
for word in "$@"; do
  [ "$last" = "+viz_instance_id" ] && id=$word
  last=$word
done
exec 3<alive
{engine} "$@" >>engine.log 2>&1 3<&- &
engine=$!
# In a shell of its own, so that it is nobody's child: whoever ends all that Python has started leaves it.
( {{ read -r _ <&3; rm -f "/dev/shm/ViZDoomSM$id" "/dev/shm/ViZDoomMQCtr$id" "/dev/shm/ViZDoomMQDoom$id"
   rm -rf {folder}; kill -9 "$engine"; }} & echo $! >watch )
exec 3<&-
wait "$engine"
code=$?
kill -9 "$(cat watch)"
echo "exit code $code" >>engine.log
exit "$code"
"""


class EngineError(RuntimeError):
    """The Doom engine did not start, or ended; the message names the cause. A new reset starts another."""


def import_vizdoom() -> Any:
    """Return the vizdoom package, or say in one line how to get it."""
    try:
        import vizdoom
    except ImportError as error:
        raise MissingPackageError(f"asyncrl/Labyrinth-v0 needs ViZDoom: {install_command('labyrinth')}") from error
    return vizdoom


def open_lifeline(folder: Path) -> int:
    """Return an open pipe whose other end the launcher reads: it ends when this process does, however it dies."""
    os.mkfifo(folder / "alive")
    return os.open(folder / "alive", os.O_RDWR)  # both ways, because opening to write alone waits for a reader


def write_launcher(folder: Path, engine: Path) -> Path:
    """Write the program that ViZDoom starts in place of the engine, and return its path."""
    launcher = folder / "start"
    launcher.write_text(LAUNCHER.format(folder=shlex.quote(str(folder)), engine=shlex.quote(str(engine))))
    launcher.chmod(0o755)
    if not os.access(launcher, os.X_OK):
        raise EngineError(f"programs may not run in {folder.parent}: set TMPDIR to a folder where they may")
    return launcher


@functools.cache
def rehearse(engine: Path, data: Path) -> None:
    """Let the engine read our file once and end, in a process that may crash.

    A fault found while ViZDoom starts the engine ends Python by a segmentation fault without a word. Costs
    0.15 s of processor time, once per process.

    Raises:
        EngineError: with the engine's own message, if it does not get as far as the game.
    """
    with tempfile.TemporaryDirectory(prefix="asyncrl-labyrinth-") as folder:
        wad = Path(folder) / "labyrinth.wad"
        wad.write_bytes(make_wad(MIN_SLOT_BYTES)[0])
        command = [str(engine), "-iwad", str(data), "-file", str(wad), "-config", f"{folder}/config.ini"]
        command += [
            "-norun",
            "-nosound",
            "-nojoy",
            "+viz_nosound",
            "1",
            "+viz_window_hidden",
            "1",
            "+viz_noxserver",
            "1",
        ]
        try:
            result = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=REHEARSAL_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"the Doom engine cannot run: {error}") from error
    words = result.stdout.decode(errors="replace")
    # It never returns 0 here; the network check is the last thing it announces before the game.
    if "D_CheckNetGame" not in words:
        raise EngineError(f"the Doom engine cannot read our file: {quote_last(words)} (exit code {result.returncode})")


def clean_up(folder: Path, alive: int, games: list[Any], owner: int) -> None:
    """Close the engine and remove its folder; a forked copy of this process must not close its parent's."""
    if os.getpid() != owner:
        return
    for game in games:
        game.close()
    os.close(alive)
    shutil.rmtree(folder, ignore_errors=True)


class NamingTheCause:
    """Turn an exception of ViZDoom into an `EngineError` that quotes the engine's last words."""

    def __init__(self, doing: str, log: Path, vizdoom: ModuleType):
        self._doing, self._log, self._vizdoom = doing, log, vizdoom

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and type(error).__module__.startswith("vizdoom"):
            raise EngineError(
                f"the Doom engine failed while {self._doing}: {error} ({read_cause(self._log)})"
            ) from error


def read_cause(log: Path) -> str:
    """Return the last words of an engine's log, its exit code among them."""
    try:
        return quote_last(log.read_text(errors="replace"))
    except OSError:
        return "it left no log"


def quote_last(words: str) -> str:
    """Return the last three lines of a text as one."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return "; ".join(lines[-3:])[-400:] or "it said nothing"
