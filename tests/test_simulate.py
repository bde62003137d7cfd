"""Simulated asynchrony: hand-made interleavings, equal bits for equal seeds, resumes, replays."""

import itertools
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import asyncrl
from asyncrl.config import DelayName
from asyncrl.envs.diagnostic import Catch
from asyncrl.errors import UserError
from asyncrl.flat import flatten_parameters_
from asyncrl.networks import make_network
from asyncrl.orders import RECORD, Event, drawn_order, record_file, recorded_order, rounds, staleness_of
from asyncrl.run import Run
from asyncrl.simulate import Simulation, flushes_denormals
from asyncrl.store import Counter, ParameterStore, StoreSpec
from asyncrl.worker import Learner, Update, compute_update

CATCH = {"env": "asyncrl/Catch-v0", "frames": 2000, "workers": 3, "envs_per_worker": 2, "learning_rate": 3e-3}


def train(run_dir: Path, **settings) -> Run:
    settings = {**CATCH, "schedule": "simulated", "run_dir": run_dir, "announce": lambda line: None, **settings}
    return asyncrl.train(**settings)


def parameters(run: Run) -> dict[str, torch.Tensor]:
    return {**run.agent().checkpoint.parameters, **run.agent().checkpoint.optimizer}


def assert_equal(one: Run, other: Run, *, differ: bool = False) -> None:
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) is not differ


def make_simulation(order: list[Event] | None = None, **settings) -> Simulation:
    config = asyncrl.Config(**{**CATCH, "schedule": "simulated", **settings})
    network = make_network(config, spaces.Box(0, 255, (1, 10, 5), np.uint8), spaces.Discrete(3))
    theta = flatten_parameters_(network)
    store = ParameterStore(StoreSpec.of(config, len(theta)), config)
    store.theta.copy_(theta)
    simulation = Simulation(config, store, None, 0)
    simulation._recorded = order
    return simulation


def test_staleness_of_hand_made_interleavings_is_what_the_store_counts() -> None:
    """a b c pull; b pushes, pulls, pushes; a pushes; c pushes: 0, 0, 2 (both of b), 3."""
    order = [Event("abc".index(letter.lower()), letter.isupper()) for letter in "ABCbBbac"]
    assert staleness_of(order) == [0, 0, 2, 3]
    simulation = make_simulation(order)
    simulation.start()
    reports = []
    while not simulation.exhausted:  # more than once where the machine is busy
        reports += simulation.poll(0.1)
    assert simulation.store.counters[:3, Counter.STALENESS].tolist() == [2, 0, 3]
    assert simulation.store.counters[:3, Counter.UPDATES].tolist() == [1, 2, 1]
    assert [(report.worker, report.staleness) for report in reports] == [
        (1, {0: 1}),
        (1, {0: 1}),
        (0, {2: 1}),
        (2, {3: 1}),
    ]
    simulation.stop()


