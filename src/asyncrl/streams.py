"""What is printed by whom: our own output, and whatever environments print meanwhile."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def others_on_stderr() -> Iterator[TextIO]:
    """Send to stderr what others print meanwhile, C code too; yield where our own output goes on."""
    ours = sys.stdout
    try:
        is_real = ours.fileno() == 1
    except (OSError, ValueError):  # of a notebook, or captured
        is_real = False
    if not is_real:
        with contextlib.redirect_stdout(sys.stderr):
            yield ours
        return
    ours.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        real = os.fdopen(os.dup(kept), "w", encoding=ours.encoding, errors=ours.errors)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield real
        finally:
            with contextlib.suppress(OSError):  # its reader has gone, which whoever wrote to it was told
                real.close()
    finally:
        ctypes.CDLL(None).fflush(None)  # what C code has printed waits in a buffer of its own
        os.dup2(kept, 1)
        os.close(kept)
