"""The trainer and its workers: failures, hangs, restarts, ends, what is kept, that it learns."""

import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import worlds
from safetensors.torch import load_file

import asyncrl
from asyncrl import pool, processes
from asyncrl.checkpoint import load_checkpoint, restore_store
from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.journals import JsonLines, json_line, read_json_lines
from asyncrl.metrics import Gatherer, Progress
from asyncrl.pointers import find_checkpoint
from asyncrl.processes import Report
from asyncrl.rollout import Episode
from asyncrl.store import Counter, ParameterStore, StoreSpec
from asyncrl.trainer import Trainer

TINY = Config(env="worlds:tiny", workers=2, envs_per_worker=1, frames=4_000, t_max=5)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers begin where their trainer is


def train(config: Config, told: list[str] | None = None, **settings) -> asyncrl.Run:
    told = [] if told is None else told
    return asyncrl.train(config=config, announce=told.append, run_dir="run", **settings)


def make_trainer(config: Config, told: list[str] | None = None) -> Trainer:
    run_dir = Path("run")
    (run_dir / "checkpoints").mkdir(parents=True)
    announce = [].append if told is None else told.append
    return Trainer(config, run_dir, show=lambda _: None, announce=announce)


def run_aside(trainer: Trainer, outcomes: list) -> threading.Thread:
    """Run a trainer in a thread, so that the test can do things to its workers."""

    def work():
        try:
            outcomes.append(trainer.run())
        except UserError as error:
            outcomes.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_run_keeps_its_numbers(method):
    trainer = Trainer(
        TINY, Path("run"), show=lambda _: None, announce=print, context=multiprocessing.get_context(method)
    )
    Path("run/checkpoints").mkdir(parents=True)
    outcome = trainer.run()
    progress = outcome.progress
    assert outcome.reason == "frames" and 4_000 <= progress.frames < 4_100
    assert progress.steps == progress.frames  # no frames are skipped here
    assert all(worker.updates > 0 and worker.restarts == 0 for worker in progress.workers)
    assert sum(worker.frames for worker in progress.workers) == progress.frames
    # Every episode that was counted is a row, none is lost on the last metres; 4 steps each.
    episodes = read_json_lines(Path("run/episodes.jsonl"))
    assert len(episodes) == progress.episodes
    assert {row["steps"] for row in episodes} == {4} and {row["worker"] for row in episodes} == {0, 1}
    assert progress.frames - 4 * len(episodes) in range(8)  # unfinished ones of two workers
    rows = read_json_lines(Path("run/metrics.jsonl"))
    last = rows[-1]
    assert last["frames"] == progress.frames and last["updates"] == progress.updates
    assert sum(sum(row["staleness_histogram"].values()) for row in rows) == progress.updates
    assert {"policy_loss", "value_loss", "entropy", "gradient_norm"} <= set(last)
    assert not multiprocessing.active_children()


def test_tensorboard_has_the_numbers(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.path / "tensorboard"))
    events.Reload()
    score = events.Scalars("mean_score")[-1]
    assert score.value == pytest.approx(finished.outcome.progress.mean_score)
    assert score.step == finished.outcome.progress.frames


@pytest.mark.parametrize("module", ["numpy", "torch"])  # Python itself has forked processes draw differently
def test_workers_share_no_randomness_that_environments_draw_from_unasked(module):
    """Forked processes begin with the same state of the generators that modules share."""
    settings = {"env": "worlds:careless", "env_options": f"module={module}", "workers": 3, "update": "synchronous"}
    run = train(dataclasses.replace(TINY, **settings))  # all of them take turns
    first: dict[int, float] = {}
    for episode in run.episodes():
        first.setdefault(episode["worker"], episode["score"])
    assert len(set(first.values())) == len(first) == 3


def test_environments_that_draw_from_global_generators_take_none_of_the_callers_numbers():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    asyncrl.train("worlds:careless", workers=1, frames=500, run_dir="run", announce=[].append)
    asyncrl.resume("run", env="worlds:careless", frames=1_000, announce=[].append)
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002
    code = "import asyncrl, random; random.seed(1); asyncrl.train; print(random.random() == random.Random(1).random())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "True\n"  # imports have drawn too


