"""Outcomes of time_to_score.py, which take most of an hour each: kept as they end, and shown by bench-peers."""

import json
from pathlib import Path
from typing import Any

from kept_rounds import append_line
from outcome import HOST, is_like
from rounds import HERE

from asyncrl.errors import UserError
from asyncrl.quantities import format_duration

GAMES = 30  # that a score is the mean of
FILE = HERE / "results" / "time-to-score.jsonl"


def keep_time(outcome: dict[str, Any], path: Path = FILE) -> None:
    """Add the outcome of a training to the file."""
    path.parent.mkdir(exist_ok=True)
    append_line(path, outcome)


def times_to_score(env: str, machine: dict[str, Any], path: Path = FILE) -> dict[str, str]:
    """Return for each learner when it reached the score in `env` on machines like this one, in words.

    Those that had another network than their published one do not count, nor those that were judged by fewer games.

    Raises:
        UserError: if the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        here = [row for row in rows if row["env"] == env and all(is_like(row["machine"], machine, n) for n in HOST)]
        by_learner: dict[str, list[dict[str, Any]]] = {}
        for row in here:
            if row.get("network") is None and row["episodes"] >= GAMES:
                by_learner.setdefault(row["learner"], []).append(row)
        return {learner: _told(rows) for learner, rows in by_learner.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): mend or remove it") from None


def _told(rows: list[dict[str, Any]]) -> str:
    by_goal: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["score"]):
        schedule = "" if row.get("frames") is None else f" (--frames {row['frames']})"
        by_goal.setdefault(f"{row['score']:+g}{schedule}", []).append(row)
    return "; ".join(f"{goal}: {_told_of_one(of_goal)}" for goal, of_goal in by_goal.items())


def _told_of_one(rows: list[dict[str, Any]]) -> str:
    reached = sorted(row["seconds_to_score"] for row in rows if row["seconds_to_score"] is not None)
    return ", ".join([*map(format_duration, reached), *(_missed(r) for r in rows if r["seconds_to_score"] is None)])


def _missed(row: dict[str, Any]) -> str:
    within = f"within {format_duration(row['cap'])}" if row["ended"] == "cap" else f"({row['ended']})"
    return f"not {within}" + ("" if row["best_score"] is None else f", best {row['best_score']:.1f}")
