"""Where lock-free sharing stops scaling: computed from constants that are measured here, for as many cores as you like.

python benchmarks/sharing.py
python benchmarks/sharing.py --presets paper57 --networks conv2015

Each update moves the parameters, the gradient and the optimiser's statistics through memory that all cores share:
workers beyond `bandwidth / (bytes of an update / seconds of an update)` wait for memory. That is an upper bound: acting
and the gradient read the weights too, from the caches where these are large enough. It is also only as good as the
bandwidth: one or two cores cannot use all that a larger machine has.

Pushes overlap as often as they last: beside `seconds of an update / seconds of a push` others, one is in progress on
average. An update is lost only where two of them meet in one cache line, between its reading and its writing.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import sys
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Literal

import torch
import tyro
from outcome import describe_machine, prepare
from rounds import say

from asyncrl.config import NetworkName, PresetName
from asyncrl.machine import available_cores
from asyncrl.presets import PRESETS
from asyncrl.roofline import update_bytes
from asyncrl.start import fresh_start, make_store
from asyncrl.store import ParameterStore
from asyncrl.worker import Learner, compute_update

CACHE_LINE_FLOATS = 16
LATENCY_SECONDS = 100e-9  # from the reading of a line to its writing being seen; assumed, as most memories have it
COPY_FLOATS = 1 << 24  # of each core, read and written: 128 MiB, beyond what caches hold
PATIENCE_SECONDS = 60.0  # against hanging


@dataclass(frozen=True)
class Arguments:
    """Compute how many workers can share one store."""

    # Presets to look at.
    presets: tuple[Literal["fast", "paper", "paper57"], ...] = ("fast", "paper")
    # Networks to look at each of them with.
    networks: tuple[NetworkName, ...] = ("conv2013", "conv2015")
    # The game.
    env: str = "ALE/Pong-v5"
    # Seconds of each measurement.
    seconds: float = 10.0
    # Print JSON instead of a table.
    json: bool = False


@dataclass(frozen=True)
class Needs:
    """What one worker, alone on its core, asks of the memory that it shares."""

    moved_bytes: int  # of an update
    parameters: int
    update_seconds: float  # from pull to push
    pull_seconds: float
    push_seconds: float


@dataclass(frozen=True)
class Sharing:
    """What follows for many workers."""

    name: str
    needs: Needs
    workers_at_bandwidth: float  # that the memory of this machine can feed at most
    workers_at_one_push: float  # with which one other push is in progress on average
    lost_per_worker: float  # share of a line's updates that each further worker loses


def main() -> int:
    """Measure, compute, print."""
    args = tyro.cli(Arguments, description=__doc__)
    prepare("sharing")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    one, every = bandwidth(1, args.seconds), bandwidth(available_cores(), args.seconds)
    say(f"bandwidth: {one / 1e9:.1f} GB/s for one core, {every / 1e9:.1f} GB/s for {available_cores()}")
    found = [measured(args, preset, network, every) for preset in args.presets for network in args.networks]
    if args.json:
        rows = [dataclasses.asdict(sharing) for sharing in found]
        print(json.dumps({"bandwidth": [one, every], "machine": describe_machine(), "rows": rows}))
        return 0
    print(
        "| | MB an update | ms an update | pull, ms | push, ms | workers: memory | one other push | lost per worker |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in found:
        needs = row.needs
        print(
            f"| {row.name} | {needs.moved_bytes / 1e6:.1f} | {1e3 * needs.update_seconds:.1f} "
            f"| {1e3 * needs.pull_seconds:.2f} | {1e3 * needs.push_seconds:.2f} | {row.workers_at_bandwidth:,.0f} "
            f"| {row.workers_at_one_push:,.0f} | {row.lost_per_worker:.0e} |"
        )
    return 0


def bandwidth(cores: int, seconds: float) -> float:
    """Return the bytes per second that `cores` processes read and write while all of them copy."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(cores), context.Queue()
    processes = [context.Process(target=copy, args=(barrier, results, seconds), daemon=True) for _ in range(cores)]
    for process in processes:
        process.start()
    total = sum(results.get(timeout=PATIENCE_SECONDS + seconds) for _ in processes)
    for process in processes:
        process.join()
    return total


def copy(barrier: Barrier, results: "multiprocessing.Queue[float]", seconds: float) -> None:
    """Copy for as long as the others do; put the bytes per second."""
    torch.set_num_threads(1)
    source, target = torch.ones(COPY_FLOATS), torch.ones(COPY_FLOATS)
    target.copy_(source)
    barrier.wait(PATIENCE_SECONDS)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        target.copy_(source)
        count += 1
    results.put(2 * source.nbytes * count / passed)


def measured(args: Arguments, preset: PresetName, network: NetworkName, bytes_per_second: float) -> Sharing:
    """Return what one worker of `preset` with `network` asks for, alone on this core."""
    config = dataclasses.replace(PRESETS[preset](), env=args.env, network=network, workers=1)
    start = fresh_start(config)
    store = make_store(config, start, None)
    learner = Learner(config, 0, statistics=start.statistics)
    with contextlib.closing(learner):
        loop(learner, store, args.seconds / 4)  # warm-up
        updates, seconds, pulling, pushing = loop(learner, store, args.seconds)
    update, push = seconds / updates, pushing / updates
    needs = Needs(update_bytes(store), store.theta.numel(), update, pulling / updates, push)
    return sharing(f"{preset}, {network}", needs, bytes_per_second)


def sharing(name: str, needs: Needs, bytes_per_second: float) -> Sharing:
    """Return what follows from `needs` where all cores together copy `bytes_per_second`."""
    window = max(needs.push_seconds / (needs.parameters / CACHE_LINE_FLOATS), LATENCY_SECONDS)
    return Sharing(
        name,
        needs,
        workers_at_bandwidth=bytes_per_second / (needs.moved_bytes / needs.update_seconds),
        workers_at_one_push=1 + needs.update_seconds / needs.push_seconds,
        lost_per_worker=window / needs.update_seconds,  # another worker passes there once an update
    )


def loop(learner: Learner, store: ParameterStore, seconds: float) -> tuple[int, float, float, float]:
    """Learn for `seconds` of this core; return updates, and seconds of all, of pulls and of pushes."""
    updates, pulling, pushing, began = 0, 0.0, 0.0, time.process_time()
    while (passed := time.process_time() - began) < seconds or not updates:
        before = time.process_time()
        pulled = learner.pull(store)
        pulling += time.process_time() - before
        update = compute_update(learner)
        before = time.process_time()
        store.apply(0, update, pulled)
        pushing += time.process_time() - before
        updates += 1
    return updates, passed, pulling, pushing


if __name__ == "__main__":
    sys.exit(main())