def test_environments_may_have_processes_of_their_own():
    told = []
    run = train(dataclasses.replace(TINY, env="worlds:has_child", frames=1_000), told)
    children = [path.name.removeprefix("child-") for path in Path().glob("child-*")]
    assert len(children) == TINY.workers
    wait_until(lambda: not any(Path("/proc", child).exists() for child in children))
    assert run.outcome is not None and run.outcome.reason == "frames"
    assert not [line for line in told if "starting it again" in line]


def test_slow_resets_are_signs_of_life(monkeypatch):
    def show(progress: Progress) -> None:  # starting may be slow
        monkeypatch.setattr(pool, "HANG_SECONDS", 4.0 if Path("resetting").exists() else 120.0)

    told = []
    config = dataclasses.replace(TINY, env="worlds:resets_slowly", workers=1, envs_per_worker=8, frames=100)
    run = train(config, told, show=show)  # eight seconds to reset them all, where an episode ends
    assert pool.HANG_SECONDS == 4.0
    assert run.outcome is not None and run.outcome.reason == "frames"
    assert not [line for line in told if "starting it again" in line]


def test_an_environment_that_raises_once_is_restarted():
    told = []
    run = train(dataclasses.replace(TINY, env="worlds:raising_once", frames=6_000), told)
    assert run.outcome is not None and run.outcome.reason == "frames"
    assert sum(worker.restarts for worker in run.outcome.progress.workers) == 1
    (trace,) = [text for text in told if text.startswith("Traceback")]
    assert "worlds.py" in trace and trace.strip().endswith("RuntimeError: the ball is lost")
    (line,) = [text for text in told if "starting it again" in text]
    assert line.endswith("ended with exit code 1: starting it again in 1 s (1 of 5)")
    assert load_checkpoint(find_checkpoint(run.path)).state["generation"] == 1  # new seeds, also after a resume
    assert len(run.episodes()) == run.outcome.progress.episodes  # with those since its last report


def test_an_environment_that_always_raises_ends_the_run(monkeypatch):
    monkeypatch.setattr(pool, "MAX_RESTARTS", 1)
    told = []
    with pytest.raises(UserError, match=r"worker . failed 2 times in a row, at last: RuntimeError: the ball is lost"):
        train(dataclasses.replace(TINY, env="worlds:raising", frames=10**9), told)
    assert sum(text.startswith("Traceback") for text in told) >= 2
    state = load_checkpoint(find_checkpoint(Path("run"))).state
    assert state["frames"] > 0
    assert read_json_lines(Path("run/metrics.jsonl"))[-1]["frames"] == state["frames"]


@pytest.mark.parametrize("env", ["worlds:hanging_once", "worlds:ending_once"])
def test_a_worker_that_hangs_or_leaves_is_replaced(monkeypatch, env):
    def show(progress: Progress) -> None:
        hangs = Path("failed").exists() and progress.workers[0].restarts == 0
        monkeypatch.setattr(pool, "HANG_SECONDS", 2.0 if hangs else 120.0)  # starting may be slow

    told = []
    run = train(dataclasses.replace(TINY, env=env, workers=1, frames=2_000), told, show=show)
    assert run.outcome is not None and run.outcome.reason == "frames"
    (line,) = [text for text in told if "starting it again" in text]
    assert ("made no step for 2 s" if "hanging" in env else "ended with exit code 0") in line
    assert run.outcome.progress.workers[0].restarts == 1


HANGS = """
import sys, time
from asyncrl.processes import prepare_process

def step_for_ever():
    print("now", flush=True)
    time.sleep(600)

prepare_process()
step_for_ever()
"""


