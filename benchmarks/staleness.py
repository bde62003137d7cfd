"""Staleness of real processes beside that of simulated asynchrony: a table and a plot.

`python benchmarks/staleness.py RUN [RUN ...] --out staleness.png` takes the histograms that runs logged; a simulated
order needs only the number of workers and a distribution of delays (`orders.py`), no environments.
"""

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np

from asyncrl.config_file import read_config
from asyncrl.journals import read_json_lines
from asyncrl.orders import DELAYS, drawn_order, staleness_of

EVENTS = 400_000  # of a simulated order: half as many pushes
COLOURS = {
    "constant": "#009E73",
    "uniform": "#56B4E9",
    "exponential": "#D55E00",
    "gamma": "#0072B2",
    "pareto": "#CC79A7",
}


def logged(run: Path) -> Counter[int]:
    """Return how many updates of `run` had how much staleness; the first rows, where workers still start, left out."""
    rows = [
        row["staleness_histogram"] for row in read_json_lines(run / "metrics.jsonl") if "staleness_histogram" in row
    ]
    total: Counter[int] = Counter()
    for row in rows[3:]:
        total.update({int(lag): count for lag, count in row.items()})
    return total


def shares(counts: Counter[int], largest: int) -> np.ndarray:
    """Return the share of each staleness from 0 to `largest` and more."""
    result = np.zeros(largest + 1)
    for lag, count in counts.items():
        result[min(lag, largest)] += count
    return result / result.sum()


def quantile(counts: Counter[int], share: float) -> int:
    """Return the least staleness that `share` of the updates do not exceed."""
    lags = sorted(counts)
    reached = np.cumsum([counts[lag] for lag in lags]) / counts.total()
    return lags[int(np.searchsorted(reached, share))]


def report(title: str, counts: Counter[int], real: Counter[int]) -> None:
    """Print one row: mean, median, 99 %, largest, and the total variation distance from the real processes."""
    mean = sum(lag * count for lag, count in counts.items()) / counts.total()
    largest = max(*counts, *real)
    distance = np.abs(shares(counts, largest) - shares(real, largest)).sum() / 2
    median, high = quantile(counts, 0.5), quantile(counts, 0.99)
    print(f"| {title} | {mean:.2f} | {median} | {high} | {max(counts)} | {distance:.2f} |")


def main() -> None:
    """Print the table, draw the plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("staleness.png"))
    args = parser.parse_args()
    figure, axes = pyplot.subplots(1, len(args.runs), figsize=(5.5 * len(args.runs), 4), layout="constrained")
    print("| what | mean | median | 99 % | largest | distance from real |\n|---|---|---|---|---|---|")
    for axis, run in zip(np.atleast_1d(axes), args.runs, strict=True):
        config = read_config(run / "config.toml")
        workers, real = config.workers, logged(run)
        largest = max(quantile(real, 0.999), 2 * workers)
        lags = np.arange(largest + 1)
        what = f"{config.env}, {workers} processes x {config.envs_per_worker}"
        axis.bar(lags, shares(real, largest), color="#CCCCCC", width=0.9, label=f"{workers} processes")
        report(what, real, real)
        for delays, colour in COLOURS.items():
            order = drawn_order(workers, delays, np.random.default_rng(0))
            counts = Counter(staleness_of(islice(order, EVENTS)))
            axis.plot(lags, shares(counts, largest), color=colour, marker=".", linewidth=1.2, label=f"{delays} delays")
            report(f"{workers} simulated, {delays}", counts, real)
        axis.set(
            xlabel="updates of others between pull and push", title=what, ylim=(0, 1.5 * shares(real, largest).max())
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    np.atleast_1d(axes)[0].set(ylabel="share of updates")
    figure.savefig(args.out, dpi=130)


assert set(COLOURS) == set(DELAYS)
if __name__ == "__main__":
    main()
