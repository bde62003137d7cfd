"""It learns: every way of running many workers solves Catch within seconds."""

from pathlib import Path

import pytest

import asyncrl
from asyncrl.metrics import Progress

# Settings found by hand for one environment batch of 4; a random player scores about -0.6, a perfect one 1.
CATCH = {"env": "asyncrl/Catch-v0", "frames": 40_000, "workers": 2, "envs_per_worker": 4, "t_max": 9}


def train_on_catch(run_dir: Path, **settings) -> Progress:
    settings = {**CATCH, "learning_rate": 3e-3, "run_dir": run_dir, "announce": lambda line: None, **settings}
    outcome = asyncrl.train(**settings).outcome
    assert outcome is not None and outcome.reason == "frames"
    return outcome.progress


@pytest.mark.parametrize(
    "settings",
    [
        {"update": "hogwild"},
        {"update": "locked"},
        {"update": "locked", "optimizer": "shared-adam"},
        {"update": "synchronous"},
        {"update": "synchronous", "optimizer": "shared-adam"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_worker_processes_solve_catch_under_each_discipline(settings: dict, tmp_path: Path) -> None:
    progress = train_on_catch(tmp_path / "run", **settings)
    assert progress.mean_score is not None and progress.mean_score >= 0.9
    assert progress.timeouts == 0


@pytest.mark.parametrize(
    "settings",
    [{"schedule": "simulated", "workers": 16, "envs_per_worker": 1}, {"algo": "a2c", "learning_rate": 1e-2}],
    ids=["simulated", "a2c"],
)
def test_workers_in_one_process_solve_catch(settings: dict, tmp_path: Path) -> None:
    progress = train_on_catch(tmp_path / "run", **settings)
    assert progress.mean_score is not None and progress.mean_score >= 0.9