def test_a_process_that_hangs_prints_where_and_goes_on_hanging():
    with subprocess.Popen([sys.executable, "-c", HANGS], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "now\n"  # prints of environments go there too
            asked = SimpleNamespace(pid=process.pid, is_alive=lambda: process.poll() is None)
            pool._ask_where(asked)  # type: ignore[arg-type]
            while "step_for_ever" not in (line := process.stderr.readline()):
                assert line
            assert process.poll() is None
        finally:
            process.kill()


def test_slow_steps_are_no_hang(monkeypatch):
    def show(progress: Progress) -> None:  # starting may be slow
        monkeypatch.setattr(pool, "HANG_SECONDS", 2.0 if Path("stepping").exists() else 120.0)

    told = []
    settings = {"env": "worlds:slow", "workers": 1, "envs_per_worker": 2, "t_max": 10, "frames": 20}
    config = dataclasses.replace(TINY, **settings, standardize_inputs=False)
    run = train(config, told, show=show)  # one update of four seconds
    assert run.outcome is not None and run.outcome.reason == "frames" and run.outcome.progress.updates == 1
    assert pool.HANG_SECONDS == 2.0
    assert not any("starting it again" in text for text in told)


def test_a_pause_of_the_trainer_leaves_a_worker_its_time_to_build():
    workers = make_trainer(dataclasses.replace(TINY, workers=1)).pool
    workers.store.beat(0, grace=processes.BUILD_SECONDS)
    until = workers.store.heartbeats[0, 0]
    workers._polled = time.monotonic() - 1_000
    workers.slots[0].start_at = time.monotonic() + 1_000  # nothing is to be started here
    workers.poll(0)
    assert workers.store.heartbeats[0, 0] == pytest.approx(until, abs=1.0)


@pytest.mark.parametrize(("patience", "is_closed"), [(20.0, True), (0.5, False)])
def test_environments_may_take_their_time_to_close(monkeypatch, patience, is_closed):
    monkeypatch.setattr(pool, "STOP_SECONDS", 1.0)
    monkeypatch.setattr(pool, "CLOSE_SECONDS", patience)
    train(dataclasses.replace(TINY, env="worlds:closes_slowly", workers=1, envs_per_worker=1, frames=500), [])
    assert Path("closed-asyncrl-worker-0").exists() is is_closed


@pytest.mark.parametrize("reward", ["nan", "-inf", "1e60"])
def test_a_reward_that_is_no_number_is_told(reward):
    config = dataclasses.replace(TINY, env="worlds:odd", env_options=f"reward={reward}", frames=10**9)
    with pytest.raises(UserError, match=r"an environment gave the reward -?(nan|inf): give finite numbers"):
        train(config, [])


@pytest.mark.parametrize("number", ["nan", "-inf", "1e60"])
def test_an_observation_that_is_no_number_is_told_and_the_checkpoint_stays_whole(number):
    settings = {"env": "worlds:odd", "env_options": f"observation={number},step=1001", "frames": 10**9}
    config = dataclasses.replace(TINY, **settings, standardize_inputs=True)
    with pytest.raises(UserError, match=r"an environment observed -?(nan|inf): give finite numbers"):
        train(config, [])
    assert load_checkpoint(find_checkpoint(Path("run"))).state["frames"] > 0


def test_a_world_may_end_in_infinity():
    settings = {"env": "worlds:odd", "env_options": "observation=inf,step=1000", "frames": 6_000}  # steps 4, 8, ... end
    config = dataclasses.replace(TINY, **settings, standardize_inputs=True)
    run = train(config, [])
    assert run.outcome is not None and run.outcome.reason == "frames"
    assert all(worker.frames > 1_100 for worker in run.outcome.progress.workers)


def test_no_checkpoint_is_kept_of_inputs_that_are_no_numbers():
    told = []
    trainer = make_trainer(dataclasses.replace(TINY, standardize_inputs=True), told)
    assert trainer.store.inputs is not None
    trainer._save()
    latest = find_checkpoint(Path("run"))
    trainer.store.counters[0, Counter.FRAMES] += 1_000
    trainer.store.inputs.restore(np.full_like(trainer.store.inputs.merged(), np.inf))
    trainer._save()
    assert told == ["no checkpoint is kept: the parameters are no finite numbers any more"]
    assert find_checkpoint(Path("run")) == latest
    load_checkpoint(latest)


def test_a_mistake_ends_the_training_after_what_was_reported_with_it():
    workers = make_trainer(dataclasses.replace(TINY, workers=1)).pool
    workers.slots[0].start_at = time.monotonic() + 1_000  # nothing is to be started here
    said = [Report(0, updates=3), Report(0, mistake="it is broken")]
    workers._receive = lambda timeout: said
    assert workers.poll(0) == said
    with pytest.raises(UserError, match="it is broken"):
        workers.require_health()


def test_a_pause_of_the_trainer_itself_is_no_hang(monkeypatch):
    # Ctrl-Z stops workers and trainer alike; on `fg` all heartbeats are old.
    trainer = make_trainer(dataclasses.replace(TINY, workers=1))
    workers = trainer.pool
    monkeypatch.setattr(workers, "_receive", lambda timeout: [])
    monkeypatch.setattr(workers, "_start", lambda worker: None)
    replaced = []
    monkeypatch.setattr(workers, "_replace", lambda worker, slot, what: replaced.append(what))
    workers.slots[0].process = multiprocessing.current_process()  # alive
    trainer.store.heartbeats[:] = time.monotonic() - 1_000
    workers._polled = time.monotonic() - 1_000
    workers.poll(0)
    assert replaced == []
    monkeypatch.setattr(pool, "_ask_where", lambda process: None)  # this process would print, and end
    trainer.store.heartbeats[:] = time.monotonic() - 1_000  # the control: the same without a pause is a hang
    workers.poll(0)
    assert replaced == ["made no step for 120 s"]


def test_workers_that_still_start_are_no_part_of_the_rate(monkeypatch):
    trainer = make_trainer(dataclasses.replace(TINY, workers=1))
    clock = time.monotonic()
    monkeypatch.setattr("asyncrl.trainer.time", SimpleNamespace(monotonic=lambda: clock))
    clock += 100
    assert trainer.progress().frames_per_second == 0
    clock += 4
    trainer.store.counters[0, Counter.FRAMES] += 400
    assert trainer.progress().frames_per_second == pytest.approx(100)


def test_rare_updates_do_not_blow_up_the_rate(monkeypatch):
    trainer = make_trainer(dataclasses.replace(TINY, workers=1))
    clock = time.monotonic()
    monkeypatch.setattr("asyncrl.trainer.time", SimpleNamespace(monotonic=lambda: clock))
    rates = []
    for tick in range(1, 200):  # half seconds; 150 frames every 15 s
        clock += 0.5
        trainer.store.counters[0, Counter.FRAMES] += 150 * (tick % 30 == 0)
        rates.append(trainer.progress().frames_per_second)
    assert max(rates[60:]) <= 15  # all of an update within the ten seconds that are looked at
    assert np.mean(rates[60:180]) == pytest.approx(10, rel=0.1)


def test_a_killed_worker_is_counted_and_the_run_goes_on():
    told, outcomes = [], []
    trainer = make_trainer(dataclasses.replace(TINY, frames=10**9), told)
    thread = run_aside(trainer, outcomes)
    try:
        wait_until(lambda: bool((trainer.store.counters[:2, Counter.UPDATES] > 0).all()))
        victim = trainer.pool.slots[1].process
        assert victim is not None and victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda: trainer.pool.restarts(1) == 1)
        before = trainer.store.counters[1, Counter.UPDATES]
        wait_until(lambda: trainer.store.counters[1, Counter.UPDATES] > before)
    finally:
        trainer._interrupt()
        thread.join(60)
    assert outcomes[0].reason == "interrupted"
    assert [worker.restarts for worker in outcomes[0].progress.workers] == [0, 1]
    assert [line for line in told if "starting it again" in line] == [
        "worker 1 ended with exit code -9: starting it again in 1 s (1 of 5)"
    ]


