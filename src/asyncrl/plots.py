"""Pictures of runs: learning curves against frames and against time."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asyncrl.config_file import read_config
from asyncrl.errors import UserError, require_place
from asyncrl.journals import read_json_lines
from asyncrl.metrics import RECENT_EPISODES

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
LABEL_LENGTH = 70  # characters; two longer ones do not stand side by side
FEWEST_EPISODES = 20  # of a mean that is drawn, where a run has twice as many: the mean of the first few leaps about
_STYLES = ("-", "--", ":", "-.")


class _Drawing(NamedTuple):
    """What a picture shows of a run."""

    label: str
    curves: dict[str, dict[str, np.ndarray]]  # by what the legend adds to the label
    dots: dict[str, np.ndarray]


def plot_runs(runs: list[Path], out: Path, *, by_epsilon: bool = False) -> list[Path]:
    """Draw the mean score of the last 100 training episodes, and evaluations as dots, of each run into `out`.

    Args:
        runs: folders.
        out: the picture.
        by_epsilon: draw a curve for each final epsilon of a Q method's environments.

    Returns:
        the runs left out, because they have no finished episodes yet.

    Raises:
        UserError: if no run has any, or `out` cannot be written.
    """
    if not out.suffix:  # matplotlib would add one
        raise UserError(f"{out} must end in .png, .pdf, .svg or another kind of picture")
    require_place(out)
    read = [(run, _read(run, by_epsilon)) for run in runs]
    left_out = [run for run, drawing in read if not drawing.curves]
    if len(left_out) == len(runs):
        raise UserError(f"{', '.join(map(str, runs))}: no finished episodes to plot")
    _draw([drawing for _, drawing in read if drawing.curves], out)
    return left_out


def _draw(drawings: list[_Drawing], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    most = max(curve["frames"][-1] for drawing in drawings for curve in drawing.curves.values())
    unit, frames_per_unit = ("millions", 1e6) if most >= 1e6 else ("thousands", 1e3)
    for (label, curves, dots), colour in zip(drawings, itertools.cycle(_COLOURS)):
        for axis, column, scale in ((axes[0], "frames", frames_per_unit), (axes[1], "seconds", 60.0)):
            for (what, curve), style in zip(curves.items(), itertools.cycle(_STYLES)):
                axis.plot(curve[column] / scale, curve["score"], style, color=colour, label=label + what, linewidth=1.6)
            if len(dots["score"]):
                axis.plot(dots[column] / scale, dots["score"], "o", color=colour, markersize=5, markeredgecolor="white")
    axes[0].set(xlabel=f"environment frames ({unit})", ylabel=f"score (mean of {RECENT_EPISODES}; dots: evaluated)")
    axes[1].set(xlabel="wall-clock minutes")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= LABEL_LENGTH else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    try:
        figure.savefig(out, dpi=140)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {out}: {' '.join(str(error).split())}") from None
    finally:
        pyplot.close(figure)


def _read(run: Path, by_epsilon: bool) -> _Drawing:
    config = read_config(run / "config.toml")
    options = f" {config.env_options}" if config.env_options else ""
    label = f"{config.env}{options} {config.algo}-{config.core} {config.preset}, seed {config.seed}"
    try:
        return _Drawing(label, _curves(run, by_epsilon), _evaluations(run))
    except (KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
        raise UserError(f"the rows of {run} are damaged: {type(error).__name__}: {error}") from None


def _curves(run: Path, by_epsilon: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the curve of `run`, or one for each final epsilon; none if it has no episodes."""
    episodes = read_json_lines(run / "episodes.jsonl")
    if not episodes:
        return {}
    if not by_epsilon:
        return {"": _curve(episodes)}
    if any("final_epsilon" not in row for row in episodes):
        raise UserError(f"{run} has episodes without a final epsilon: --by-epsilon is for Q methods")
    groups: dict[float, list[dict]] = {}
    for row in episodes:
        groups.setdefault(row["final_epsilon"], []).append(row)
    return {f", epsilon {epsilon:g}": _curve(groups[epsilon]) for epsilon in sorted(groups)}


def _curve(episodes: list[dict]) -> dict[str, np.ndarray]:
    scores = np.array([row["score"] for row in episodes])
    sums = np.cumsum(np.insert(scores, 0, 0.0))
    window = np.minimum(np.arange(1, len(scores) + 1), RECENT_EPISODES)
    ends = np.arange(1, len(scores) + 1)
    curve = {
        "frames": np.array([row["at_frames"] for row in episodes]),
        "seconds": np.array([row["at_seconds"] for row in episodes]),
        "score": (sums[ends] - sums[ends - window]) / window,
    }
    drawn = window >= min(FEWEST_EPISODES, len(scores) // 2)
    drawn[:-1] &= curve["frames"][1:] != curve["frames"][:-1]  # where several end at once, the mean after all of them
    return {name: values[drawn] for name, values in curve.items()}


def _evaluations(run: Path) -> dict[str, np.ndarray]:
    rows = [row for row in read_json_lines(run / "metrics.jsonl") if "evaluated_episodes" in row]
    columns = {"frames": "frames", "seconds": "seconds", "score": "evaluated_score"}
    return {name: np.array([row[column] for row in rows]) for name, column in columns.items()}
