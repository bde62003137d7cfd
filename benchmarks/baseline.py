"""The stored ratios, and whether today's are worse.

Ratios only: speeds change with a host's other tenants, ratios less so. Between kinds of processors both do (3.3 to 4.9
times Stable-Baselines3's A2C, without AVX-512 and with it), so that those of another kind are not compared.
"""

import json
from pathlib import Path
from typing import Any

from outcome import HOST, is_like
from report import SCHEMA, Spread

BASELINE = Path(__file__).parent / "baseline.json"
RATIOS = ("asyncrl / sb3", "share_of_roofline", "share_of_roofline_cpu")  # what `make bench` compares
SHAPE = ("env", "workers", "envs_per_worker")  # of the settings: what must be the same to compare
LEAST_ROUNDS = 5
LEAST_LOSS = 0.02  # of a median: less is never called worse, however narrow the ranges


def keep_baseline(result: dict[str, Any], path: Path = BASELINE) -> None:
    """Write the ratios of `result`, with the machine and settings they come from.

    Raises:
        ValueError: if a contender failed, a ratio was not measured, or the rounds are too few to tell their spread.
    """
    if result["settings"]["rounds"] < LEAST_ROUNDS:
        raise ValueError(f"{result['settings']['rounds']} rounds are no baseline, {LEAST_ROUNDS} are: nothing kept")
    if result["failures"]:
        raise ValueError(f"failed: {', '.join(result['failures'])}: nothing kept")
    missing = [name for name in RATIOS if result["ratios"].get(name) is None]
    if missing:
        raise ValueError(f"not measured, or in no quiet round: {', '.join(missing)}: nothing kept")
    kept = {name: result[name] for name in ("schema", "date", "title", "machine", "settings", "ratios")}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def read_baseline(machine: dict[str, Any], settings: dict[str, Any], path: Path = BASELINE) -> dict[str, Any]:
    """Return what `keep_baseline` wrote on a machine like this one, with the same game and environments.

    Raises:
        ValueError: if there is none, or one of another version, machine, game or number of environments.
    """
    again = "make one on a quiet machine with --keep-baseline"
    if not path.exists():
        raise ValueError(f"there is no {path.name}: {again}")
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["schema"] != SCHEMA:
        raise ValueError(f"{path.name} is of another version: {again}")
    for part, now, names in (("machine", machine, HOST), ("settings", settings, SHAPE)):
        for name in names:
            if not is_like(kept[part], now, name):
                raise ValueError(f"{path.name} is of {name} {kept[part][name]}, not {now[name]}: {again}")
    return kept


def compare(result: dict[str, Any], baseline: dict[str, Any]) -> tuple[list[str], int]:
    """Compare today's ratios with the stored ones; return lines to print and an exit code.

    The code is 1 if a ratio is worse by more than the spread, else 2 if one could not be measured or a contender
    failed, else 0.
    """
    lines, codes = [f"failed: {name}" for name in result["failures"]], {2} if result["failures"] else {0}
    for name, before in baseline["ratios"].items():
        after = result["ratios"].get(name)
        verdict = "not measured" if after is None else "worse" if is_worse(after, before) else "as good"
        lines.append(f"{verdict}: {name}: {_quartiles(after)}, stored {_quartiles(before)}")
        codes.add({"as good": 0, "worse": 1, "not measured": 2}[verdict])
    return lines, 1 if 1 in codes else max(codes)


def _quartiles(spread: Spread | None) -> str:
    if spread is None:
        return "no quiet round"
    return f"{spread['median']:.2f} (half of the rounds {spread['low']:.2f} to {spread['high']:.2f})"


def is_worse(after: Spread, before: Spread) -> bool:
    """Return whether `after` lies below `before` by more than the spread: the middle halves do not meet.

    One odd round of five, however odd, moves a quartile no further than to its neighbour.
    """
    return after["high"] < before["low"] and after["median"] < (1 - LEAST_LOSS) * before["median"]