def test_a_worker_that_cannot_be_started_is_tried_again(monkeypatch):
    real, left, told = pool.start_process, [2], []

    def fail_twice(*args):
        if left[0]:
            left[0] -= 1
            raise (OSError(11, "Resource temporarily unavailable") if left[0] else EOFError())
        return real(*args)

    monkeypatch.setattr(pool, "start_process", fail_twice)
    run = train(TINY, told)
    assert run.outcome is not None and run.outcome.reason == "frames"
    assert [line for line in told if "could not be started" in line] == [
        "worker 0 could not be started: [Errno 11] Resource temporarily unavailable: starting it again in 1 s (1 of 5)",
        "worker 1 could not be started: its server ended: starting it again in 1 s (1 of 5)",
    ]
    assert all(worker.updates > 0 for worker in run.outcome.progress.workers)


def test_workers_of_many_environments_may_take_longer(monkeypatch):
    workers = make_trainer(dataclasses.replace(TINY, workers=1, envs_per_worker=256)).pool
    told: list[str] = []
    monkeypatch.setattr(workers, "_replace", lambda worker, slot, what: told.append(what))
    monkeypatch.setattr(pool, "_ask_where", lambda process: None)
    workers.slots[0].process = multiprocessing.current_process()  # alive
    assert workers.state(0) == "starting"
    for seconds in (4 * pool.HANG_SECONDS - 10, 4 * pool.HANG_SECONDS + 10):
        workers.store.heartbeats[0, 0] = time.monotonic() - seconds
        workers.poll(0.0)
    assert told == ["made no step for 480 s"]