@pytest.mark.parametrize("beats", [0, 1, 11, 40])  # while the first environments are built, the last reset, updates
def test_an_interruption_ends_whatever_is_under_way(beats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built, closed = [], []

    class Counted(Catch):
        def __init__(self) -> None:
            super().__init__()
            built.append(self)

        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr("asyncrl.envs.diagnostic.Catch", Counted)
    simulation, left = make_simulation(), iter(range(beats))
    simulation._is_interrupted = lambda: next(left, None) is None
    simulation.start()
    simulation.poll(60.0)
    assert next(left, None) is None
    updates = simulation.store.total(Counter.UPDATES)
    simulation.poll(60.0)
    assert simulation.store.total(Counter.UPDATES) == updates
    simulation.stop()
    simulation.close()
    assert len(closed) == len(built) == min(beats // 4 * 2 + min(beats % 4 + 1, 2), 6)


def test_an_interrupted_replay_goes_on_with_the_update_that_was_cut() -> None:
    order = [Event(0, True), Event(0, False)] * 3
    simulation = make_simulation(order, workers=1)
    beats, limit = itertools.count(), 12  # in the second update
    simulation._is_interrupted = lambda: next(beats) >= limit
    simulation.start()
    simulation.poll(60.0)
    simulation.stop()
    assert simulation.position % 2 == 0 and not simulation.exhausted
    assert simulation.store.total(Counter.UPDATES) == simulation.position / 2 < 3


@pytest.mark.parametrize("flushes", [False, True])
def test_a_training_leaves_the_callers_arithmetic_as_it_was(tmp_path: Path, flushes: bool) -> None:
    torch.set_flush_denormal(flushes)
    torch.set_num_threads(3)
    try:
        train(tmp_path / "run", frames=200)
        train(tmp_path / "a2c", frames=200, algo="a2c", schedule="processes")
        assert torch.get_num_threads() == 3
        assert flushes_denormals() is flushes
        assert (np.float32(1e-39) * np.float32(0.5) == 0) == flushes  # NumPy's too
        simulation = make_simulation()
        simulation.start()
        assert flushes_denormals() and torch.get_num_threads() == 1
        simulation.stop()
        assert flushes_denormals() is flushes and torch.get_num_threads() == 3
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(1)


def test_an_update_is_the_gradient_at_its_pull_and_not_at_its_push() -> None:
    order = [Event(0, True), Event(1, True), Event(1, False)]
    simulation = make_simulation(order)
    simulation.start()
    simulation._advance()
    first = simulation._in_flight[0][0].gradient.clone()
    alone = Learner(simulation.config, 0)
    alone.pull(simulation.store)  # nothing has been pushed: the same parameters
    torch.testing.assert_close(compute_update(alone).gradient, first)
    for _ in range(2):
        simulation._advance()
    assert torch.equal(simulation._in_flight[0][0].gradient, first)
    assert all(learner.network is simulation.learners[0].network for learner in simulation.learners)
    simulation.stop()


def test_constant_delays_are_round_robin_and_rounds_are_synchronous() -> None:
    order = itertools.islice(drawn_order(4, "constant", np.random.default_rng(0)), 100)
    assert set(staleness_of(order)[4:]) == {3}
    assert staleness_of(itertools.islice(rounds(3), 12)) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("delays", ["uniform", "exponential", "gamma", "pareto"])
def test_the_mean_staleness_of_w_equal_workers_is_w_minus_1_whatever_the_delays(delays: DelayName) -> None:
    order = itertools.islice(drawn_order(8, delays, np.random.default_rng(0)), 60_000)
    staleness = np.array(staleness_of(order))
    assert staleness.mean() == pytest.approx(7, abs=0.2)
    # Exponential delays have no memory: the next to push is anybody, and staleness is geometric.
    geometric = np.sqrt(7 * 8)
    low, high = {"uniform": (0.3, 0.9), "exponential": (0.95, 1.05), "gamma": (0.2, 0.5), "pareto": (2, 10)}[delays]
    assert low * geometric < staleness.std() < high * geometric


@pytest.mark.parametrize("algo", ["a3c", "one-step-sarsa"])
def test_equal_seeds_give_equal_bits_and_others_do_not(algo: str, tmp_path: Path) -> None:
    runs = [train(tmp_path / name, algo=algo, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert_equal(runs[0], runs[1])
    assert_equal(runs[0], runs[2], differ=True)
    scores = [[(row["worker"], row["score"], row["steps"]) for row in run.episodes()] for run in runs]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"core": "lstm"},
        {"algo": "one-step-q", "target_frames": 300},
        {"algo": "a2c"},
        {"algo": "a2c", "threads": 2},
        {"env": "CartPole-v1", "standardize_inputs": True},
    ],
)
def test_n_and_n_frames_equal_2n(settings: dict, tmp_path: Path) -> None:
    if settings.get("algo") == "a2c":
        settings = {**settings, "schedule": "processes"}
    whole = train(tmp_path / "whole", checkpoint_frames=1000, **settings)
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "whole" / "config.toml", tmp_path / "half")
    first = min(
        (p for p in (tmp_path / "whole" / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
    )
    assert int(first.name) < 1500
    shutil.copytree(first, tmp_path / "half" / "checkpoints" / first.name)
    resumed = asyncrl.resume(tmp_path / "half" / "checkpoints" / first.name, announce=lambda line: None)
    # `latest` of the half is what the resumed run wrote.
    assert_equal(whole, resumed)
    totals = [np.array(run.agent().checkpoint.state["counters"]).sum(0).tolist() for run in (whole, resumed)]
    assert totals[0] == totals[1]


def test_frames_in_two_sittings_equal_one_where_no_schedule_depends_on_the_end(tmp_path: Path) -> None:
    settings = {"checkpoint_frames": 1000, "final_learning_rate_fraction": 1.0, "final_entropy_fraction": 1.0}
    whole = train(tmp_path / "whole", frames=2000, **settings)
    train(tmp_path / "parts", frames=1000, **settings)
    assert_equal(whole, asyncrl.resume(tmp_path / "parts", frames=2000, announce=lambda line: None))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the trainer look at its simulations more often, as if they were slow."""
    poll = Simulation.poll
    monkeypatch.setattr(Simulation, "poll", lambda self, timeout: poll(self, timeout / 50))


def test_long_eras_are_saved_in_between_which_changes_no_bit(tmp_path: Path, often: None) -> None:
    plain = train(tmp_path / "plain", frames=20_000)
    saved = train(tmp_path / "saved", frames=20_000, checkpoint_every=0.01)
    assert_equal(plain, saved)
    names = [{p.name for p in (run.path / "checkpoints").iterdir() if p.name.isdigit()} for run in (plain, saved)]
    assert len(names[0]) == 1 and names[0] < names[1]
    earlier = saved.path / "checkpoints" / min(names[1] - names[0], key=int)
    resumed = asyncrl.resume(earlier, announce=lambda line: None)
    assert resumed.outcome is not None and resumed.outcome.reason == "frames"


def test_a_replay_is_saved_only_where_it_can_go_on(tmp_path: Path, often: None) -> None:
    real = train(tmp_path / "real", schedule="processes", record_order=True, workers=2, frames=20_000)
    replay = train(tmp_path / "replay", replay=real.path, workers=2, frames=20_000, checkpoint_every=0.01)
    assert len([p for p in (replay.path / "checkpoints").iterdir() if p.name.isdigit()]) == 1


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        ({"workers": 1, "envs_per_worker": 2}, 1_000_000),
        ({"workers": 2, "envs_per_worker": 8}, 4_000_000),  # two of the longest games, of 108,000 frames, and more
        ({"workers": 16, "envs_per_worker": 8}, 32_000_000),
        ({"workers": 16, "envs_per_worker": 8, "checkpoint_frames": 500}, 500),
        ({"workers": 16, "envs_per_worker": 8, "schedule": "simulated", "replay": Path("run")}, 1_000_000),
    ],
)
def test_an_era_is_long_enough_for_every_environment(settings: dict, frames: int) -> None:
    assert asyncrl.Config(**settings).era_frames == frames


def test_one_simulated_worker_is_the_worker_process_bit_for_bit(tmp_path: Path) -> None:
    simulated = train(tmp_path / "simulated", workers=1)
    process = train(tmp_path / "process", workers=1, schedule="processes")
    assert_equal(simulated, process)


def test_a_recorded_order_is_replayed(tmp_path: Path) -> None:
    real = train(tmp_path / "real", schedule="processes", record_order=True, workers=2)
    order = recorded_order(real.path, 2)
    assert (
        sum(not event.pulls for event in order)
        == real.agent().checkpoint.state["counters"][0][Counter.UPDATES]
        + (real.agent().checkpoint.state["counters"][1][Counter.UPDATES])
    )
    replays = [train(tmp_path / name, replay=real.path, workers=2) for name in ("one", "two")]
    assert_equal(*replays)
    histograms = [row["staleness_histogram"] for row in replays[0].metrics()]
    counted = {int(lag): n for histogram in histograms for lag, n in histogram.items()}
    expected = np.unique(staleness_of(order), return_counts=True)
    assert counted == dict(zip(*(values.tolist() for values in expected), strict=True))


def test_a_replay_of_several_eras_repeats_the_whole_order(tmp_path: Path) -> None:
    real = train(tmp_path / "real", schedule="processes", record_order=True, workers=3, frames=4000)
    order = recorded_order(real.path, 3)
    replay = train(tmp_path / "replay", replay=real.path, workers=3, frames=10**6, checkpoint_frames=500)
    assert replay.outcome is not None and replay.outcome.reason == "order"
    assert replay.outcome.progress.updates == len(staleness_of(order))
    lags: dict[int, int] = {}
    for row in replay.metrics():
        for lag, n in row["staleness_histogram"].items():
            lags[int(lag)] = lags.get(int(lag), 0) + n
    assert sum(lags.values()) == len(staleness_of(order))


def test_replaying_one_workers_process_gives_its_bits(tmp_path: Path) -> None:
    real = train(tmp_path / "real", schedule="processes", record_order=True, workers=1)
    assert_equal(real, train(tmp_path / "replay", replay=real.path, workers=1))


def test_notes_of_workers_are_merged_by_time_and_a_stranger_is_refused(tmp_path: Path) -> None:
    notes = [(30, 2), (10, 3), (20, 1), (40, 0)]
    np.array(notes, RECORD).tofile(record_file(tmp_path, 1))
    assert recorded_order(tmp_path, 2) == [Event(1, True), Event(0, True), Event(1, False), Event(0, False)]
    with pytest.raises(UserError, match="order of 2 workers"):
        recorded_order(tmp_path, 1)
    with pytest.raises(UserError, match="no recorded order"):
        recorded_order(tmp_path / "nothing", 1) if (tmp_path / "nothing").mkdir() is None else None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"replay": Path("x")}, "--replay needs"),
        ({"record_order": True, "schedule": "simulated"}, "--record-order needs"),
        ({"device": "cuda"}, "--device cuda is for"),
        ({"threads": 2}, "asynchronous workers have one thread each"),
        ({"threads": 2, "algo": "a2c", "device": "cuda"}, "--threads is for CPUs"),
        ({"threads": 0, "algo": "a2c"}, "--threads is 0: it must be between 1 and 1024, or none"),
        ({"kernels": "bf16", "algo": "a2c", "device": "cuda"}, "--kernels bf16 is for CPUs"),
        ({"algo": "a2c", "update": "locked"}, "--algo a2c has none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        asyncrl.Config(**settings)


def test_a_thousand_workers_fit(tmp_path: Path) -> None:
    run = train(tmp_path / "run", workers=1024, envs_per_worker=1, frames=10_000, delays="uniform")
    assert run.outcome is not None and run.outcome.progress.frames >= 10_000
    lags = [int(lag) for row in run.metrics() for lag in row["staleness_histogram"]]
    assert max(lags) > 1024


def test_a_worker_that_fails_ends_the_run_in_one_line_and_what_it_learned_is_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where that world leaves a mark
    with pytest.raises(UserError, match=r"^worker 0 failed: RuntimeError: the ball is lost \(.*worlds.py, line \d+\)$"):
        # Random play, which measures inputs, would be the first to meet it.
        train(tmp_path / "run", env="worlds:raising", workers=1, envs_per_worker=1, standardize_inputs=False)
    assert asyncrl.load(tmp_path / "run").checkpoint.state["frames"] > 400


@pytest.mark.parametrize("how", [{"algo": "a3c"}, {"algo": "a2c", "schedule": "processes"}])
def test_careless_environments_repeat_and_leave_the_callers_generators_alone(how: dict, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"env": "worlds:careless", "frames": 2_000, "standardize_inputs": True, **how}
    random.seed(1)
    expected = random.random()
    random.seed(1)
    scores = [[e["score"] for e in train(tmp_path / str(i), **settings).episodes()] for i in range(2)]
    assert scores[0] == scores[1] and len(set(scores[0])) > 10
    assert random.random() == expected


def test_what_fails_of_ctrl_c_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation, interrupted = make_simulation(), []
    simulation._is_interrupted = lambda: bool(interrupted)
    simulation.start()

    def fail(learner: Learner) -> Update:
        interrupted.append(True)
        raise BrokenPipeError("the simulator has gone")

    monkeypatch.setattr("asyncrl.simulate.compute_update", fail)
    simulation.poll(60.0)
    assert interrupted
    simulation.stop()
    simulation.close()
