"""Continuous control: A3C beside Stable-Baselines3's PPO on six tasks of dm_control, after as many steps each.

    python benchmarks/control.py control.jsonl                      # again after an interruption: it goes on
    python benchmarks/control.py control.jsonl --who sb3-ppo --tasks walker-walk --seeds 0
    python benchmarks/control.py control.jsonl --table --plot control.png    # only of what is there

A3C is the preset as it is, on all cores. PPO has SB3's defaults and normalised observations and rewards, which are the
zoo's settings for MuJoCo, and one thread: run two of it side by side. Both are evaluated over 20 episodes, with actions
drawn from the policy and with its means.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from kept_rounds import append_line
from study import read, require_whole

import asyncrl
import asyncrl.envs
from asyncrl.run import git_revision

# With A3C's score from state after 1e8 steps ("a3c_100m_proprio" of scores/dmc_baselines.json in danijar/dreamerv2).
PUBLISHED = {
    "cartpole-swingup": 558.4,
    "reacher-easy": 95.6,
    "cheetah-run": 213.9,
    "finger-spin": 129.4,
    "ball_in_cup-catch": 104.7,
    "walker-walk": 311.0,
}
MORE_SEEDS = ("cartpole-swingup", "reacher-easy", "cheetah-run")  # three; the others one
STEPS, BINS, EPISODES = 500_000, 25, 20
EVALUATION_SEED = 10_000  # plus the run's: never a seed of training
WHO = ("asyncrl", "sb3-ppo")
COLOURS = {"asyncrl": "#0072B2", "sb3-ppo": "#E69F00"}


def train_asyncrl(env: str, steps: int, seed: int) -> dict[str, Any]:
    """Train with the default preset; return the training episodes' ends and scores, and the evaluated scores."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir, quiet = Path(folder) / "run", lambda _: None
        run = asyncrl.train(env, frames=steps, seed=seed, run_dir=run_dir, show=quiet, announce=quiet)
        require_whole(run)
        assert run.outcome is not None
        agent, ended = run.agent(), [(row["at_frames"], row["score"]) for row in run.episodes()]
        scores = {
            name: [episode.score for episode in agent.evaluate(EPISODES, mode=name, seed=EVALUATION_SEED + seed)]
            for name in ("sampled", "greedy")
        }
    return {"ended": ended, "seconds": run.outcome.progress.seconds, **scores}


def train_ppo(env: str, steps: int, seed: int) -> dict[str, Any]:
    """Train SB3's PPO on one environment; return the same."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    envs = VecNormalize(make_vec_env(env, seed=seed))
    model, started = PPO("MlpPolicy", envs, seed=seed, device="cpu"), time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - started
    (monitor,) = envs.get_attr("episode_returns")
    (lengths,) = envs.get_attr("episode_lengths")
    ended = list(zip(np.cumsum(lengths).tolist(), monitor, strict=True))
    envs.training, envs.norm_reward, scores = False, False, {}
    for name in ("sampled", "greedy"):
        envs.seed(EVALUATION_SEED + seed)
        returns, _ = evaluate_policy(
            model, envs, EPISODES, deterministic=name == "greedy", return_episode_rewards=True, warn=False
        )
        scores[name] = [float(score) for score in returns]  # pyright: ignore[reportGeneralTypeIssues]
    envs.close()
    return {"ended": ended, "seconds": seconds, **scores}


def run(who: str, task: str, steps: int, seed: int) -> dict[str, Any]:
    """Train once; return its line of results."""
    train = {"asyncrl": train_asyncrl, "sb3-ppo": train_ppo}[who]
    result = train(f"dm_control/{task}-v0", steps, seed)
    shares: list[list[float]] = [[] for _ in range(BINS)]
    for at, score in result["ended"]:
        shares[min(at * BINS // steps, BINS - 1)].append(score)
    return {
        "who": who,
        "task": task,
        "steps": steps,
        "seed": seed,
        "seconds": result["seconds"],
        "curve": [fmean(share) if share else None for share in shares],
        "sampled": fmean(result["sampled"]),
        "greedy": fmean(result["greedy"]),
        "revision": git_revision(),
    }


def main() -> None:
    """Make the runs that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines, one a run; appended to")
    parser.add_argument("--who", nargs="+", choices=WHO, default=WHO)
    parser.add_argument("--tasks", nargs="+", choices=PUBLISHED, default=tuple(PUBLISHED))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--table", action="store_true", help="make no run")
    parser.add_argument("--plot", type=Path, help="PNG to draw the curves into")
    args = parser.parse_args()
    # Seeds are the outer loop: interrupted, it leaves a table with fewer seeds, not with fewer tasks.
    wanted = [
        {"who": who, "task": task, "steps": args.steps, "seed": seed}
        for seed in args.seeds
        for task in args.tasks
        for who in args.who
        if seed == args.seeds[0] or task in MORE_SEEDS
    ]
    for settings in [] if args.table else wanted:
        if not any(settings.items() <= row.items() for row in read(args.results)):
            row = run(**settings)
            append_line(args.results, row)
            print(f"{row['task']} {row['who']} seed {row['seed']}: {row['sampled']:.0f}", flush=True)
    rows = [row for row in read(args.results) if any(settings.items() <= row.items() for settings in wanted)]
    print_table(rows)
    if args.plot:
        plot(rows, args.plot)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table with a row for each task and learner."""
    print("| task | learner | drawn actions, by seed | means, by seed | seconds | A3C, 1e8 steps |")
    print("|---|---|---|---|---|---|")
    for task, published in PUBLISHED.items():
        for who in WHO:
            found = sorted((r for r in rows if (r["task"], r["who"]) == (task, who)), key=lambda r: r["seed"])
            if found:
                drawn, means = (", ".join(f"{r[name]:.0f}" for r in found) for name in ("sampled", "greedy"))
                seconds = fmean(r["seconds"] for r in found)
                print(f"| {task} | {who} | {drawn} | {means} | {seconds:.0f} | {published} |")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each task: training scores against steps, a line a seed, and its evaluated score as a dot."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    for axis, (task, published) in zip(axes.flat, PUBLISHED.items(), strict=True):
        for row in (row for row in rows if row["task"] == task):
            centres = (np.arange(BINS) + 0.5) * row["steps"] / BINS / 1e6
            scores = [np.nan if score is None else score for score in row["curve"]]
            axis.plot(centres, scores, color=COLOURS[row["who"]], linewidth=1, label=row["who"])
            end, dot = row["steps"] / 1e6, {"color": COLOURS[row["who"]], "markersize": 4, "clip_on": False}
            axis.plot(end, row["sampled"], "o", label=f"{row['who']}, evaluated", **dot)
        axis.axhline(published, color="#999999", linestyle="--", linewidth=1, label="A3C after 100 M steps, published")
        axis.set_title(task, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    labels = {text: line for axis in axes.flat for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("million steps")
    figure.supylabel("score of training episodes")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