def test_restarts_back_off_and_long_work_is_forgiven(monkeypatch):
    told = []
    workers = make_trainer(dataclasses.replace(TINY, workers=1), told).pool
    monkeypatch.setattr(pool, "kill", lambda process: None)
    slot = workers.slots[0]

    def fail(after: float | None) -> None:
        """Fail `after` seconds of updates, or after as long without any: environments may take long to build."""
        slot.process, slot.start_at = multiprocessing.current_process(), time.monotonic() - 10_000
        slot.learns_since = None if after is None else time.monotonic() - after
        workers._replace(0, slot, "fell")

    for after in (1, None, 1, None, 1):
        fail(after)
    assert [line.partition(" in ")[2] for line in told] == [f"{2**i} s ({i + 1} of 5)" for i in range(5)]
    fail(after=10_000)
    assert told[-1].endswith("in 1 s (1 of 5)") and workers.restarts(0) == 6
    for _ in range(4):
        fail(after=1)
    workers.require_health()
    fail(after=1)
    with pytest.raises(UserError, match="worker 0 failed 6 times in a row, at last: fell"):
        workers.require_health()


def test_what_workers_cannot_build_ends_the_run_at_once():
    import gymnasium

    gymnasium.register("tests/OnlyHere-v0", "worlds:Tiny")
    try:
        with pytest.raises(UserError, match=r"there is no environment tests/OnlyHere-v0: .*nothing of your script"):
            train(dataclasses.replace(TINY, env="tests/OnlyHere-v0"))
    finally:
        del gymnasium.registry["tests/OnlyHere-v0"]


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ("worlds:observes_dict", "worlds:observes_dict observes Dict.*: only Box observations are supported"),
        ("worlds:takes_many", "worlds:takes_many takes Tuple.*"),
        ("worlds:nothing", "cannot import worlds:nothing"),
        ("nowhere:tiny", "cannot import nowhere:tiny: No module named 'nowhere'"),
        ("__main__:make", "__main__:make .* put it into a module"),
    ],
)
def test_what_cannot_be_trained_writes_nothing(env, complaint):
    with pytest.raises(UserError, match=complaint):
        train(dataclasses.replace(TINY, env=env))
    assert not Path("run").exists()


