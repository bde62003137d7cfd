"""Measure the worlds: alone on one core, and under training with the default preset; how much of that is the world.

Rates are steps per second of processor time, of all processes together: a game in a process of its own counts, and
other programs on the machine cost little. Every measurement is a script of its own; in each round all run in turn.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import tyro
from contenders import HERE, Contender, window_options
from meter import Measurement
from outcome import make_result, prepare, save
from report import Spread, spread_of, text_of
from rounds import Rounds, Rules

from asyncrl.worlds import list_worlds


@dataclass(frozen=True)
class Case:
    """A world that is measured."""

    name: str
    env: str  # its id
    needs: str  # what `asyncrl envs` calls it
    options: str = ""  # it is made with, as for --env-options
    ways: tuple[str, ...] = ("gymnasium", "trainer")  # of `envs_alone.py`
    bar: float | None = None  # steps per second of a core that the first way shall reach
    bare: tuple[str, str] | None = None  # a way and what it shall reach nine tenths of: the library without us


CASES = (
    Case("Labyrinth", "asyncrl/Labyrinth-v0", "Labyrinth", bar=2000),
    Case("TORCS", "asyncrl/Torcs-v0", "TORCS", bar=400),
    Case("TORCS, 4 opponents", "asyncrl/Torcs-v0", "TORCS", "opponents=4", bar=200),
    Case("cartpole, pixels", "dm_control/cartpole-swingup-pixels-v0", "MuJoCo pixels", bar=350),
    Case("half-cheetah, pixels", "asyncrl/HalfCheetah-pixels-v5", "MuJoCo pixels", bar=350),
    Case("half-cheetah", "HalfCheetah-v5", "MuJoCo"),  # alone it is the library's own
    Case(
        "dm_control cartpole",
        "dm_control/cartpole-swingup-v0",
        "dm_control",
        ways=("gymnasium", "trainer", "bare"),
        bare=("gymnasium", "bare"),
    ),
    Case("Pong", "ALE/Pong-v5", "Atari", ways=("trainer",)),
)
OF_BARE = 0.9


@dataclass(frozen=True)
class Arguments:
    """Measure every world alone, beside its library, and under training."""

    # Rounds; the table shows medians over them.
    rounds: int = 3
    # Seconds of each measurement.
    seconds: float = 8.0
    # Seconds of warm-up before it.
    warmup: float = 3.0
    # Share of the cores that others may use during a measurement before it counts as disturbed; 1 keeps all.
    quiet: float = 0.05
    # How often a disturbed measurement is repeated.
    repeats: int = 2
    # Names of worlds, such as TORCS; all by default.
    only: tuple[str, ...] = ()
    # Print JSON instead of a table.
    json: bool = False
    # Keep the result in benchmarks/results/.
    save: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> int:
    """Measure, report; return 1 if something failed or missed its bar."""
    args = tyro.cli(Arguments, description=__doc__)
    prepare("bench-envs")
    unknown = sorted(set(args.only) - {case.name for case in CASES})
    if unknown:
        print(f"bench-envs: --only {', '.join(unknown)}: there are {', '.join(c.name for c in CASES)}", file=sys.stderr)
        return 2
    cases = [case for case in CASES if not args.only or case.name in args.only]
    rounds = Rounds(make_contenders(args, cases), Rules(args.rounds, args.quiet, args.repeats))
    rounds.run()
    result = make_result(rounds, "one core", dataclasses.asdict(args), 1, ())
    result["worlds"] = {case.name: summarize(case, rounds) for case in cases}
    print(json.dumps(result)) if args.json else print_table(result)
    if args.save:
        print(f"kept in {save(result, '-envs')}", file=sys.stderr)
    return 1 if result["failures"] or any(world["missed"] for world in result["worlds"].values()) else 0


def make_contenders(args: Arguments, cases: list[Case]) -> list[Contender]:
    """Return all ways of stepping each world, and its training by one worker; those missing here fail with the cure."""
    worlds = {world.name: world for world in list_worlds()}
    contenders = []
    for case in cases:
        world = worlds[case.needs]
        failure = f"{world.missing}: {world.install}" if world.missing else None
        scripts = {way: ("envs_alone.py", way) for way in case.ways}
        scripts["training"] = ("asyncrl_train.py", "--workers", "1")
        for what, script in scripts.items():
            name, options = f"{case.name}, {what}", (*window_options(args, case.env), "--env-options", case.options)
            variables = (("OMP_NUM_THREADS", "1"), ("PYTHONPATH", f"{HERE}:{HERE.parent / 'src'}"))
            contenders.append(Contender(name, name, (sys.executable, *script, *options), variables, failure))
    return contenders


def summarize(case: Case, rounds: Rounds) -> dict[str, Any]:
    """Return rates in steps per processor second, the share of training that is the world, and what was missed."""
    found: dict[str, dict[int, Measurement]] = {}
    for row in rounds.rows:
        if row.quiet and row.contender.rpartition(", ")[0] == case.name:
            found.setdefault(row.contender.rpartition(", ")[2], {})[row.round] = row.measurement

    def in_rounds(value: Callable[..., float], *whats: str) -> Spread | None:
        """Return the spread of a value of these measurements over the rounds that have them all."""
        common = set.intersection(*(set(found.get(what, {})) for what in whats))
        return spread_of([value(*(found[what][number].cpu_micros_per_step for what in whats)) for number in common])

    world: dict[str, Any] = {what: in_rounds(lambda cpu: 1e6 / cpu, what) for what in (*case.ways, "training")}
    # Of two measurements: clocks within the loop would not see the processor time of a game in another process.
    world["share"] = in_rounds(lambda alone, training: alone / training, "trainer", "training")
    world["of_bare"] = case.bare and in_rounds(lambda ours, theirs: theirs / ours, *case.bare)
    bars = ((world[case.ways[0]], case.bar), (world["of_bare"], OF_BARE if case.bare else None))
    missed = any(bar and not (spread and spread["median"] >= bar) for spread, bar in bars)
    return {**world, "bar": case.bar, "missed": missed}


def print_table(result: dict[str, Any]) -> None:
    """Print a line a world, and what failed."""
    from rich.console import Console
    from rich.table import Table

    machine, settings = result["machine"], result["settings"]
    table = Table(title="Agent steps per second of one core (processor time): median (min to max)")
    table.add_column("world", overflow="fold")
    for column in ("alone", "wanted", "beside the bare library", "as a worker steps it", "training", "of it the world"):
        table.add_column(column, justify="right")
    for name, world in result["worlds"].items():
        bar = f"{world['bar']:,.0f}" if world["bar"] else ""
        cells = [_text(world, what, form) for what, form in _COLUMNS]
        table.add_row(f"[red]{name}[/]" if world["missed"] else name, cells[0], bar, *cells[1:])
    console = Console(width=None if Console().is_terminal else 170)
    console.print(table)
    loads = [row["measurement"]["foreign_load"] for row in result["rows"]]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, of which others used {median(loads or [0]):.0%} (median); "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s",
        highlight=False,
    )
    for name, reason in result["failures"].items():
        console.print(f"{name}: {reason}", style="red", markup=False, highlight=False)


_COLUMNS = (("gymnasium", ",.0f"), ("of_bare", ".2f"), ("trainer", ",.0f"), ("training", ",.0f"), ("share", ".0%"))


def _text(world: dict[str, Any], what: str, form: str) -> str:
    return "" if world.get(what) is None else text_of(world[what], form)


if __name__ == "__main__":
    sys.exit(main())
