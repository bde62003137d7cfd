"""Measuring speed: clocks that add up, real workers, a proposal that train accepts, mistakes in one line."""

import dataclasses
import errno
import json
from collections.abc import Callable, Collection

import pytest

from asyncrl import tune, worker
from asyncrl.arguments import parse
from asyncrl.children import start_process
from asyncrl.cli import main
from asyncrl.cli_config import starting_point
from asyncrl.config import Config
from asyncrl.config_file import read_config
from asyncrl.errors import UserError
from asyncrl.presets import fast_preset, make_preset, preset_for
from asyncrl.profile import profile_of
from asyncrl.roofline import FLOORS, floors
from asyncrl.spans import SPANS, Spans, time_learner_
from asyncrl.speed import Speed, Window, measure_speed
from asyncrl.start import fresh_start
from asyncrl.store import ParameterStore, StoreSpec
from asyncrl.tune import Trial, as_text, choose, command_of, try_out
from asyncrl.worker import Learner, compute_update

CART = dataclasses.replace(fast_preset(), env="CartPole-v1", workers=1, envs_per_worker=2, t_max=4)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what a test adds."""
    now = [0.0]
    monkeypatch.setattr("asyncrl.spans.time.perf_counter", lambda: now[0])
    return now


@pytest.fixture
def learner(monkeypatch):
    """A learner and its store; what is put around the functions of `worker` is taken away again."""
    for name in ("flat_gradient", "clip_global_norm_"):
        monkeypatch.setattr(worker, name, getattr(worker, name))
    learner = Learner(CART, 0, 0, fresh_start(CART).statistics)
    store = ParameterStore(StoreSpec.of(CART, learner.snapshot.numel()), CART)
    yield learner, store
    learner.close()


def test_time_belongs_to_the_innermost_call(clock):
    spans = Spans()

    def inner():
        clock[0] += 2

    def outer():
        clock[0] += 1
        timed_inner()
        clock[0] += 4

    timed_inner = spans.timed("sampling", inner)
    clock[0] += 8
    spans.timed("acting", outer)()
    taken = spans.take()
    assert (taken["bookkeeping"], taken["acting"], taken["sampling"]) == (8, 5, 2)
    assert sum(taken.values()) == clock[0]
    assert set(spans.take().values()) == {0.0}


def test_a_call_that_raises_gives_the_clock_back(clock):
    spans = Spans()

    def fails():
        clock[0] += 1
        raise KeyError

    with pytest.raises(KeyError):
        spans.timed("push", fails)()
    clock[0] += 2
    taken = spans.take()
    assert (taken["push"], taken["bookkeeping"]) == (1, 2)


def test_every_part_of_a_real_update_is_timed(learner):
    learner, store = learner
    spans = Spans()
    time_learner_(learner, store, spans)
    pulled = learner.pull(store)
    store.apply(0, compute_update(learner), pulled)
    assert {name for name, seconds in spans.take().items() if seconds > 0} == set(SPANS)


def test_timed_and_plain_workers_compute_the_same(learner):
    learner, store = learner
    plain = Learner(CART, 0, 0, fresh_start(CART).statistics)
    time_learner_(learner, store, Spans())
    assert compute_update(learner).gradient.equal(compute_update(plain).gradient)
    plain.close()


def test_floors_are_positive_and_cover_all(learner):
    found = floors(*learner, seconds=0.02)
    assert set(found) == {"environment", "arithmetic", "memory"} and min(found.values()) > 0


def test_floors_of_atari_tell_the_emulator_from_its_pictures():
    pytest.importorskip("ale_py")
    config = dataclasses.replace(fast_preset(), workers=1, envs_per_worker=1, t_max=2)
    learner = Learner(config, 0, 0, fresh_start(config).statistics)
    store = ParameterStore(StoreSpec.of(config, learner.snapshot.numel()), config)
    try:
        found = floors(learner, store, seconds=0.2)
    finally:
        learner.close()
    assert set(found) == set(FLOORS) - {"environment"}
    assert found["emulator"] > 0


def window(steps, seconds, timed):
    return Window(steps, seconds, seconds, {**dict.fromkeys(SPANS, 0.0), "acting": seconds} if timed else None)


def test_a_profile_comes_from_the_faster_half():
    windows = [window(100, s, timed) for timed in (False, True) for s in (1.0, 9.0)]
    speed = Speed(Config(), 1.0, 4.0, 1.0, 1.0, 1.0, windows, dict.fromkeys(FLOORS, 1e-6))
    profile = profile_of(speed)
    assert profile.spans["acting"] == pytest.approx(1e4)
    assert profile.floors == pytest.approx(dict.fromkeys(FLOORS, 1.0)) and profile.clocks == 0.0


def test_the_smallest_batch_near_the_fastest_is_proposed():
    trials = [Trial(2, batch, rate, 0, 0, 1) for batch, rate in ((4, 800), (8, 960), (16, 1000), (32, 990))]
    assert choose(trials).envs_per_worker == 8
    assert choose([*trials, Trial(1, 8, 955, 0, 0, 1)]).workers == 1


def test_bench_profiles_and_draws(tmp_path, capsys):
    out = tmp_path / "profile.png"
    args = ("--workers", "2", "--profile", "--seconds", "1", "--warmup", "0", "--out", str(out), "--json")
    assert main(("bench", "CartPole-v1", *args)) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["workers"] == 2 and row["steps_per_second"] > 0 and list(row["micros_per_step"]) == list(SPANS)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_tune_proposes_what_train_accepts(tmp_path, capsys):
    out = tmp_path / "tuned.toml"
    assert main(("tune", "CartPole-v1", "--preset", "fast", "--budget", "0.1", "--out", str(out), "--json")) == 0
    row = json.loads(capsys.readouterr().out)
    config = read_config(out)
    assert config.preset == "fast-vector"  # what "fast" is there
    trials = [Trial(**trial) for trial in row["trials"]]
    hint = "time for one trial only"
    assert hint in as_text(trials[0], trials[:1], "", CART) and hint not in as_text(trials[0], 2 * trials, "", CART)
    on_gpu = dataclasses.replace(make_preset("paper", "a2c"), device="cuda")
    assert hint not in as_text(trials[0], trials[:1], "", on_gpu)  # there is only one
    assert (config.workers, config.envs_per_worker) == tuple(
        row["proposal"][name] for name in ("workers", "envs_per_worker")
    )
    assert config.frames == preset_for("fast", "CartPole-v1").frames and row["command"].endswith(
        f"train --config {out}"
    )


def test_tune_tells_its_proposal_where_it_cannot_write_it(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("asyncrl.config_file.write_config", refuse)
    out = tmp_path / "tuned.toml"
    assert main(("tune", "CartPole-v1", "--workers", "1", "--budget", "0.1", "--out", str(out))) == 2
    told = capsys.readouterr()
    assert "to train so:" in told.out and " train CartPole-v1 --workers=1 --envs-per-worker=" in told.out
    assert f"cannot write {out}: No space left on device" in told.err


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        (["CartPole-v1"], "CartPole-v1"),
        (["CartPole-v1", "--core", "lstm", "--budget=9", "--json"], "CartPole-v1 --core lstm"),
        (
            ["--env=CartPole-v1", "--budget", "9", "--algo=a2c", "--envs_per_worker", "3"],
            "--env=CartPole-v1 --algo=a2c",
        ),
        (["--config", "a b.toml", "--workers", "7"], "--config 'a b.toml'"),
    ],
)
def test_tune_proposes_with_the_options_it_was_given(args, kept):
    start = dataclasses.replace(CART, workers=2)
    command = command_of(dataclasses.replace(start, envs_per_worker=4), None, args, start)
    assert command.partition(" train ")[2] == f"{kept} --workers=2 --envs-per-worker=4"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, int]]]:
    """Return a function that returns what `tune` tries for a configuration on `cores`, ten seconds each."""

    def measure(config: Config, **_: object) -> Speed:
        now[0] += 10.0
        return Speed(config, 1.0, 1.0, 1.0, 1.0, 1.0, [])

    def tried(config: Config, cores: int, fixed: Collection[str] = ()) -> list[tuple[int, int]]:
        monkeypatch.setattr("asyncrl.tune.available_cores", lambda: cores)
        return [(t.workers, t.envs_per_worker) for t in try_out(config, 60.0, str, fixed)]

    now = [0.0]
    monkeypatch.setattr("asyncrl.tune.time.monotonic", lambda: now[0])
    monkeypatch.setattr("asyncrl.tune.measure_speed", measure)
    return tried


def test_tune_tries_workers_too_when_batches_take_their_half_of_the_time(tried):
    eight = dataclasses.replace(CART, envs_per_worker=8)
    assert tried(eight, 2) == [(2, 8), (2, 4), (2, 16), (1, 4), (2, 8), (1, 4)]


def test_tune_begins_with_the_preset_and_leaves_alone_what_was_given(tried):
    two = dataclasses.replace(CART, workers=2, envs_per_worker=2)
    assert tried(two, 4)[:2] == [(4, 2), (4, 8)]
    assert {workers for workers, _ in tried(two, 4, {"workers"})} == {2}
    assert tried(two, 4, {"envs_per_worker"}) == [(4, 2), (2, 2), (5, 2), (8, 2), (4, 2), (2, 2)]
    assert tried(make_preset("fast", "a2c", 8), 8, {"threads", "envs_per_worker"}) == [(8, 8)]


@pytest.mark.parametrize(("again", "proposed"), [((100, 103), (2, 8)), ((100, 106), (3, 8)), ((100,), (3, 8))])
def test_tune_believes_what_it_measured_again(again, proposed):
    first = [Trial(2, 8, 100, 0, 0, 1), Trial(2, 4, 80, 0, 0, 1), Trial(3, 8, 130, 0, 0, 1)]
    assert choose(first) is first[-1]
    repeated = [Trial(w, 8, rate, 0, 0, 1, again=True) for w, rate in zip((2, 3), again, strict=False)]
    best = choose([*first, *repeated])
    assert (best.workers, best.envs_per_worker) == proposed and best.again == (len(repeated) == 2)
    table = as_text(best, [*first, *repeated], "", CART)
    assert table.count("  again") == len(repeated) and table.count("proposed") == 1


def test_a_trial_that_fails_does_not_cost_the_others(tried, monkeypatch):
    measure = tune.measure_speed

    def fail(config: Config, **settings: object) -> Speed:
        if config.envs_per_worker > 4:
            raise UserError("a worker ended without a word")
        return measure(config, **settings)

    monkeypatch.setattr("asyncrl.tune.measure_speed", fail)
    assert all(batch <= 4 for _, batch in tried(CART, 2)) and (2, 4) in tried(CART, 2)
    nine = dataclasses.replace(CART, envs_per_worker=9)
    monkeypatch.setattr("asyncrl.tune.measure_speed", lambda *_, **__: fail(nine))
    with pytest.raises(UserError, match="a worker ended without a word"):
        tried(CART, 2)


def test_tune_gives_many_workers_no_more_environments_than_their_preset(tried):
    sixteen = make_preset("fast", workers=16)
    assert tried(sixteen, 16) == [(16, 2), (16, 1), (8, 1), (17, 1), (16, 2), (8, 1)]
    assert tried(make_preset("fast", workers=2), 16) == [(16, 2), (16, 1), (8, 1), (17, 1), (16, 2), (8, 1)]
    four = dataclasses.replace(sixteen, envs_per_worker=4)  # as somebody wants it
    assert tried(four, 16) == [(16, 4), (16, 2), (16, 1), (8, 1), (16, 4), (8, 1)]
    for algo in ("a2c", "n-step-q"):  # of which the preset does not say so
        assert tried(make_preset("fast", algo, 16), 16)[0] == (16, 8)


def test_tune_tries_threads_where_one_process_has_all(tried, monkeypatch):
    threads = []
    measure = tune.measure_speed

    def spy(config: Config, **settings: object) -> Speed:
        threads.append(config.threads)
        return measure(config, **settings)

    monkeypatch.setattr("asyncrl.tune.measure_speed", spy)
    monkeypatch.setattr("asyncrl.worker.available_cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    a2c = make_preset("fast", "a2c", 8)
    assert [batch for _, batch in tried(a2c, 8)] == [8, 4, 16, 4, 8, 4]
    assert threads == [None, None, None, 1, None, 1]  # the rule's are 8
    threads.clear()
    tried(dataclasses.replace(a2c, device="cuda"), 8)
    assert set(threads) == {None}


def test_tune_proposes_the_fewest_threads_near_the_fastest():
    trials = [Trial(2, 8, rate, 0, 0, threads) for threads, rate in ((2, 1000), (1, 980), (4, 1010))]
    assert choose(trials).threads == 1
    start = make_preset("fast", "a2c", 2)
    proposal = dataclasses.replace(start, threads=1)
    assert command_of(proposal, None, ["ALE/Pong-v5", "--algo=a2c", "--threads", "2"], start).endswith(
        "train ALE/Pong-v5 --algo=a2c --workers=2 --envs-per-worker=8 --threads=1"
    )


def test_tune_leaves_the_paper_its_one_environment(tried):
    assert tried(make_preset("paper"), 2) == [(2, 1), (1, 1), (3, 1), (4, 1), (2, 1), (1, 1)]
    assert tried(dataclasses.replace(make_preset("paper"), envs_per_worker=5), 2)[0] == (2, 5)  # as somebody wants it


def test_what_tune_proposes_in_words_is_what_it_writes():
    start = make_preset("fast", workers=16)
    half = dataclasses.replace(start, workers=8)
    words = command_of(half, None, ["ALE/Pong-v5"], start).partition(" train ")[2].split()
    _, config, rest = starting_point(words)
    parsed = parse(Config, rest, "asyncrl train", config)
    assert parsed == dataclasses.replace(half, env="ALE/Pong-v5")
    given = ["ALE/Pong-v5", "--learning-rate", "0.1"]
    assert command_of(half, None, given, start).count("--learning-rate") == 1


def test_no_clocks_for_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(UserError, match="leave it out with --device cuda"):
        measure_speed(dataclasses.replace(CART, algo="a2c", device="cuda"), seconds=1.0, warmup=0.0, profile=True)


def test_a_worker_that_hangs_at_the_end_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asyncrl.speed.END_SECONDS", 3.0)
    config = dataclasses.replace(CART, env="tests.worlds:hanging_soon", workers=1, standardize_inputs=False)
    with pytest.raises(UserError, match="a worker has not ended 3 s after"):
        measure_speed(config, seconds=0.5, warmup=0.0)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("tune",), "tune for what? Name an environment"),
        (("tune", "CartPole-v1", "--budget", "0"), "--budget is 0.0: it must be positive"),
        (("tune", "CartPole-v1", "--out", "no/x.toml"), "there is no folder no"),
        (("tune", "CartPole-v1", "--out", "."), "it is a folder"),
        (("tune", "CartPole-v1", "--out", "/proc/x.toml"), "no file can be made in its folder"),
        (("tune", "CartPol-v1"), "did you mean CartPole-v1?"),
        (("bench", "CartPole-v1", "--seconds", "0"), "--seconds must be positive"),
        (("bench", "CartPole-v1", "--profile", "--out", "x.txt"), "pictures end with .png"),
        (("bench", "CartPole-v1", "--profile", "--out", "no/x.png"), "there is no folder no"),
        (("bench", "CartPole-v1", "--schedule", "simulated"), "there is no speed to measure"),
        (("bench", "CartPole-v1", "--algo", "a2c", "--device", "cuda"), "torch finds no GPU here"),
        (("bench", "CartPole-v1", "--preset", "paper", "--config", "x.toml"), "--preset and --config both say"),
    ],
)
def test_mistakes_are_told_in_one_line(args, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(args) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_worker_that_cannot_be_started_is_told_in_a_line_and_the_others_end(monkeypatch):
    started = []

    def start(*args):
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(start_process(*args))
        return started[0]

    monkeypatch.setattr("asyncrl.speed.start_process", start, raising=True)
    with pytest.raises(UserError, match=r"a worker could not be started: .*temporarily unavailable"):
        measure_speed(dataclasses.replace(CART, workers=2), seconds=1.0, warmup=0.0)
    assert [process.is_alive() for process in started] == [False]
