"""Pictures of runs: learning curves against frames and against time."""

import contextlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asyncrl.config_file import read_run_config
from asyncrl.errors import UserError, require_place
from asyncrl.journals import read_json_lines
from asyncrl.metrics import RECENT_EPISODES
from asyncrl.pointers import run_instead

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
    for run in runs:
        if not run.is_dir():
            raise UserError(f"there is no run at {run}")
        if not (run / "config.toml").exists() and (instead := run_instead(run)):
            raise UserError(f"{run} holds no training{instead}")
    read = {run: _read(run, by_epsilon) for run in runs}
    drawn = {run: drawing for run, drawing in read.items() if drawing.curves}
    if not drawn:
        raise UserError(f"{', '.join(map(str, runs))}: no finished episodes to plot")
    _draw(_told_apart(drawn), out)
    return [run for run in read if run not in drawn]


def _told_apart(drawings: dict[Path, _Drawing]) -> list[_Drawing]:
    """Add their folders to those of the same label."""
    times = Counter(drawing.label for drawing in drawings.values())
    return [
        drawing._replace(label=f"{drawing.label}, {run}") if times[drawing.label] > 1 else drawing
        for run, drawing in drawings.items()
    ]


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
                name = literal(label + what)
                axis.plot(curve[column] / scale, curve["score"], style, color=colour, label=name, linewidth=1.6)
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
    save_figure(figure, out)


def literal(text: str) -> str:
    """Return `text` as matplotlib draws it: between two $ it would find mathematics."""
    return text.replace("$", r"\$")


def save_figure(figure: Any, out: Path) -> None:
    """Write a figure of pyplot's and close it; an older picture is replaced by a whole one or stays.

    Raises:
        UserError: if it cannot be written.
    """
    from matplotlib import pyplot

    final = out.resolve()  # where `out` is a link, it stays one
    aside = final.with_name(f".{final.stem}.part{final.suffix}")
    try:
        figure.savefig(aside, dpi=140)
        aside.replace(final)
    except Exception as error:  # of matplotlib, or of LaTeX, which some kinds of picture need
        raise UserError(f"cannot write {out}: {' '.join(str(error).split())}") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        pyplot.close(figure)


def _read(run: Path, by_epsilon: bool) -> _Drawing:
    config = read_run_config(run)
    options = f" {config.env_options}" if config.env_options else ""
    label = f"{config.env}{options} {config.algo}-{config.core} {config.preset}, seed {config.seed}"
    label = f" {label}" if label.startswith("_") else label  # of which matplotlib makes no entry
    try:
        return _Drawing(label, _curves(run, by_epsilon), _evaluations(run))
    except (KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
        raise UserError(f"the rows of {run} are damaged: {type(error).__name__}: {error}") from None


def _curves(run: Path, by_epsilon: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the curve of `run`, or one for each final epsilon; none if it has no episodes."""
    episodes = read_json_lines(run / "episodes.jsonl")
    if not episodes:
        return {}
    if by_epsilon and any("final_epsilon" not in row for row in episodes):
        raise UserError(f"{run} has episodes without a final epsilon: --by-epsilon is for Q methods")
    episodes = _gone_on_with(episodes, "at_frames")
    if not by_epsilon:
        return {"": _curve(episodes)}
    groups: dict[float, list[dict]] = {}
    for row in episodes:
        groups.setdefault(row["final_epsilon"], []).append(row)
    return {f", epsilon {epsilon:g}": _curve(groups[epsilon]) for epsilon in sorted(groups)}


def _column(rows: list[dict], name: str) -> np.ndarray:
    """Return the numbers of a column, which somebody else may have written.

    Raises:
        TypeError, ValueError, OverflowError: if one is no finite number.
    """
    numbers = np.array([float(row[name]) for row in rows])
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} is no finite number")
    return numbers


def _gone_on_with(rows: list[dict], frames: str) -> list[dict]:
    """Leave out what was given up: a run that went on from an older checkpoint has its frames twice."""
    counts = _column(rows, frames)
    lowest_after = np.minimum.accumulate(counts[::-1])[::-1]
    return [row for row, kept in zip(rows, counts <= lowest_after, strict=True) if kept]


def _curve(episodes: list[dict]) -> dict[str, np.ndarray]:
    scores = _column(episodes, "score")
    sums = np.cumsum(np.insert(scores, 0, 0.0))
    window = np.minimum(np.arange(1, len(scores) + 1), RECENT_EPISODES)
    ends = np.arange(1, len(scores) + 1)
    curve = {
        "frames": _column(episodes, "at_frames"),
        "seconds": _column(episodes, "at_seconds"),
        "score": (sums[ends] - sums[ends - window]) / window,
    }
    drawn = window >= min(FEWEST_EPISODES, len(scores) // 2)
    drawn[:-1] &= curve["frames"][1:] != curve["frames"][:-1]  # where several end at once, the mean after all of them
    return {name: values[drawn] for name, values in curve.items()}


def _evaluations(run: Path) -> dict[str, np.ndarray]:
    rows = _gone_on_with(read_json_lines(run / "metrics.jsonl"), "frames")
    rows = [row for row in rows if "evaluated_episodes" in row]
    columns = {"frames": "frames", "seconds": "seconds", "score": "evaluated_score"}
    return {name: _column(rows, column) for name, column in columns.items()}
