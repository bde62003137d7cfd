"""The verb `bench`: how fast this machine trains, where each microsecond goes, and what parts cost by themselves."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncrl.config import Config
from asyncrl.errors import UserError, require_place
from asyncrl.plots import literal, save_figure
from asyncrl.quantities import counted
from asyncrl.roofline import FLOORS
from asyncrl.spans import SPANS
from asyncrl.speed import Speed, Window, measure_speed, trainable
from asyncrl.start import slower_without

# Okabe and Ito (2008), and greys for what is neither game nor network.
COLOURS = {
    "pull": "#999999",
    "preprocessing": "#56B4E9",
    "acting": "#0072B2",
    "sampling": "#CC79A7",
    "environment": "#009E73",
    "emulator": "#009E73",
    "pictures": "#56B4E9",
    "training": "#E69F00",
    "backward": "#D55E00",
    "push": "#666666",
    "bookkeeping": "#CCCCCC",
    "arithmetic": "#0072B2",
    "memory": "#666666",
}
LONELY = 0.9  # share of a core that a worker has on a quiet machine, at least


@dataclass(frozen=True)
class Profile:
    """Microseconds of one worker per agent step."""

    spans: dict[str, float]  # measured, in the order of SPANS
    floors: dict[str, float]  # what parts cost by themselves, of those in FLOORS that the world has
    clocks: float  # what the clocks themselves add, if it can be told from noise


def profile_of(speed: Speed) -> Profile:
    """Return where the time went, from the faster half of the windows: others' work only ever slows one down."""
    assert speed.floors is not None
    timed = _faster_half([window for window in speed.windows if window.spans is not None])
    plain = _faster_half([window for window in speed.windows if window.spans is None])
    if not timed:
        raise UserError("no update was finished under the clocks: measure longer, as with --seconds 30")
    steps = sum(window.steps for window in timed)
    sums = {name: sum(window.spans[name] for window in timed if window.spans) for name in SPANS}
    spans = {name: seconds / steps * 1e6 for name, seconds in sums.items()}
    without = sum(window.seconds for window in plain) / sum(window.steps for window in plain) * 1e6
    floors = {name: speed.floors[name] * 1e6 for name in FLOORS if name in speed.floors}
    return Profile(spans, floors, max(0.0, sum(spans.values()) - without))


