"""Mean and deviation of observations, which a network may centre and scale its inputs by (not in the paper).

Images are measured once, in random play. Vectors are measured all along: every worker sums what it has seen, and the
sums of all are merged, and then held still, at each pull. A mean and a variance belong together, so no two workers ever
write the same sums: each has a row of its own, and writes it so that nobody can read half of a change.
"""

from typing import NamedTuple

import numpy as np

NEVER_CHANGED = 1e-8  # added to variances: the input may be a constant


class InputStatistics(NamedTuple):
    """What a network subtracts from its inputs and divides them by; part of the network, and of its checkpoints."""

    mean: np.ndarray  # [...] like one observation
    deviation: np.ndarray  # broadcasts to it


def sums_of(observations: np.ndarray) -> np.ndarray:
    """Return count, sum and sum of squares [1 + 2 D] of observations [T, B, ...] of D numbers, in float64."""
    rows = observations.reshape(observations.shape[0] * observations.shape[1], -1).astype(np.float64)
    return np.concatenate([[len(rows)], rows.sum(0), np.square(rows).sum(0)])


def statistics_of(sums: np.ndarray) -> InputStatistics:
    """Return mean and deviation [D] from sums [1 + 2 D]; 0 and 1 where nothing has been seen."""
    count, (total, squares) = sums[0], np.split(sums[1:], 2)
    if count == 0:
        return InputStatistics(np.zeros(len(total), np.float32), np.ones(len(total), np.float32))
    with np.errstate(invalid="ignore"):  # what is infinite gives what is no number, for the caller to find
        mean = total / count
        variance = np.maximum(squares / count - np.square(mean), 0.0)
    return InputStatistics(mean.astype(np.float32), np.sqrt(variance + NEVER_CHANGED).astype(np.float32))


class SharedSums:
    """The sums of all workers in the store's memory.

    A row has two versions; its counter says which one counts. Its worker writes the other one and then raises the
    counter, so that a worker killed while writing leaves the old version whole. A reader that finds the counter
    unchanged after copying has read one version; otherwise it copies again.

    Args:
        rows: [W + 1, 2, 1 + 2 D] float64; the last is the base: random play, or a run before a resume.
        counters: [W + 1, 8] int64, in column 0.
    """

    def __init__(self, rows: np.ndarray, counters: np.ndarray) -> None:
        self._rows, self._counters = rows, counters

    def start_from(self, sums: np.ndarray) -> None:
        """Make `sums` [1 + 2 D] the base; before any worker has begun."""
        self._rows[-1, self._counters[-1, 0] % 2] = sums

    def restore(self, sums: np.ndarray) -> None:
        """Make `sums` [1 + 2 D] all there is; only while no worker writes."""
        self._rows[:] = 0.0
        self.start_from(sums)

    def add(self, worker: int, sums: np.ndarray) -> None:
        """Add `sums` [1 + 2 D] to the row of `worker`, which only this worker may do."""
        counter = int(self._counters[worker, 0])
        self._rows[worker, (counter + 1) % 2] = self._rows[worker, counter % 2] + sums
        self._counters[worker, 0] = counter + 1

    def merged(self) -> np.ndarray:
        """Return the sums [1 + 2 D] of all rows, each as it was at one moment."""
        return np.sum([self._read(row) for row in range(len(self._rows))], axis=0)

    def _read(self, row: int) -> np.ndarray:
        while True:
            before = int(self._counters[row, 0])
            sums = self._rows[row, before % 2].copy()
            if self._counters[row, 0] == before:
                return sums
