"""One training at a time in a run's folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from asyncrl.errors import UserError

_NAME = ".lock"


@contextlib.contextmanager
def holding(run_dir: Path) -> Iterator[None]:
    """Keep other trainings out of `run_dir` meanwhile.

    The system takes the lock back from a process that ends, however it ends. The file stays, with the number of the
    process that held it last. It may be no link: in a stranger's run that could lead to any file of the user's.

    Raises:
        UserError: if another training is at work there, or nothing can be written there.
    """
    try:
        descriptor = os.open(run_dir / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {run_dir}: {error.strerror}") from None
    try:
        _lock(descriptor, run_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        raise UserError(
            f"{run_dir} is being trained by process {holder or 'unknown'}: wait for its end, or stop it first"
        ) from None
    except OSError:
        return  # a file system without locks (some network ones): nobody can be kept out there
    with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
