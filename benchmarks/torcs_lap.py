"""Agents of `asyncrl/Torcs-v0` beside the scripted driver that follows the road's middle: laps and scores.

    python benchmarks/torcs_lap.py RUN [RUN ...]
    python benchmarks/torcs_lap.py RUN --episodes 30 --mode greedy

The script sees the car's numbers, the agent only what it was trained on.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import asyncrl
from asyncrl.agent import Agent
from asyncrl.envs.torcs import TorcsEnv
from asyncrl.envs.torcs.autopilot import follow_centre_discrete
from asyncrl.evaluate import Mode

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


def learnt(agent: Agent, mode: Mode) -> Driver:
    """Return `agent` as a driver."""
    return lambda env, observation: agent.act(observation, mode=mode)


def main() -> None:
    """Print a Markdown table: a row for each driver and start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of their checkpoints")
    parser.add_argument("--mode", choices=("sampled", "greedy"), default="sampled")
    parser.add_argument("--episodes", type=int, default=10, help="of an agent, from each kind of place")
    args = parser.parse_args()
    torch.set_num_threads(1)  # one picture at a time
    agents = {str(run): asyncrl.load(run) for run in args.runs}
    drivers = {"scripted": scripted, **{name: learnt(agent, args.mode) for name, agent in agents.items()}}
    print("| driver | start | laps | metres | race seconds | score | farthest from the middle | ended by |")
    print("|---|---|---|---|---|---|---|---|")
    for random_start in (False, True):
        env = TorcsEnv(random_start=random_start)
        for name, driver in drivers.items():
            # From the grid the script drives one lap, always the same.
            episodes = args.episodes if random_start or name in agents else 1
            drives = []
            for seed in range(episodes):
                if name in agents:
                    agents[name].reset()
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
