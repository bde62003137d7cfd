"""Data efficiency of one-step Q-learning with 1 to 16 simulated workers on Catch, as the paper's Figures 3 and 4.

    python benchmarks/data_efficiency.py runs.jsonl --out efficiency.png    # again after an interruption: it goes on

As the paper draws learning rates and shows the best, each number of workers has the one of RATES that did best over
all seeds. Every environment explores with the same final epsilon, so that one worker is not at the mercy of its draw.
"""

import argparse
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from kept_rounds import append_line
from study import interquartile_mean, interval, read, require_whole

import asyncrl

RATES = (7e-4, 2e-3, 6e-3, 2e-2)
FRAMES, BINS, GOAL = 40_000, 40, 0.5
COLOURS = ("#000000", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
SETTINGS: dict[str, Any] = {
    "preset": "paper",
    "algo": "one-step-q",
    "schedule": "simulated",
    "network": "auto",
    "frames": FRAMES,
    "final_learning_rate_fraction": 1.0,
    "optimizer_epsilon": 1e-3,
    "epsilon_frames": 4_000,
    "final_epsilons": (0.05,),
    "final_epsilon_probabilities": (1.0,),
    "target_frames": 500,
}


def run(workers: int, rate: float, seed: int) -> dict[str, Any]:
    """Train once; return the mean training score in each of BINS equal shares of the frames."""
    with tempfile.TemporaryDirectory() as folder:
        trained = asyncrl.train(
            "asyncrl/Catch-v0",
            **SETTINGS,
            workers=workers,
            learning_rate=rate,
            seed=seed,
            run_dir=Path(folder) / "run",
            show=lambda _: None,
            announce=lambda _: None,
        )
        require_whole(trained)
        scores = [row["score"] for row in trained.episodes()]
    # In the order of their ends, and all of one length: equal shares of them are equal shares of the frames.
    curve = [float(share.mean()) for share in np.array_split(np.array(scores), BINS)]
    return {"workers": workers, "learning_rate": rate, "seed": seed, "curve": curve}


def best_curves(rows: list[dict[str, Any]], workers: int, seeds: list[int]) -> tuple[float, np.ndarray]:
    """Return the rate with the highest mean score over the whole run, and its curves [seeds, BINS]."""
    curves = {
        rate: np.array([row["curve"] for row in rows if is_of(row, workers, rate) and row["seed"] in seeds])
        for rate in RATES
    }
    rate = max(curves, key=lambda rate: curves[rate].mean())
    return rate, curves[rate]


def is_of(row: dict[str, Any], workers: int, rate: float) -> bool:
    """Return whether `row` is a run with these settings."""
    return (row["workers"], row["learning_rate"]) == (workers, rate)


def frames_to_goal(curve: np.ndarray) -> float:
    """Return after how many frames the mean score of a share first reached GOAL, or infinity."""
    reached = np.flatnonzero(curve >= GOAL)
    return float((reached[0] + 1) * FRAMES / BINS) if len(reached) else float("inf")


def main() -> None:
    """Make the runs that are missing, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines, one a run; appended to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--out", type=Path, default=Path("efficiency.png"))
    args = parser.parse_args()
    for seed in args.seeds:
        for workers in args.workers:
            for rate in RATES:
                if not any(is_of(row, workers, rate) and row["seed"] == seed for row in read(args.results)):
                    append_line(args.results, run(workers, rate, seed))
    report(read(args.results), args.workers, args.seeds, args.out)


def report(rows: list[dict[str, Any]], counts: list[int], seeds: list[int], out: Path) -> None:
    """Print one row for each number of workers; draw scores against all frames and against those of a worker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    frames = (np.arange(BINS) + 0.5) * FRAMES / BINS
    print(
        f"| workers | best rate | frames to {GOAL:g}, by seed | mean score of the run, IQM (95 %) |\n|---|---|---|---|"
    )
    for workers, colour in zip(counts, cycle(COLOURS), strict=False):
        rate, curves = best_curves(rows, workers, seeds)
        needed = ", ".join(f"{frames_to_goal(curve):,.0f}" for curve in curves)
        means = curves.mean(1)
        low, high = interval(means)
        print(f"| {workers} | {rate:g} | {needed} | {interquartile_mean(means):.2f} ({low:.2f} to {high:.2f}) |")
        for axis, scale in zip(axes, (1, workers), strict=True):
            axis.plot(frames / scale, curves.mean(0), color=colour, label=f"{workers} worker{'s' * (workers > 1)}")
            axis.fill_between(frames / scale, curves.min(0), curves.max(0), color=colour, alpha=0.12, linewidth=0)
    axes[0].set(xlabel="frames of all workers", ylabel=f"score (mean and range of {len(seeds)} seeds)")
    axes[1].set(xlabel="frames of each worker", xscale="log")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(out, dpi=140)


if __name__ == "__main__":
    main()
