"""The exceptions for what a user can mend."""

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

LONGEST = 200  # characters of somebody's text in a line


class UserError(Exception):
    """A mistake in what the user asked: one line saying what is wrong and what to do. The command line exits with 2."""


class MissingPackageError(UserError, ImportError):
    """A package is not installed; the line names the command that installs it."""


class DivergedError(UserError):
    """Numbers that learning made, a gradient or what the network puts out, are no longer finite."""

    def __init__(self, what: str) -> None:
        super().__init__(f"learning diverged: {what} is no finite number any more; use a lower --learning-rate")


def require_place(path: Path) -> None:
    """Complain of a file that cannot be written later, before the work that it is to hold."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"cannot write {path}: permission denied")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:  # root, who may write anywhere, cannot make files in /proc
        raise UserError(f"cannot write {path}: no file can be made in its folder ({error.strerror})") from None


def shortened(text: str) -> str:
    """Return `text`, which may be a stranger's, on one line of a bearable length."""
    return repr(text if len(text) <= LONGEST else text[:LONGEST] + "...")


def python_command() -> str:
    """Return what calls the Python that runs: by name where the shell finds this one so, otherwise by its path."""
    found = shutil.which("python")
    is_ours = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return "python" if is_ours else shlex.quote(sys.executable)


def install_command(extra: str) -> str:
    """Return what installs an extra of asyncrl beside the Python that runs."""
    found = shutil.which("pip")
    is_ours = found is not None and Path(found).parent == Path(sys.executable).parent
    return f"{'pip' if is_ours else f'{shlex.quote(sys.executable)} -m pip'} install 'asyncrl[{extra}]'"


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn whatever the code of others raises meanwhile into one line: `what`, the exception, and where it was raised.

    Raises:
        UserError: instead of any other exception, which is its cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = " ".join(traceback.format_exception_only(error)[-1].split())
        raise UserError(f"{what}: {told} ({where.filename}, line {where.lineno})") from error