def test_time_ends_a_run():
    run = train(dataclasses.replace(TINY, frames=10**9, max_time=3))
    assert run.outcome is not None
    assert run.outcome.reason == "time" and run.outcome.progress.frames < 10**9


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 4,000 frames to half the learning rate; not to be changed."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    return asyncrl.train(config=TINY, final_learning_rate_fraction=0.5, run_dir=run_dir, announce=lambda _: None)


def copied(run: asyncrl.Run) -> asyncrl.Run:
    return dataclasses.replace(run, path=Path(shutil.copytree(run.path, "run", symlinks=True)))


def test_resume_goes_on(finished):
    first = copied(finished)
    assert first.outcome is not None
    before = load_checkpoint(find_checkpoint(first.path))
    rows = [len(first.metrics()), len(first.episodes())]
    second = asyncrl.resume(first.path, env="worlds:tiny", frames=9_000, workers=3, announce=lambda _: None)
    assert second.outcome is not None
    progress, earlier = second.outcome.progress, first.outcome.progress
    after = load_checkpoint(find_checkpoint(second.path))
    assert 9_000 <= progress.frames < 9_200 and progress.episodes > earlier.episodes
    assert progress.updates > earlier.updates and progress.seconds > earlier.seconds
    # Steps that the shared statistics have seen, all told; the count is raced on like them: seven in a hundred were
    # lost beside other programs.
    assert after.optimizer["ages"][0, 0] == pytest.approx(progress.updates, rel=0.2)
    assert [len(second.metrics()), len(second.episodes())] > rows
    assert second.metrics()[: rows[0]] == first.metrics()[: rows[0]]  # appended
    assert len(second.episodes()) == progress.episodes
    assert len(progress.workers) == 3 and all(worker.updates > 0 for worker in progress.workers)
    assert before.state["generation"] < after.state["generation"]  # restarted environments never repeat old seeds
    kept = {path.name for path in (second.path / "checkpoints").glob("[0-9]*")}
    assert kept >= {str(before.state["frames"]), str(after.state["frames"])}


def test_a_restored_store_is_the_saved_one(finished):
    checkpoint = load_checkpoint(find_checkpoint(finished.path))
    config = dataclasses.replace(TINY, frames=8_000, final_learning_rate_fraction=0.5)
    trainer = Trainer(config, Path("run"), show=print, announce=print, checkpoint=checkpoint)
    saved = torch.cat([checkpoint.parameters[name].reshape(-1) for name, _ in trainer.network.named_parameters()])
    assert torch.equal(trainer.store.theta, saved)
    assert torch.equal(trainer.store.statistics, checkpoint.optimizer["statistics"])
    assert trainer.store.statistics.any()
    frames = checkpoint.state["frames"]
    assert trainer.store.total(Counter.FRAMES) == frames
    # Half-way through the longer schedule, from 1 down to 0.5 of the first learning rate.
    assert trainer.store.learning_rate() == pytest.approx(config.initial_learning_rate * (1 - 0.5 * frames / 8_000))
    assert trainer.seconds == pytest.approx(checkpoint.state["seconds"], abs=5)


def test_statistics_are_dealt_out_when_the_number_of_workers_changes():
    run = train(dataclasses.replace(TINY, optimizer="rmsprop"))
    checkpoint = load_checkpoint(find_checkpoint(run.path))
    saved = checkpoint.optimizer["statistics"]
    assert saved.shape[0] == 2 and not torch.equal(saved[0], saved[1])
    config = dataclasses.replace(TINY, optimizer="rmsprop", workers=3)
    store = ParameterStore(StoreSpec.of(config, saved.shape[-1]), config)
    restore_store(store, checkpoint)
    assert all(torch.equal(store.statistics[i], saved[i % 2]) for i in range(3))
    assert store.ages[:, 0].tolist() == [checkpoint.optimizer["ages"][i % 2, 0] for i in range(3)]