def _faster_half(windows: list[Window]) -> list[Window]:
    ranked = sorted(windows, key=lambda window: window.seconds / window.steps)
    return ranked[: (len(ranked) + 1) // 2]


def bench_verb(args: Sequence[str]) -> int:
    """Measure training speed."""
    import tyro

    from asyncrl.arguments import Flag, parse
    from asyncrl.cli_config import starting_point

    _, start, rest = starting_point(args, "ALE/Pong-v5")

    @dataclass(frozen=True)
    class Bench:
        """Measure how fast ENV (ALE/Pong-v5) trains here. Options not given are those of --config or --preset."""

        settings: tyro.conf.OmitArgPrefixes[Config]
        # A TOML file to start from, such as the config.toml of a run.
        config: Path | None = None
        # Also tell where each microsecond of an agent step goes, and draw it.
        profile: Flag = False
        # The picture that --profile draws.
        out: Path = Path("profile.png")
        # Seconds to measure, after the warm-up.
        seconds: float = 10.0
        # Seconds of warm-up.
        warmup: float = 3.0
        # Report in JSON.
        json: Flag = False

    given = parse(Bench, rest, "asyncrl bench", Bench(start), first="[ENV]")
    if not given.seconds > 0 or not given.warmup >= 0:
        raise UserError("--seconds must be positive, and --warmup 0 or more")
    if given.profile:
        require_writable(given.out)
    # The preset as it is for this world.
    settings = trainable(dataclasses.replace(given.settings, preset=start.preset))
    if (slower := slower_without(settings)) is not None:
        print(slower, file=sys.stderr)
    print(f"measuring {settings.env} for {given.warmup:g} + {given.seconds:g} seconds ...", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(sys.stderr):  # what environments print must not come between lines of JSON
        speed = measure_speed(settings, seconds=given.seconds, warmup=given.warmup, profile=given.profile)
    profile = profile_of(speed) if given.profile else None
    if profile is not None:
        draw(speed, profile, given.out)
    print(json.dumps(as_row(speed, profile)) if given.json else as_text(speed, profile, given.out))
    return 0


def require_writable(out: Path) -> None:
    """Complain before a measurement of whose picture nothing would be left."""
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out is {out}: pictures end with .png, .pdf or .svg")
    require_place(out)


def as_row(speed: Speed, profile: Profile | None) -> dict[str, Any]:
    """Return what is told in JSON."""
    config = speed.config
    row: dict[str, Any] = {
        "env": config.env,
        "preset": config.preset,
        "workers": config.workers,
        "envs_per_worker": config.envs_per_worker,
        "kernels": "torch" if slower_without(config) else config.kernels,
        "steps_per_second": speed.steps_per_second,
        "frames_per_second": speed.frames_per_second,
        "cpu_micros_per_step": speed.cpu_micros_per_step,
        "memory_megabytes": speed.memory_megabytes,
        "cpu_share": speed.cpu_share,
    }
    if profile is not None:
        row |= {"micros_per_step": profile.spans, "floors": profile.floors, "clocks": profile.clocks}
    return row


def as_text(speed: Speed, profile: Profile | None, out: Path) -> str:
    """Return what is told to people."""
    config = speed.config
    lines = [
        f"{config.env}, {config.workers} x {counted(config.envs_per_worker, 'environment')}"
        f"{', in bfloat16' if config.kernels == 'bf16' else ''}: "
        f"{speed.steps_per_second:,.0f} steps/s, {speed.frames_per_second:,.0f} frames/s, "
        f"{speed.cpu_micros_per_step:,.0f} us of CPU a step, {speed.memory_megabytes:,.0f} MB a worker"
    ]
    if profile is None:
        return lines[0]
    total = sum(profile.spans.values())
    if speed.cpu_share < LONELY:
        lines += [f"others were busy: the workers had {speed.cpu_share:.0%} of a core each, and waiting is time too"]
    lines += ["", "microseconds of a worker per agent step", *_table(profile.spans, SPANS, total)]
    lines += [f"  {'':14}{total:8.0f}        of which the clocks take {profile.clocks:.0f}"]
    lines += ["", "by themselves", *_table(profile.floors, FLOORS, total), "", f"drawn in {out}"]
    return "\n".join(lines)


def _table(micros: dict[str, float], meanings: dict[str, str], total: float) -> list[str]:
    return [f"  {name:14}{value:8.1f} {value / total:6.1%}  {meanings[name]}" for name, value in micros.items()]


def draw(speed: Speed, profile: Profile, out: Path) -> None:
    """Draw a stacked bar of what a step takes above one of what parts of it take by themselves.

    Raises:
        UserError: if `out` cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    config = speed.config
    figure, axis = pyplot.subplots(figsize=(11, 4.4), layout="constrained")
    for height, micros in ((1.5, profile.spans), (0, profile.floors)):
        _draw_bar(axis, height, micros, sum(profile.spans.values()))
    axis.set_yticks([1.5, 0], ["a step takes", "by themselves"])
    axis.set_ylim(-0.85, 2.35)
    axis.set_xlabel("microseconds of a worker per agent step")
    axis.set_title(
        f"{literal(config.env)} {config.algo}-{config.core}, {config.workers} x "
        f"{counted(config.envs_per_worker, 'environment')}: "
        f"{speed.steps_per_second:,.0f} steps/s",
        fontsize=10,
    )
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    save_figure(figure, out)


def _draw_bar(axis: Any, height: float, micros: dict[str, float], total: float) -> None:
    """Draw one bar; what is too narrow for a name within gets it above or below, near or far, in turn."""
    left, outside = 0.0, 0
    for name, value in micros.items():
        axis.barh(height, value, left=left, height=0.5, color=COLOURS[name], edgecolor="white", linewidth=0.8)
        middle, label = left + value / 2, f"{name}\n{value:.0f}"
        if value > 0.085 * total:
            dark = name in ("acting", "arithmetic", "environment", "emulator", "backward", "push", "memory")
            axis.text(middle, height, label, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        elif value > 0.002 * total:
            above, far = outside % 2 == 0, 0.16 * (outside // 2 % 2)
            edge, level = (height + 0.25, height + 0.33 + far) if above else (height - 0.25, height - 0.33 - far)
            axis.annotate(
                f"{name} {value:.0f}",
                (middle, edge),
                (middle, level),
                ha="center",
                va="bottom" if above else "top",
                fontsize=7.5,
                arrowprops={"arrowstyle": "-", "linewidth": 0.6},
            )
            outside += 1
        left += value
