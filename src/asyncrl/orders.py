"""The order in which workers pull and push: drawn from a seed, in rounds, or as a real run had it."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asyncrl.config import DelayName
from asyncrl.errors import UserError

# A worker's notes, 10 bytes each: the monotonic clock, and 2 worker + 1 for a pull or 2 worker for a push.
RECORD = np.dtype([("nanoseconds", "<i8"), ("event", "<i2")])


class Event(NamedTuple):
    """What happens next."""

    worker: int
    pulls: bool  # else it pushes


# How long a worker is between its pull and its push; all of mean 1.
DELAYS: dict[DelayName, Callable[[np.random.Generator], float]] = {
    "constant": lambda generator: 1.0,
    "uniform": lambda generator: generator.uniform(0, 2),
    "exponential": lambda generator: generator.exponential(),
    "gamma": lambda generator: generator.gamma(10) / 10,  # nearest to real processes (docs/log.md); deviation 0.3
    "pareto": lambda generator: generator.pareto(1.5) / 2,  # heavy tail: infinite variance
}


def drawn_order(workers: int, delays: DelayName, generator: np.random.Generator) -> Iterator[Event]:
    """Yield events for ever: all pull at time 0; each pushes after a delay of its own and pulls again at once."""
    draw = DELAYS[delays]
    for worker in range(workers):
        yield Event(worker, True)
    pushes = [(draw(generator), worker) for worker in range(workers)]
    heapq.heapify(pushes)
    while True:
        now, worker = pushes[0]
        yield Event(worker, False)
        yield Event(worker, True)
        heapq.heapreplace(pushes, (now + draw(generator), worker))


def rounds(workers: int) -> Iterator[Event]:
    """Yield events for ever: all pull, then all push in their order (`--update synchronous`)."""
    while True:
        yield from (Event(worker, True) for worker in range(workers))
        yield from (Event(worker, False) for worker in range(workers))


def record_file(run_dir: Path, began: int) -> Path:
    """Return where a sitting that began at `began` (seconds) keeps its order."""
    return run_dir / f"order-{began}.bin"


def recorded_order(path: Path, workers: int) -> list[Event]:
    """Return the order that a run kept by --record-order, its sittings one after the other.

    Each pull is at the begin of its copy and each push at the end of its update: where those of two workers
    overlapped, a replay puts one after the other, and cannot repeat what they tore.

    Args:
        path: of the run, or of one sitting's file.
        workers: that will replay it.

    Raises:
        UserError: if there is none, or it is of more workers.
    """
    files = sorted(path.glob("order-*.bin")) if path.is_dir() else [path]
    try:
        sittings = [np.fromfile(file, RECORD) for file in files if not file.is_fifo()]  # which would wait for a writer
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not sum(map(len, sittings)):
        raise UserError(f"{path} holds no recorded order: train with --record-order first")
    events = np.concatenate([np.sort(notes, order="nanoseconds", kind="stable")["event"] for notes in sittings])
    if events.min() < 0 or events.max() // 2 >= workers:
        raise UserError(f"{path} is the order of {events.max() // 2 + 1} workers: say so by --workers")
    return [Event(event // 2, bool(event % 2)) for event in events.tolist()]


def staleness_of(order: Iterable[Event]) -> list[int]:
    """Return the staleness of each push: pushes of others since its worker's pull."""
    pulled: dict[int, int] = {}
    staleness: list[int] = []
    for worker, pulls in order:
        if pulls:
            pulled[worker] = len(staleness)
        elif worker in pulled:
            staleness.append(len(staleness) - pulled.pop(worker))
    return staleness