def test_q_methods_resume_with_their_target():
    config = dataclasses.replace(TINY, algo="one-step-q", target_frames=1_500, epsilon_frames=2_000)
    run = train(config)
    checkpoint = load_checkpoint(find_checkpoint(run.path))
    target = checkpoint.optimizer["target"]
    assert target.numel() and target.any()
    trainer = Trainer(
        dataclasses.replace(config, frames=10**6), run.path, show=print, announce=print, checkpoint=checkpoint
    )
    assert torch.equal(trainer.store.target, target)
    trainer.store._copy_target_at_crossing(0)  # not due: the run had copied at this epoch
    assert torch.equal(trainer.store.target, target) and not torch.equal(target, trainer.store.theta)


def test_a_world_that_has_changed_since_is_not_resumed(finished, monkeypatch):
    run = copied(finished)
    init = worlds.Tiny.__init__

    def widened(self, *args) -> None:
        init(self, *args)
        self.action_space = worlds.spaces.Discrete(3)

    monkeypatch.setattr(worlds.Tiny, "__init__", widened)
    with pytest.raises(UserError, match=r"worlds:tiny has another action space now than in .*: train anew"):
        asyncrl.resume(run.path, env="worlds:tiny", frames=9_000)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, r"is done with its 4,000 frames: it has 4,\d+, give more with --frames"),
        ({"frames": 3_000}, "is done with its 3,000 frames"),
        ({"frames": 9_000, "t_max": 3}, "t_max cannot change on resume"),
        ({"frames": 9_000, "max_time": 1e-3}, "is done with its .* seconds: give more with --max-time"),
        ({"frames": 9_000, "workers": 0}, "--workers is 0"),
        ({"frames": 9_000, "device": "cuda"}, "--device cuda is for --algo a2c"),
    ],
)
def test_what_cannot_be_resumed(finished, changes, complaint):
    run = copied(finished)
    config = (run.path / "config.toml").read_bytes()
    with pytest.raises(UserError, match=complaint):
        asyncrl.resume(run.path, env="worlds:tiny", **changes)
    assert (run.path / "config.toml").read_bytes() == config


def test_a_score_ends_a_run_and_what_was_evaluated_is_kept():
    config = dataclasses.replace(
        TINY, frames=10**9, stop_at_score=3.0, eval_episodes=10, learning_rate=0.01, standardize_inputs=True
    )
    run = train(config)
    assert run.outcome is not None and run.outcome.reason == "score"
    assert run.outcome.evaluation is not None and run.outcome.evaluation.mean >= 3.0
    evaluations = [row for row in run.metrics() if "evaluated_episodes" in row]
    assert evaluations[-1]["evaluated_score"] == run.outcome.evaluation.mean
    kept = load_checkpoint(find_checkpoint(run.path))
    assert kept.state["frames"] > run.outcome.evaluation.frames  # workers went on while it was evaluated
    theta = torch.cat([kept.parameters[name].reshape(-1) for name, _ in run.agent().network.named_parameters()])
    assert theta.numpy().tobytes() == run.outcome.evaluation.parameters.tobytes()
    sums = kept.optimizer["input_sums"].numpy()
    assert sums.tobytes() == run.outcome.evaluation.input_sums.tobytes()
    with pytest.raises(UserError, match="has reached its score of 3: give a higher one with --stop-at-score"):
        asyncrl.resume(run.path, env="worlds:tiny")


def test_a_score_ends_a_run_that_only_explores(monkeypatch):
    monkeypatch.setattr("asyncrl.evaluator.LOOK_SECONDS", 1.0)
    config = dataclasses.replace(
        TINY,
        algo="one-step-q",
        frames=10**9,
        max_time=100.0,
        learning_rate=0.01,
        target_frames=100,
        epsilon_frames=1,
        final_epsilons=(1.0,),
        final_epsilon_probabilities=(1.0,),
        stop_at_score=3.8,  # of 4, where random actions make 2
        eval_episodes=10,
    )
    run = train(config)
    assert run.outcome is not None and run.outcome.reason == "score"
    assert run.outcome.evaluation is not None and run.outcome.evaluation.mean >= 3.8
    assert np.mean([row["score"] for row in run.episodes()]) == pytest.approx(2, abs=0.2)


