"""Files that grow while a run goes on. What cannot be written whole, as on a full disk, is not there at all."""

import contextlib
import errno
import json
import math
import os
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file. Nothing waits in a buffer: what `write` has taken survives the process.

    Args:
        path: of the file, which is made if it is not there. No link: in a stranger's run that could lead anywhere.

    Raises:
        OSError: here and in `write`.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for a reader
        descriptor = os.open(path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, f"{path.name} is no file")
        self._file = os.fdopen(descriptor, "ab", buffering=0)

    def write(self, piece: bytes) -> None:
        """Append the whole of `piece`, or raise and leave the file as it was."""
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(piece) != len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise

    def flush(self) -> None:
        """Do nothing: all is written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonLines:
    """A journal of one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # cut short by a crash: the next row must not be lost with that one
                    self._journal.write(b"\n")

    def write(self, *rows: dict[str, Any]) -> None:
        """Append `rows`, all or none."""
        self._journal.write("".join(f"{json_line(row)}\n" for row in rows).encode())

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


class Events:
    """A journal that TensorBoard reads.

    Its own `SummaryWriter` writes in a thread, which a full disk ends with a traceback.
    """

    def __init__(self, folder: Path) -> None:
        self._event, self._summary, writer = event_types()
        folder.mkdir(exist_ok=True)
        path = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._records = writer(Journal(path))
        try:
            self._write(file_version="brain.Event:2")
        except OSError:
            self.close()
            path.unlink()
            raise

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Append `values` at `step`."""
        scalars = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())


def event_types() -> tuple[Any, Any, Any]:
    """Return TensorBoard's event, summary and writer of records, imported when used: it takes a second."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
    from tensorboard.summary.writer.record_writer import RecordWriter

    return Event, Summary, RecordWriter


def json_line(row: dict[str, Any]) -> str:
    """Return `row` as JSON; what is not finite becomes null, since JSON has no NaN."""
    return json.dumps(_finite(row), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; what is no row, as a line cut short by a crash, is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]
