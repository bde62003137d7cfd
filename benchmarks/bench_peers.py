"""Measure training speed of every library that people would pick instead of asyncrl, on the same cores, in alternation.

Each has its own pinned virtual environment, made on the first run. Pong with the 2013 network is repeated in full,
Breakout with the 2015 network in two rounds. Within a group (a library and its way of stepping games) the fastest
settings of a pilot round go on. What cannot run stands in the table with the reason. Times to a score are those that
time_to_score.py has found on such a machine.
"""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from contenders import Contender, make_ceilings
from kept_rounds import keep_round, open_rounds
from kept_times import times_to_score
from outcome import describe_machine, make_result, prepare, save
from peer_contenders import GROUPS, OURS, PAIRS, make_peer_contenders
from report import print_report
from rounds import HERE, Rounds, Rules, say

from asyncrl.errors import UserError
from asyncrl.machine import available_cores
from asyncrl.presets import make_preset

CORES = 2  # for which the peers' threads and numbers of games are chosen
GAMES = {"pong": ("ALE/Pong-v5", "conv2013", 5), "breakout": ("ALE/Breakout-v5", "conv2015", 2)}  # rounds last


@dataclass(frozen=True)
class Arguments:
    """Measure asyncrl beside its peers."""

    # Games to measure: Pong with the 2013 network, Breakout with the 2015 network.
    games: tuple[Literal["pong", "breakout"], ...] = ("pong", "breakout")
    # Rounds of each game; by default 5 for Pong and 2 for Breakout.
    rounds: int | None = None
    # Seconds of each measurement; those that train in large batches go on to the end of one.
    seconds: float = 15.0
    # Seconds of warm-up before it.
    warmup: float = 5.0
    # Our actor-learner processes; by default one per core.
    workers: int = available_cores()
    # Environments of each.
    envs_per_worker: int = make_preset("fast").envs_per_worker
    # Share of the cores that others may use during a measurement before it counts as disturbed.
    quiet: float = 0.05
    # How often a disturbed measurement is repeated.
    repeats: int = 2
    # Groups of peers to measure beside ours, such as sb3-a2c or pfrl-2; asyncrl for none; all by default.
    only: tuple[str, ...] = ()
    # Print JSON, one object a game, instead of tables.
    json: bool = False
    # Keep the results in benchmarks/results/.
    save: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Keep each round in benchmarks/results/ as it ends, and go on after those that are kept there.
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> int:
    """Measure one game after the other, report."""
    args = tyro.cli(Arguments, description=__doc__)
    prepare("bench-peers")
    try:
        unknown = sorted(set(args.only) - {*OURS, *GROUPS})
        if unknown:
            raise UserError(f"--only {' '.join(unknown)}: there are {', '.join((*OURS, *GROUPS))}")
        if available_cores() > CORES:
            some = ",".join(map(str, sorted(os.sched_getaffinity(0))[:CORES]))
            raise UserError(f"peers are set up for {CORES} cores: begin the command with taskset -c {some}")
        for game in args.games:
            result = measure(args, game)
            if args.save:
                say(f"kept in {save(result, f'-peers-{game}')}")
            print(json.dumps(result)) if args.json else print_report(result)
    except UserError as mistake:
        say(f"bench-peers: {mistake}")
        return 2
    return 0


def measure(args: Arguments, game: str) -> dict:
    """Run all rounds of one game and return their result."""
    env, network, usual_rounds = GAMES[game]
    count = usual_rounds if args.rounds is None else args.rounds
    ours, *others = make_peer_contenders(args, env, network, say)
    contenders = [ours, *make_ceilings(args, env, network), *others]
    rules = Rules(count, args.quiet, args.repeats)
    rounds = resumed(args, game, contenders, rules) if args.resume else Rounds(contenders, rules)
    times = times_to_score(env, describe_machine())  # before hours of rounds, should the file be damaged
    rounds.run()
    settings = {**dataclasses.asdict(args), "rounds": count, "env": env, "network": network}
    result = make_result(rounds, f"{env}, {network}", settings, args.workers, PAIRS)
    return {**result, "times": times}


def resumed(args: Arguments, game: str, contenders: list[Contender], rules: Rules) -> Rounds:
    """Return rounds that go on after those kept of this game, and are kept."""
    path = HERE / "results" / f"rounds-{game}.jsonl"
    how = ("seconds", "warmup", "workers", "envs_per_worker", "quiet", "repeats")
    # Of another revision rounds may go on; whoever changes what of ours is measured removes the file.
    machine = {name: value for name, value in describe_machine().items() if name != "git_revision"}
    files = sorted(path for path in (HERE / "peers").iterdir() if path.suffix in (".txt", ".py"))
    peers = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    subject = {
        "game": GAMES[game][:2],
        "contenders": [(c.name, c.group, c.command[1:]) for c in contenders],  # in the order of a round
        "machine": machine,
        "peers": peers,
        **{name: getattr(args, name) for name in how},
    }
    rows, failures = open_rounds(path, subject)
    say(f"rounds of {game} are kept in {path}, where {len({row.round for row in rows})} are")
    return Rounds(contenders, rules, rows, failures, functools.partial(keep_round, path))


if __name__ == "__main__":
    sys.exit(main())