def test_the_best_checkpoint_is_of_the_best_scores(monkeypatch):
    trainer = make_trainer(TINY)
    scores = iter([1.0, 3.0, 2.0])
    for frames in (10, 20, 30):
        score = next(scores)
        trainer.gatherer.add(Report(0, episodes=[Episode(0, score, 4, 0.1, False)] * 100))
        trainer.store.counters[0, Counter.FRAMES] = frames
        trainer._save()
    checkpoints = Path("run/checkpoints")
    assert (checkpoints / "latest").readlink() == Path("30")
    assert (checkpoints / "best").readlink() == Path("20")
    assert trainer.gatherer.best_score == 3.0


def test_numbers_of_several_reports_are_weighted_by_their_updates():
    gatherer = Gatherer()
    gatherer.add(Report(0, 3, {"entropy": 1.0}, {0: 2, 1: 1}, [Episode(0, 5.0, 10, 0.1, False)]))
    gatherer.add(Report(1, 1, {"entropy": 5.0}, {2: 1}, [Episode(0, -1.0, 20, 0.1, True)]))
    assert gatherer.stats == {"entropy": 2.0}
    assert gatherer.mean_staleness == pytest.approx(3 / 4)
    assert (gatherer.mean_score, gatherer.mean_length) == (2.0, 15.0)
    assert (gatherer.worker_mean(1), gatherer.worker_mean(2)) == (-1.0, None)
    assert gatherer.best_score is None  # not before 100 episodes
    assert gatherer.latest_mean(1) == -1.0 and gatherer.latest_mean(3) is None
    gatherer.next_interval()
    assert gatherer.stats == {"entropy": 2.0} and gatherer.mean_score == 2.0  # nothing newer yet
    gatherer.add(Report(0, 1, {"entropy": 9.0}, {4: 1}))
    assert gatherer.stats == {"entropy": 9.0} and gatherer.mean_staleness == 4.0


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_learning_that_diverges_ends_in_one_line_and_leaves_no_broken_checkpoint(env, capfd):
    config = Config(env=env, workers=2, optimizer="momentum-sgd", learning_rate=1e30, frames=100_000)
    told: list[str] = []
    with pytest.raises(UserError, match=r"learning diverged: .* lower --learning-rate"):
        train(config, told)
    assert "Traceback" not in capfd.readouterr().err + "".join(told)
    for path in Path("run/checkpoints").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_json_rows_survive_what_is_not_finite_and_a_crash(tmp_path):
    assert json_line({"a": float("nan"), "b": -float("inf"), "c": 1.5}) == '{"a": null, "b": null, "c": 1.5}'
    path = tmp_path / "rows.jsonl"
    rows = JsonLines(path)
    rows.write({"n": 1})
    rows.write({"n": 2})
    rows.close()
    path.write_text(path.read_text()[:-4])  # cut short by a crash
    assert read_json_lines(path) == [{"n": 1}]
    assert read_json_lines(tmp_path / "none.jsonl") == []


CARTPOLE = Config(
    env="CartPole-v1",
    workers=2,
    envs_per_worker=4,
    t_max=16,
    optimizer="adam",
    learning_rate=3e-3,
    decay=0.999,
    optimizer_epsilon=1e-5,
    entropy_cost=0.005,
    max_grad_norm=10.0,
    gae_lambda=0.95,
)


@pytest.mark.parametrize("seed", [0])
def test_it_learns_cartpole(seed):
    run = train(dataclasses.replace(CARTPOLE, frames=100_000, seed=seed))
    scores = [row["score"] for row in run.episodes()]
    assert np.mean(scores[:50]) < 45  # random play is about 22
    assert np.mean(scores[-30:]) > 60  # five seeds ended between 102 and 203


@pytest.mark.slow
def test_it_solves_cartpole():
    run = train(dataclasses.replace(CARTPOLE, frames=600_000, stop_at_score=475, eval_episodes=30))
    assert np.mean([episode.score for episode in run.agent().evaluate(100, mode="greedy")]) > 475
