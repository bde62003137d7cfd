"""What this machine lets us use."""

import math
import os
from pathlib import Path

from asyncrl.errors import UserError


def available_cores() -> int:
    """Return the CPU cores this process may use (affinity and the container's quota, not the machine's total)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here
    return max(1, cores)


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
