"""Measure training speed on this machine: asyncrl, Stable-Baselines3's A2C, and the ceilings, in alternation.

Every contender is a script of its own that prints one measurement. In each round all of them run one after the other on
the same cores. A measurement during which other processes took more than a few percent of the machine is repeated, and
left out if it stays so.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from baseline import compare, keep_baseline, read_baseline
from contenders import Contender, make_contenders
from outcome import describe_machine, make_result, prepare, save
from report import print_report
from rounds import Rounds, Rules, say

from asyncrl.errors import UserError
from asyncrl.machine import available_cores
from asyncrl.presets import make_preset

PAIRS = (("asyncrl", "sb3"),)


@dataclass(frozen=True)
class Arguments:
    """Measure asyncrl beside Stable-Baselines3 and the machine's ceilings."""

    # Rounds; the table shows medians over them.
    rounds: int = 5
    # Seconds of each measurement of a trainer; ceilings take half as long.
    seconds: float = 10.0
    # Seconds of warm-up before it.
    warmup: float = 5.0
    # Actor-learner processes; by default one per core.
    workers: int = available_cores()
    # Environments of each; Stable-Baselines3 gets as many in all, and the sixteen it is published with at the least;
    # 0: the preset's for so many workers.
    envs_per_worker: int = 0
    # The game.
    env: str = "ALE/Pong-v5"
    # Share of the cores that others may use during a measurement before it counts as disturbed.
    quiet: float = 0.05
    # How often a disturbed measurement is repeated.
    repeats: int = 2
    # Groups to measure; all by default.
    only: tuple[Literal["asyncrl", "sb3", "environments", "network"], ...] = ()
    # Print JSON instead of a table.
    json: bool = False
    # Keep the result in benchmarks/results/.
    save: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Keep the ratios as those that later ones are compared with (benchmarks/baseline.json).
    keep_baseline: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Compare with those: exit code 1 if a ratio is worse by more than the spread, 2 if one could not be measured or
    # something failed, and at once where those are of another machine, game or number of environments.
    compare: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> int:
    """Measure, report, keep or compare."""
    args = tyro.cli(Arguments, description=__doc__)
    prepare("bench")
    try:
        args = with_batch(args)
        stored = read_baseline(describe_machine(), dataclasses.asdict(args)) if args.compare else None
    except (ValueError, UserError) as mistake:
        say(f"bench: {mistake}")
        return 2
    result = measure(args)
    if args.save:
        say(f"kept in {save(result)}")
    print(json.dumps(result)) if args.json else print_report(result)
    if args.keep_baseline and (stored is None or compare(result, stored)[1] == 0):  # a worse one is not kept as good
        try:
            keep_baseline(result)
        except ValueError as mistake:
            say(f"bench: {mistake}")
            return 2
    if stored is None:
        return 1 if result["failures"] else 0
    lines, code = compare(result, stored)
    say("\n".join(lines))
    return code


def with_batch(args: Arguments) -> Arguments:
    """Return `args` with a number of environments."""
    batch = args.envs_per_worker or make_preset("fast", workers=args.workers).envs_per_worker
    return dataclasses.replace(args, envs_per_worker=batch)


def measure(args: Arguments) -> dict:
    """Run all rounds and return their result."""
    contenders: list[Contender] = [c for c in make_contenders(args, args.env) if not args.only or c.group in args.only]
    rounds = Rounds(contenders, Rules(args.rounds, args.quiet, args.repeats))
    rounds.run()
    title = f"{args.env}, {args.workers} x {args.envs_per_worker} environments"
    return make_result(rounds, title, dataclasses.asdict(args), args.workers, PAIRS)


if __name__ == "__main__":
    sys.exit(main())
