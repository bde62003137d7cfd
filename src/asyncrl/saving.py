"""The checkpoints that a training keeps, and what it does when one cannot be written."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncrl.checkpoint import save_checkpoint
from asyncrl.errors import UserError
from asyncrl.networks import Network
from asyncrl.pointers import REPLACED, point_to, pointed_to, prune
from asyncrl.store import ParameterStore

MAX_FAILURES = 3  # in a row; then as much work may be lost as a user would forgive


class Saving:
    """Writes a training's checkpoints, the newest as `latest` and the best as `best`.

    A disk may be full for a while, so a training survives a checkpoint that could not be written; the one before stays
    as it is. But it does not go on for days with nothing to show for it.

    Args:
        folder: `checkpoints` of the run.
        announce: called with a line when a checkpoint could not be written.
    """

    def __init__(self, folder: Path, announce: Callable[[str], None]) -> None:
        self.folder, self.announce = folder, announce
        self._failures = 0  # in a row
        self._written: list[Path] = []

    def best_score(self, score: float | None) -> float | None:
        """Return the score that a checkpoint must beat to be the best: `score`, or what the best has, if it is more.

        It is more where a run goes on from a checkpoint that is older than its best.
        """
        best = pointed_to(self.folder, "best")
        try:
            kept = -math.inf
            if best is not None and (best / "state.json").is_file():
                kept = float(json.loads((best / "state.json").read_bytes())["best_score"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
            return score  # damaged: a new best one may take its place
        known = [s for s in (score, kept) if s is not None and math.isfinite(s)]
        return max(known, default=None)

    def save(
        self, store: ParameterStore, network: Network, state: dict[str, Any], *, is_best: bool, is_last: bool
    ) -> bool:
        """Write a checkpoint as `save_checkpoint` does; return whether it is there now.

        Raises:
            UserError: if it is not, and it was the last one or several before it failed too.
        """
        try:
            path = save_checkpoint(self.folder, store, network, state)
            self._written.append(path)
            point_to(self.folder, "latest", path)
            if is_best:
                point_to(self.folder, "best", path)
        except OSError as error:
            self._fail(f"cannot write a checkpoint into {self.folder}: {error.strerror or error}", is_last)
            return False
        self._failures = 0
        try:
            prune(self.folder, self._written)
        except OSError as error:
            self.announce(f"cannot delete old checkpoints of {self.folder}: {error.strerror or error}")
        return True

    def _fail(self, line: str, is_last: bool) -> None:
        self._failures += 1
        latest = pointed_to(self.folder, "latest")
        kept = "nothing is saved yet" if self.folder.is_dir() else "the run was moved or deleted"
        if latest is not None:
            frames = latest.name.removeprefix(REPLACED)
            copied = not frames.isdecimal()
            kept = f"{'those of the run as it was copied' if copied else f'{int(frames):,} frames'} are safe"
        if is_last or self._failures >= MAX_FAILURES:
            often = f" ({self._failures} times in a row)" if self._failures > 1 else ""
            raise UserError(f"{line}{often}; {kept}")
        self.announce(f"{line}; {kept}, and the training goes on ({self._failures} of {MAX_FAILURES})")
