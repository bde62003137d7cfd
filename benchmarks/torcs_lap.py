"""An agent of `asyncrl/Torcs-v0` beside the scripted driver that follows the road's middle: one lap from the grid each.

    python benchmarks/torcs_lap.py RUN                  # also a number of episodes from random places of the track
    python benchmarks/torcs_lap.py RUN --episodes 30 --mode greedy

The script sees the car's numbers, the agent only what it was trained on.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncrl
from asyncrl.envs.torcs import TorcsEnv
from asyncrl.envs.torcs.autopilot import follow_centre_discrete

Driver = Callable[[TorcsEnv, Any], Any]  # (environment, observation) -> action


@dataclass(frozen=True)
class Drive:
    """How far somebody came until the end of the first lap or of the episode."""

    score: float  # sum of rewards
    metres: float
    seconds: float  # of race
    farthest: float  # from the road's middle; its edge is 1
    ended_by: str  # "lap", or the environment's reason


def drive(env: TorcsEnv, driver: Driver, seed: int) -> Drive:
    """Drive until the first lap is full or the episode ends."""
    observation, info = env.reset(seed=seed)
    score, farthest, ended_by = 0.0, 0.0, ""
    while not ended_by:
        observation, reward, terminated, truncated, info = env.step(driver(env, observation))
        score, farthest = score + float(reward), max(farthest, abs(info["track_pos"]))
        ended_by = "lap" if info["laps"] else info["ended_by"] if terminated or truncated else ""
    return Drive(score, info["distance"], info["seconds"], farthest, ended_by)


def scripted(env: TorcsEnv, observation: Any) -> int:
    """Follow the middle of the road by the car's numbers."""
    assert env.car is not None
    return follow_centre_discrete(env.car)


def main() -> None:
    """Print a Markdown table: a row for each driver and start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--mode", choices=("sampled", "greedy"), default="sampled")
    parser.add_argument("--episodes", type=int, default=10, help="from random places of the track")
    args = parser.parse_args()
    agent = asyncrl.load(args.run)

    def learnt(env: TorcsEnv, observation: Any) -> Any:
        return agent.act(observation, mode=args.mode)

    drivers = {"scripted": scripted, "agent": learnt}
    print("| driver | start | laps | metres | race seconds | score | farthest from the middle | ended by |")
    print("|---|---|---|---|---|---|---|---|")
    for random_start, episodes in ((False, 1), (True, args.episodes)):
        env = TorcsEnv(random_start=random_start)
        for name, driver in drivers.items():
            drives = []
            for seed in range(episodes):
                agent.reset()
                drives.append(drive(env, driver, 10_000 + seed))
            print(row(name, "random" if random_start else "grid", drives), flush=True)
        env.close()


def row(name: str, start: str, drives: list[Drive]) -> str:
    """Return the table's line of `drives`: means, and each reason with its number."""
    reasons = [drive.ended_by for drive in drives]
    counted = ", ".join(f"{reason} {reasons.count(reason)}" for reason in sorted(set(reasons)))
    metres, seconds, score, farthest = (
        sum(getattr(drive, field) for drive in drives) / len(drives)
        for field in ("metres", "seconds", "score", "farthest")
    )
    return (
        f"| {name} | {start} | {reasons.count('lap')} of {len(drives)} | {metres:,.0f} | {seconds:.1f} | {score:.1f} "
        f"| {farthest:.2f} | {counted} |"
    )


if __name__ == "__main__":
    main()
