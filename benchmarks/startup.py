"""How long `asyncrl train` takes to its first gradient, beside `import torch` and the building of its environments.

As in `python benchmarks/startup.py`, or with `--preset paper` of sixteen workers.

Each part is a fresh process, and the parts alternate. The bar is three times the first plus 1.2 times the second.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from typing import Literal

import tyro
from outcome import describe_machine, prepare
from rounds import HERE, say

LIMIT_SECONDS = 600.0  # for any part, against hanging


@dataclass(frozen=True)
class Arguments:
    """Measure the start-up of asyncrl."""

    # The preset.
    preset: Literal["fast", "paper"] = "fast"
    # The world.
    env: str = "ALE/Pong-v5"
    # Rounds; the table shows medians over them.
    rounds: int = 5
    # Print JSON instead of a table.
    json: bool = False


PARTS = ("torch", "environments", "train")


def measured(part: str, args: Arguments) -> dict[str, float]:
    """Return what a fresh process measures of `part`."""
    command = [sys.executable, "startup_part.py", part, args.env, args.preset]
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(f"startup: {part} was not ready within {LIMIT_SECONDS:g} s")
    if done.returncode:
        sys.exit(f"startup: {part} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def shares_of_the_bar(row: dict[str, float]) -> dict[str, float]:
    """Return the time to the first gradient as shares of the bar, without and with the environments' reset."""
    bar = 3 * row["import torch"] + 1.2 * row["a worker's environments"]
    with_reset = bar + 1.2 * row["and their reset"]
    return {"of the bar": row["first gradient"] / bar, "of the bar, with resets": row["first gradient"] / with_reset}


def main() -> int:
    """Measure all parts in alternation, report."""
    args = tyro.cli(Arguments, description=__doc__)
    if args.rounds < 1:
        say("startup: --rounds wants 1 or more")
        return 2
    prepare("startup")
    rows = []
    for number in range(args.rounds):
        rows.append({name: seconds for part in PARTS for name, seconds in measured(part, args).items()})
        say(f"round {number + 1}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in rows[-1].items()))
    rows = [row | shares_of_the_bar(row) for row in rows]
    if args.json:
        print(json.dumps({"settings": vars(args), "machine": describe_machine(), "rows": rows}))
        return 0
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:30} {median(values):6.2f} ({min(values):.2f} to {max(values):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
