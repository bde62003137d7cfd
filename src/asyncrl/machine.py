"""What this machine lets us use: cores, disks, a cache for what we compile."""

import contextlib
import errno
import fcntl
import math
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from asyncrl.errors import UserError

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # that a file system can sync
ENOUGH_FILES = 8192  # that may be open: each worker takes three of the trainer's, and the usual limit is 1,024
CONTROL_GROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Return the CPU cores this process may use (affinity and the container's quota, not the machine's total)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield how many cores each control group that holds this process may use, where it says so."""
    try:
        groups = [line.split(":", 2) for line in MEMBERSHIP.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if not controllers:  # version 2
            top, names = CONTROL_GROUPS, ("cpu.max",)
        elif "cpu" in controllers.split(","):
            top, names = CONTROL_GROUPS / controllers, ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            if not top.is_dir():  # "cpuacct,cpu" may lie in "cpu,cpuacct", to which "cpu" is a link
                top = CONTROL_GROUPS / "cpu"
        else:
            continue
        inner = top / path.lstrip("/")  # in a container it may not be there, but what holds it
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                yield from _quota(folder, names)


def _quota(folder: Path, names: tuple[str, ...]) -> Iterator[float]:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # not there, or "max"
        quota, period = " ".join((folder / name).read_text() for name in names).split()
        if int(quota) > 0:  # version 1: -1 is no limit
            yield int(quota) / int(period)


def raise_file_limit() -> None:
    """Let this process and those that it starts have as many files open as many workers take, where they may."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descendants(*pids: int) -> list[int]:
    """Return the processes that `pids` and those have started and that live; none where there is no /proc."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has just ended
                parents[int(name)] = int(Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()[1])
    found = list(pids)
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[len(pids) :]


def end_at_once(find: Callable[[], Iterable[int]]) -> None:
    """End the processes that `find` returns; stopped first, until it finds no more: none shall start another unseen."""
    found: set[int] = set()
    while new := set(find()) - found:
        _send(signal.SIGSTOP, new)
        found |= new
    _send(signal.SIGKILL, found)


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            os.kill(pid, number)


def sync(path: Path) -> None:
    """Have what was written to `path` on the disk; where folders cannot be synced (some network drives), not those."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDERS or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def cache_folder(name: str) -> Path:
    """Return the folder of the user's cache for what we compile under `name`; it need not exist.

    Raises:
        UserError: if the user has no home.
    """
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise UserError("there is no home folder to keep compiled code in: set XDG_CACHE_HOME") from None
    return caches / "asyncrl" / name


def compiled_once(path: Path, compile_to: Callable[[Path], None], *, anew: bool = False) -> Path:
    """Return `path`, a file in the user's cache, after having it compiled unless it is there.

    Args:
        path: of the file. Processes that want it at once compile it once, and it is there whole or not at all.
        compile_to: writes the file to another path.
        anew: compile even if it is there.

    Raises:
        UserError: if the cache cannot be written.
    """
    if _is_whole(path) and not anew:
        return path
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if anew or not _is_whole(path):
                with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as aside:
                    output = Path(aside) / path.name
                    compile_to(output)
                    sync(output)  # or a power failure may leave the name without what it names
                    output.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); set XDG_CACHE_HOME") from None
    return path


def _is_whole(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
