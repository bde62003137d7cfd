"""How child processes start. No torch here: a command has them load theirs while it loads its own."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext, ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from asyncrl.envs.atari import rom_name
from asyncrl.envs.make import is_atari
from asyncrl.errors import UserError
from asyncrl.machine import descendants, end_at_once, raise_file_limit


def mmap_threshold(libc: str) -> int:
    """Return the largest block in bytes that malloc can be told to keep, given what the C library calls itself.

    glibc before 2.35 refuses more than 32 MiB; what else we set would then leave it at 128 KiB for good.
    """
    name, _, version = libc.partition(" ")
    release = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    return 1 << (25 if name == "glibc" and release < [2, 35] else 30)


def _libc() -> str:
    with contextlib.suppress(ValueError, OSError, AttributeError):  # no such name: not glibc, which alone reads these
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""


# These keep rollout buffers in the process instead of returning them to the kernel each update.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(mmap_threshold(_libc())),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
# One thread per worker: workers times threads beyond the cores makes everything slower (the most reported trap of A3C
# codes).
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    **MALLOC,
    # The servers of multiprocessing run by `python -c`, which would import from the working folder: a stranger's run,
    # perhaps, or one with a file named as a module of Python's.
    "PYTHONSAFEPATH": "1",
}

KILL_SECONDS = 10.0  # that the system has to end a process

_lock = threading.Lock()  # trainings may begin in several threads


def _leave_servers() -> None:
    """Let a forked process, as of concurrent.futures, start servers of its own: it cannot wait for its parent's."""
    _lock.release()
    server: Any = forkserver._forkserver  # pyright: ignore[reportAttributeAccessIssue]
    if server._forkserver_pid is not None:
        os.close(server._forkserver_alive_fd)
        server.__init__()
        # Its parent has trained, and so has threads of OpenMP, for which a forked process would wait for ever.
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)


# Not while another thread changes what children find (`_child_surroundings`): they would have that for good.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_leave_servers)


def require_parenthood() -> None:
    """Complain in a process that may have no children.

    Raises:
        UserError: there.
    """
    if multiprocessing.current_process().daemon:
        raise UserError(
            "workers cannot be started in a daemonic process, as those of multiprocessing.Pool are: train in one of "
            "concurrent.futures.ProcessPoolExecutor, or with schedule='simulated'"
        )


def make_context(env: str) -> BaseContext:
    """Return the start method for workers that will step `env`: forkserver with their modules, spawn without it."""
    raise_file_limit()
    with _child_surroundings():
        pass  # has started the resource tracker: a lock would start it too, but from the working folder
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return SpawnContext()
    context = ForkServerContext()
    context.set_forkserver_preload(["asyncrl.processes", *(["ale_py.vector_env"] if is_atari(env) else [])])
    return context


def start_early(context: BaseContext, env: str) -> None:
    """Let the forkserver load its modules while we do other things: that takes as long as `import torch`.

    Only for Atari. Of other worlds it must wait until one has been built: what that finds out about OpenGL is in the
    environment variables, which the server inherits when it starts.

    Raises:
        UserError: if there is no such game.
    """
    if is_atari(env) and isinstance(context, ForkServerContext):
        rom_name(env)
        with _child_surroundings():
            forkserver.ensure_running()


def start_process(context: BaseContext, target: Any, args: tuple, name: str) -> BaseProcess:
    """Start `target(*args)` in a process of its own; `target` is a module-level function of this package."""
    process = context.Process(target=target, args=args, name=name, daemon=True)  # type: ignore[attr-defined]
    with _child_surroundings():
        if isinstance(context, ForkServerContext):
            forkserver.ensure_running()
        process.start()
    return process


def kill(*processes: BaseProcess) -> None:
    """End `processes` and what they have started at once; wait for them for a while: one may hang on a dead disk."""
    alive = [process for process in processes if process.is_alive()]
    pids = [process.pid for process in alive if process.pid is not None]
    end_at_once(lambda: [*pids, *descendants(*pids)] if pids else [])
    deadline = time.monotonic() + KILL_SECONDS
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0.0))


def end_leftovers(inherited: Iterable[int]) -> None:
    """End what this process and its children have started, but for the servers of multiprocessing, which end with us.

    Only for a process that is ours: another's may have started what it still needs.

    Args:
        inherited: children that this process had before it was ours, as of a shell's `> >(gzip)`: they stay.
    """
    for child in multiprocessing.active_children():  # also where `descendants` finds none: Python would wait for them
        child.kill()
    server: Any = forkserver._forkserver  # pyright: ignore[reportAttributeAccessIssue]
    tracker: Any = resource_tracker._resource_tracker  # pyright: ignore[reportAttributeAccessIssue]

    def find() -> set[int]:
        ours = set(descendants(os.getpid()))  # first, or it would have what theirs start meanwhile
        return ours - {server._forkserver_pid, tracker._pid, *inherited, *descendants(*inherited)}

    end_at_once(find)


@contextlib.contextmanager
def _child_surroundings() -> Iterator[None]:
    """Start processes with one thread each, and without importing the user's script again.

    Children import the main module of their parent unless it has no file. Ours need nothing of it, and a script without
    a main guard would start a training in every child. They begin with SIGINT blocked: Ctrl-C is the trainer's, which
    gets it when the block is over.
    """
    with _lock:
        main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in _ENVIRONMENT}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
        try:
            os.environ.update(_ENVIRONMENT)
            resource_tracker.ensure_running()  # before SIGINT is blocked, because it ends by unblocking that
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            sys.modules["__main__"] = types.ModuleType("__main__")
            yield
        finally:
            sys.modules["__main__"] = main
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
