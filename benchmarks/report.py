"""From measurements to the table: medians over undisturbed rounds, ratios between contenders of the same round."""

from collections.abc import Sequence
from statistics import quantiles
from typing import Any

from contenders import CEILINGS
from rounds import Rounds, Row

FRAMES_PER_STEP = 4
SCHEMA = 4  # of what is kept as JSON
Spread = dict[str, float]  # median, min, max; low and high, the quartiles
Pair = tuple[str, str]  # a group of ours, a group of theirs


def make_report(rounds: Rounds, workers: int, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return one summary per contender, the failures, and the ratios between the best of groups.

    Args:
        rounds: all of them; the pilot counts only where a contender was not measured again.
        workers: processes of a ceiling that have a core each, to turn processor time into a rate.
        pairs: of groups, whose speeds are compared where both were to be measured.
    """
    rows = rounds.rows
    summaries = {name: _summary([row for row in rows if row.contender == name]) for name in _names(rows)}
    best = {group: _best(group, rows, summaries) for group in dict.fromkeys(row.group for row in rows)}
    wanted = {contender.group for contender in rounds.contenders}
    ratios = {
        f"{ours} / {theirs}": _speed_ratio(rows, ours, theirs) for ours, theirs in pairs if {ours, theirs} <= wanted
    }
    if set(CEILINGS) <= set(best):
        ratios |= _roofline(rows, best, workers)
    return {"summaries": summaries, "failures": rounds.failures, "best": best, "ratios": ratios}


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.contender for row in rows))


def _summary(rows: list[Row]) -> dict[str, Any]:
    rounds = [row for row in rows if row.round > 0] or rows
    kept = [row.measurement for row in rounds if row.quiet]
    return {
        "group": rows[0].group,
        "pilot_only": rounds is rows and all(row.round == 0 for row in rows),
        "kept": len(kept),
        "dropped": len(rounds) - len(kept),
        "steps_per_second": spread_of([m.steps_per_second for m in kept]),
        "cpu_micros_per_step": spread_of([m.cpu_micros_per_step for m in kept]),
        "startup_seconds": spread_of([m.startup_seconds for m in kept]),
        "memory_megabytes": spread_of([m.memory_megabytes for m in kept]),
        "foreign_load": spread_of([m.foreign_load for m in kept]),
    }


def spread_of(values: list[float]) -> Spread | None:
    """Return median, least, largest and quartiles, or None where nothing was measured."""
    if not values:
        return None
    low, middle, high = quantiles(values, method="inclusive") if len(values) > 1 else 3 * values
    return {"median": middle, "min": min(values), "max": max(values), "low": low, "high": high}


def _best(group: str, rows: list[Row], summaries: dict[str, Any]) -> str | None:
    """Return the contender of `group` with the best median: least processor time for ceilings, else most steps/s."""
    measured = [n for n in _names([r for r in rows if r.group == group]) if summaries[n]["kept"]]
    measured = [n for n in measured if not summaries[n]["pilot_only"]] or measured
    if group in CEILINGS:
        return min(measured, key=lambda n: summaries[n]["cpu_micros_per_step"]["median"], default=None)
    return max(measured, key=lambda n: summaries[n]["steps_per_second"]["median"], default=None)


def _by_round(rows: list[Row], *names: str | None) -> list[list[Any]]:
    """Return the measurements of `names` in each round in which all of them were undisturbed."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row.round > 0 and row.quiet:
            found.setdefault(row.round, {})[row.contender] = row.measurement
    return [[of_round[name] for name in names] for of_round in found.values() if set(names) <= set(of_round)]


def _speed_ratio(rows: list[Row], ours: str, theirs: str) -> Spread | None:
    """Return how fast group `ours` is beside `theirs`: in each round, the fastest setting of either."""
    us, they = _fastest_by_round(rows, ours), _fastest_by_round(rows, theirs)
    return spread_of([us[number] / they[number] for number in us if number in they])


def _fastest_by_round(rows: list[Row], group: str) -> dict[int, float]:
    """Return the steps/s of the fastest setting of `group` in each round in which all of its settings were undisturbed.

    The fastest of the others might be slower than one that was disturbed or has failed since, and flatter whom it is
    compared with. Settings that never were undisturbed do not count.
    """
    quiet: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.round > 0 and row.group == group and row.quiet:
            quiet.setdefault(row.round, {})[row.contender] = row.measurement.steps_per_second
    settings = {name for speeds in quiet.values() for name in speeds}
    return {number: max(speeds.values()) for number, speeds in quiet.items() if set(speeds) == settings}


def _roofline(rows: list[Row], best: dict[str, str | None], workers: int) -> dict[str, Spread | None]:
    """Return our share of what environments and network alone would allow, in steps/s and in processor time."""
    share, cpu_share = [], []
    for ours, environments, network in _by_round(rows, best.get("asyncrl"), *(best[group] for group in CEILINGS)):
        floor = environments.cpu_micros_per_step + network.cpu_micros_per_step
        share.append(ours.steps_per_second / (workers * 1e6 / floor))
        cpu_share.append(floor / ours.cpu_micros_per_step)
    return {"share_of_roofline": spread_of(share), "share_of_roofline_cpu": spread_of(cpu_share)}


def print_report(result: dict[str, Any]) -> None:
    """Print the table, the failures and the ratios."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    settings, machine = result["settings"], result["machine"]
    table = Table(title=f"{result['title']}, {machine['cores']} cores: median (min to max)")
    table.add_column("contender", overflow="fold")
    for column in ("steps/s", "frames/s", "CPU us/step", "start-up s", "MB", "foreign load", "rounds"):
        table.add_column(column, justify="right")
    times = result.get("times", {})  # by group
    if times:
        table.add_column("score after")
    for name, summary in result["summaries"].items():
        group, is_best = summary["group"], name == result["best"][summary["group"]]
        table.add_row(*_cells(name, summary, is_best), *([times.get(group, "") if is_best else ""] if times else ()))
    for name, reason in result["failures"].items():
        table.add_row(name, f"[red]{escape(reason)}[/]")
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    console.print(
        f"{machine['processor']} ({machine['capability']}), torch {machine['torch']}; "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s",
        highlight=False,
    )
    for name, ratio in result["ratios"].items():
        console.print(f"{_TITLES.get(name, name)}: {text_of(ratio)}", highlight=False)


_TITLES = {
    "asyncrl / sb3": "asyncrl / best of SB3, steps/s of the same round",
    "share_of_roofline": "share of the roofline 1 / (environments + network), steps/s",
    "share_of_roofline_cpu": "the same in processor time per step",
}


def _cells(name: str, summary: dict[str, Any], is_best: bool) -> tuple[str, ...]:
    rate = summary["steps_per_second"]
    frames = None if rate is None else {key: FRAMES_PER_STEP * value for key, value in rate.items()}
    rounds = "pilot" if summary["pilot_only"] else str(summary["kept"])
    dropped = f", {summary['dropped']} disturbed" if summary["dropped"] else ""
    return (
        f"[bold]{name}[/]" if is_best else name,
        text_of(rate, ",.0f"),
        "" if frames is None else f"{frames['median']:,.0f}",
        text_of(summary["cpu_micros_per_step"], ",.0f"),
        "" if rate is None else f"{summary['startup_seconds']['median']:.1f}",
        "" if rate is None else f"{summary['memory_megabytes']['median']:,.0f}",
        "" if rate is None else f"{summary['foreign_load']['median']:.1%}",
        rounds + dropped,
    )


def text_of(spread: Spread | None, form: str = ".2f") -> str:
    """Return a median with its range."""
    if spread is None:
        return "no quiet round"
    low, high = f"{spread['min']:{form}}", f"{spread['max']:{form}}"
    middle = f"{spread['median']:{form}}"
    return middle if low == high else f"{middle} ({low} to {high})"
