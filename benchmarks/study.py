"""Study: every method on small worlds, several seeds each, one JSON line per run and a table of all.

    python benchmarks/study.py study.jsonl                              # again after an interruption: it goes on
    python benchmarks/study.py study.jsonl --only CartPole --seeds 100 101   # settings are found with seeds from 100
    python benchmarks/study.py study.jsonl --table                      # only the table of what is there

Settings are those of the presets, but for what CELLS says. Every run is evaluated at its end over 100 full episodes:
actor-critics draw their actions from the policy, Q methods play epsilon-greedily with 0.01.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from kept_rounds import append_line

import asyncrl
from asyncrl.run import git_revision

EPISODES = 100
EVALUATION_SEED = 10_000  # plus the run's: never a seed of training
RESAMPLES = 10_000
METHODS = ("a3c", "n-step-q", "one-step-q", "one-step-sarsa", "a2c")


@dataclass(frozen=True)
class Cell:
    """One row of the table: a method in a world."""

    env: str
    algo: str
    goal: float  # mean score that counts as solved
    frames: int
    core: str = "ff"
    stop_at: float | None = None  # evaluated mean of 30 episodes that ends the run before its frames do
    settings: dict[str, Any] = field(default_factory=dict)  # that differ from the preset's

    @property
    def name(self) -> str:
        """World, method and core."""
        return f"{self.env} {self.algo} {self.core}"


PENDULUM = {"reward_scale": 0.1, "entropy_cost": 0.01, "max_grad_norm": 0.5}
CATCH = {"envs_per_worker": 4, "t_max": 9, "learning_rate": 3e-3}
# All methods find good policies for CartPole and may lose them again: a run ends where it has one. Action values are up
# to 100 with rewards of 1, which saturated cells cannot tell apart. One-step targets keep what they learn with
# more copies to the target parameters and a smaller learning rate than the preset's (docs/log.md).
Q_CARTPOLE = {"reward_scale": 0.05}
ONE_STEP_CARTPOLE = Q_CARTPOLE | {"learning_rate": 2e-4, "target_share": 0.004}
CARTPOLE = {
    "a3c": {},
    "n-step-q": Q_CARTPOLE,
    "one-step-q": ONE_STEP_CARTPOLE,
    "one-step-sarsa": ONE_STEP_CARTPOLE,
    "a2c": {},
}
CELLS = (
    *(Cell("asyncrl/Catch-v0", algo, 0.9, 100_000, settings=CATCH) for algo in METHODS),
    *(Cell("CartPole-v1", algo, 475, 1_000_000, stop_at=490, settings=CARTPOLE[algo]) for algo in METHODS),
    *(
        Cell(
            "asyncrl/MemoryChain-v0",
            algo,
            0.9,
            400_000,
            core,
            settings={"lstm_size": 64, "separate_networks": False},
        )
        for algo in ("a3c", "n-step-q")
        for core in ("ff", "lstm")
    ),
    # Half a second ahead is enough, and values of a few units: its rewards are -16 to 0 a step.
    Cell("Pendulum-v1", "a3c", -200, 800_000, settings=PENDULUM | {"gamma": 0.9, "network": "mlp200"}),
    # Up to 100 points ahead at a discount of 0.99, and actions that must be exact at the end: little entropy.
    Cell(
        "InvertedPendulum-v5",
        "a3c",
        950,
        400_000,
        settings=PENDULUM | {"reward_scale": 0.02, "entropy_cost": 1e-3},
    ),
)


def main() -> None:
    """Make the runs that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines, one a run; appended to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--table", action="store_true", help="make no run")
    args = parser.parse_args()
    cells = [cell for cell in CELLS if args.only in cell.name]
    # Seeds are the outer loop: interrupted, it leaves a table with fewer seeds, not with fewer rows.
    for seed in [] if args.table else args.seeds:
        for cell in cells:
            if not any(is_of(row, cell, [seed]) for row in read(args.results)):
                row = run(cell, seed)
                append_line(args.results, row)
                print(f"{cell.name} seed {seed}: {row['score']:.2f}, {row['seconds']:.0f} s", flush=True)
    print_table(cells, args.seeds, read(args.results))


def run(cell: Cell, seed: int) -> dict[str, Any]:
    """Train `cell` with `seed`, evaluate it, return its line of results."""
    with tempfile.TemporaryDirectory() as folder:
        trained = asyncrl.train(
            cell.env,
            algo=cell.algo,
            core=cell.core,
            frames=cell.frames,
            stop_at_score=cell.stop_at,
            seed=seed,
            run_dir=Path(folder) / "run",
            show=lambda _: None,
            announce=lambda _: None,
            **cell.settings,
        )
        require_whole(trained)
        assert trained.outcome is not None
        scores = [episode.score for episode in trained.agent().evaluate(EPISODES, seed=EVALUATION_SEED + seed)]
    return {
        **asdict(cell),
        "seed": seed,
        "score": fmean(scores),
        "deviation": pstdev(scores),
        "preset": trained.config.preset,
        "steps": trained.outcome.progress.steps,
        "seconds": trained.outcome.progress.seconds,
        "revision": git_revision(),
    }


def require_whole(trained: asyncrl.Run) -> None:
    """End the study where Ctrl-C has ended a training: half a run is no result."""
    if trained.outcome is None or trained.outcome.reason == "interrupted":
        raise KeyboardInterrupt


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `path`, which need not exist."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def is_of(row: dict[str, Any], cell: Cell, seeds: list[int]) -> bool:
    """Return whether `row` is a run of `cell`, as it is set now, with one of `seeds`."""
    return row["seed"] in seeds and all(row[name] == value for name, value in asdict(cell).items())


def print_table(cells: list[Cell], seeds: list[int], rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table with a row for each cell that has runs."""
    print("| world | method | core | frames | solved | IQM (95 %) | scores, by seed |\n|---|---|---|---|---|---|---|")
    for cell in cells:
        found = sorted((row for row in rows if is_of(row, cell, seeds)), key=lambda row: row["seed"])
        scores = np.array([row["score"] for row in found])
        if len(scores):
            low, high = interval(scores)
            solved = f"{(scores >= cell.goal).sum()} of {len(scores)}"
            print(
                f"| {cell.env} | {cell.algo} | {cell.core} | {cell.frames:,} | {solved} at {cell.goal:g} "
                f"| {float(interquartile_mean(scores)):.3g} ({low:.3g} to {high:.3g}) "
                f"| {', '.join(f'{score:.3g}' for score in scores)} |"
            )


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean [...] of the middle half of `scores` [..., N]: a quarter is cut off at both ends, rounded down.

    As Agarwal et al. (2021) report runs.
    """
    cut = scores.shape[-1] // 4
    return np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(-1)


def interval(scores: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the interquartile mean of `scores` [N], by bootstrap over runs."""
    drawn = np.random.default_rng(0).choice(scores, (RESAMPLES, len(scores)))
    low, high = np.percentile(interquartile_mean(drawn), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
