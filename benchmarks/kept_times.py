"""Outcomes of time_to_score.py, which take most of an hour each: kept as they end, and shown by bench-peers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rounds import HERE

from asyncrl.quantities import format_duration

FILE = HERE / "results" / "time-to-score.jsonl"
_HOST = ("processor", "capability", "cores")  # what must be the same for times to be compared


def keep_time(outcome: dict[str, Any], path: Path = FILE) -> None:
    """Add the outcome of a training to the file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(outcome) + "\n")


def times_to_score(env: str, machine: dict[str, Any], path: Path = FILE) -> dict[str, str]:
    """Return for each learner when it reached the score in `env` on machines like this one, in words."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    here = [row for row in rows if row["env"] == env and all(row["machine"][n] == machine[n] for n in _HOST)]
    return {learner: _told([row for row in here if row["learner"] == learner]) for learner in _learners(here)}


def _learners(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["learner"] for row in rows))


def _told(rows: list[dict[str, Any]]) -> str:
    by_goal = {goal: [row for row in rows if row["score"] == goal] for goal in sorted({row["score"] for row in rows})}
    return "; ".join(f"{goal:+g}: {_told_of_one(of_goal)}" for goal, of_goal in by_goal.items())


def _told_of_one(rows: list[dict[str, Any]]) -> str:
    reached = sorted(row["seconds_to_score"] for row in rows if row["seconds_to_score"] is not None)
    words = ", ".join(map(format_duration, reached))
    if len(reached) < len(rows):
        best = max((row["best_score"] for row in rows if row["best_score"] is not None), default=None)
        short = f"no within {format_duration(max(row['cap'] for row in rows))}"
        short += "" if best is None else f", best {best:.1f}"
        words = f"{words}; {len(rows) - len(reached)} {short}" if words else short
    return words
