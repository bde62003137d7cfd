"""How training speed grows with workers, and what it costs them to share: one store for all, beside a store for each.

python benchmarks/scaling.py                   # 1, 2, 4, ... workers up to the cores
python benchmarks/scaling.py --preset paper --workers 1 2 16
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from contenders import Contender, asyncrl_contender
from outcome import make_result, prepare, save
from report import print_report, text_of
from rounds import Rounds, Rules, say

from asyncrl.machine import available_cores
from asyncrl.presets import fast_preset


def powers_of_two(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and `most`."""
    return (*(2**i for i in range(most.bit_length()) if 2**i < most), most)


@dataclass(frozen=True)
class Arguments:
    """Measure asyncrl with more and more workers."""

    # Numbers of workers to measure; by default 1, 2, 4, ... up to one per core.
    workers: tuple[int, ...] = powers_of_two(available_cores())
    # Environments of each worker; by default 8, or 1 with --preset paper.
    envs_per_worker: int | None = None
    # The preset.
    preset: Literal["fast", "paper"] = "fast"
    # Rounds; the table shows medians over them.
    rounds: int = 5
    # Seconds of each measurement.
    seconds: float = 10.0
    # Seconds of warm-up before it.
    warmup: float = 5.0
    # The game.
    env: str = "ALE/Pong-v5"
    # Share of the cores that others may use during a measurement before it counts as disturbed.
    quiet: float = 0.05
    # How often a disturbed measurement is repeated.
    repeats: int = 2
    # Print JSON instead of a table.
    json: bool = False
    # Keep the result in benchmarks/results/.
    save: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> int:
    """Measure, report."""
    args = tyro.cli(Arguments, description=__doc__)
    if not args.workers or min(args.workers) < 1:
        say("scaling: --workers wants numbers of 1 or more")
        return 2
    prepare("scaling")
    rounds = Rounds(make_contenders(args), Rules(args.rounds, args.quiet, args.repeats))
    rounds.run()
    result = make_result(rounds, f"{args.env}, {args.preset}", dataclasses.asdict(args), 1, pairs_of(args.workers))
    if args.json:
        print(json.dumps(result))
    else:
        print_report(result)
        print_efficiency(result, args.workers)
        print_memory(result, args.workers)
    if args.save:
        say(f"kept in {save(result, '-scaling')}")
    return 1 if result["failures"] else 0


def together(workers: int) -> str:
    """Return the name of that many workers on one store."""
    return f"{workers} worker{'s' if workers > 1 else ''}"


def apart(workers: int) -> str:
    """Return the name of that many trainings of one worker."""
    return f"{workers} stores of one worker"


def pairs_of(numbers: tuple[int, ...]) -> list[tuple[str, str]]:
    """Return what to divide by what: each number of workers by the least, and by as many that share nothing."""
    several = [n for n in sorted(numbers) if n > 1]
    speedups = [(together(n), together(min(numbers))) for n in several if n != min(numbers)]
    return [*speedups, *((together(n), apart(n)) for n in several)]


def make_contenders(args: Arguments) -> list[Contender]:
    """Return a contender for each number of workers, and one for as many trainings side by side."""
    batch = args.envs_per_worker or {"fast": fast_preset().envs_per_worker, "paper": 1}[args.preset]
    contenders = []
    for workers in sorted(args.workers):
        name = together(workers)
        # Each is a group of its own: there is nothing to choose among.
        contenders.append(asyncrl_contender(name, name, args, args.env, "auto", args.preset, workers, batch))
        if workers > 1:
            alone = asyncrl_contender("", "", args, args.env, "auto", args.preset, 1, batch).command
            command = (sys.executable, "side_by_side.py", str(workers), *alone[1:])
            contenders.append(Contender(apart(workers), apart(workers), command))
    return contenders


def efficiencies(result: dict, numbers: tuple[int, ...]) -> dict[int, float]:
    """Return the speed-up of each number of workers over the least as a share of a proportional one."""
    least = min(numbers)
    ratios = {n: result["ratios"].get(f"{together(n)} / {together(least)}") for n in sorted(numbers) if n > least}
    return {n: ratio["median"] * least / n for n, ratio in ratios.items() if ratio is not None}


def print_efficiency(result: dict, numbers: tuple[int, ...]) -> None:
    """Print how much of a proportional speed-up there is."""
    for n, share in efficiencies(result, numbers).items():
        print(f"efficiency of {together(n)}: {share:.2f} of {n / min(numbers):g} times {together(min(numbers))}")


def print_memory(result: dict, numbers: tuple[int, ...]) -> None:
    """Print what each further worker takes."""
    least, most = min(numbers), max(numbers)
    memory = {n: result["summaries"].get(together(n), {}).get("memory_megabytes") for n in (least, most)}
    for n, spread in memory.items():
        if spread is not None:
            print(f"memory of {together(n)} and all that belongs to them: {text_of(spread, ',.0f')} MB")
    if most > least and memory[least] and memory[most]:
        each = (memory[most]["median"] - memory[least]["median"]) / (most - least)
        print(f"each further worker: {each:,.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
