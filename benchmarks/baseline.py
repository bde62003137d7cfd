"""The stored ratios, and whether today's are worse. Ratios only: speeds belong to a machine, ratios less so."""

import json
from pathlib import Path
from typing import Any

from report import SCHEMA, Spread

BASELINE = Path(__file__).parent / "baseline.json"
RATIOS = ("asyncrl / sb3", "share_of_roofline", "share_of_roofline_cpu")  # what `make bench` compares
LEAST_LOSS = 0.02  # of a median: less is never called worse, however narrow the ranges


def keep_baseline(result: dict[str, Any], path: Path = BASELINE) -> None:
    """Write the ratios of `result`, with the machine and settings they come from.

    Raises:
        ValueError: if a contender failed or was left out, or a ratio could not be measured.
    """
    if result["failures"]:
        raise ValueError(f"failed: {', '.join(result['failures'])}: nothing kept")
    missing = [name for name in RATIOS if result["ratios"].get(name) is None]
    if missing:
        raise ValueError(f"no quiet round for {', '.join(missing)}: nothing kept")
    kept = {name: result[name] for name in ("schema", "date", "title", "machine", "settings", "ratios")}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def read_baseline(env: str, path: Path = BASELINE) -> dict[str, Any]:
    """Return what `keep_baseline` wrote of a game.

    Raises:
        ValueError: if there is none, or one of another version or game.
    """
    if not path.exists():
        raise ValueError(f"there is no {path.name}: make one on a quiet machine with --keep-baseline")
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["schema"] != SCHEMA:
        raise ValueError(f"{path.name} is of another version: make one on a quiet machine with --keep-baseline")
    if kept["settings"]["env"] != env:
        raise ValueError(f"{path.name} is of {kept['settings']['env']}: nothing to compare {env} with")
    return kept


def compare(result: dict[str, Any], baseline: dict[str, Any]) -> tuple[list[str], int]:
    """Compare today's ratios with the stored ones; return lines to print and an exit code.

    The code is 0 if nothing is worse, 1 if a ratio is worse by more than the spread, 2 if one could not be measured or
    a contender failed.
    """
    lines, code = [f"failed: {name}" for name in result["failures"]], 2 if result["failures"] else 0
    stored, now = baseline["machine"], result["machine"]
    if any(stored[what] != now[what] for what in ("processor", "capability", "cores")):
        machine = f"{stored['processor']} ({stored['capability']}), {stored['cores']} cores"
        lines.append(f"the stored ratios are of another machine: {machine}")
    for name, before in baseline["ratios"].items():
        after = result["ratios"].get(name)
        verdict = "not measured" if after is None else "worse" if is_worse(after, before) else "as good"
        lines.append(f"{verdict}: {name}: {_quartiles(after)}, stored {_quartiles(before)}")
        code = max(code, {"as good": 0, "worse": 1, "not measured": 2}[verdict])
    return lines, code


def _quartiles(spread: Spread | None) -> str:
    if spread is None:
        return "no quiet round"
    return f"{spread['median']:.2f} (half of the rounds {spread['low']:.2f} to {spread['high']:.2f})"


def is_worse(after: Spread, before: Spread) -> bool:
    """Return whether `after` lies below `before` by more than the spread: the middle halves do not meet.

    One odd round of five, however odd, moves a quartile no further than to its neighbour.
    """
    return after["high"] < before["low"] and after["median"] < (1 - LEAST_LOSS) * before["median"]
