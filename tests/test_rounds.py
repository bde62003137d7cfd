"""Rounds of measurements that are cut off and go on in another sitting."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asyncrl.errors import UserError

SCRIPT = """
import json, pathlib, sys
name, log = sys.argv[1:3]
with open(log, "a") as file:
    print(name, file=file)
steps = {"a": 300, "b": 200, "slow": 100}[name]
print(json.dumps(dict(steps=steps, seconds=1, cpu_seconds=2, foreign_load=0.0, startup_seconds=0.1)))
"""
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SUBJECT = {"game": ["ALE/Pong-v5", "conv2013"], "seconds": 15.0, "only": ()}


LOADS = """
import json, pathlib, sys
left = pathlib.Path(sys.argv[1])
load, *others = json.loads(left.read_text())
left.write_text(json.dumps(others))
print(json.dumps(dict(steps=int(1000 * load), seconds=1, cpu_seconds=2, foreign_load=load, startup_seconds=0.1)))
"""


@pytest.mark.parametrize(
    ("loads", "ran", "kept", "steps"),
    [
        ([0.01, 0.02], 1, 1, 10),
        ([0.2, 0.03, 0.01], 2, 1, 30),  # disturbed, repeated, quiet
        ([0.2, 0.06, 0.05], 3, 1, 50),  # 5 % is quiet
        ([0.2, 0.06, 0.09, 0.01], 3, 0, None),  # repeats are used up: the round is dropped
    ],
)
def test_a_disturbed_measurement_is_repeated_and_then_dropped(from_benchmarks, tmp_path, loads, ran, kept, steps):
    contenders, rounds, report = map(from_benchmarks, ("contenders", "rounds", "report"))
    (tmp_path / "loads").write_text(json.dumps(loads))
    command = (sys.executable, "-c", LOADS, str(tmp_path / "loads"))
    found = rounds.Rounds([contenders.Contender("a", "ours", command)], rounds.Rules(1, quiet=0.05, repeats=2))
    found.run()
    assert len(found.rows) == ran
    summary = report.make_report(found, 2, ())["summaries"]["a"]
    assert (summary["kept"], summary["dropped"]) == (kept, ran - kept)
    assert summary["steps_per_second"] == (None if steps is None else report.spread_of([float(steps)]))


HOST = {"processor": "a", "family": "25", "model": "1", "capability": "b", "cores": 2, "git_revision": "x"}


@pytest.fixture
def peers(from_benchmarks, monkeypatch):
    """Return how to make the contenders of bench_peers.py for a game, without installing anybody."""
    module, bench = from_benchmarks("peer_contenders"), from_benchmarks("bench_peers")
    monkeypatch.setattr(module, "python_of", lambda venv, say: f"python-of-{venv}")
    return lambda env, **changes: module.make_peer_contenders(bench.Arguments(**changes), env, "conv2013", print)


def test_every_peer_is_a_contender_with_one_and_two_threads(peers):
    pong = {c.name: c for c in peers("ALE/Pong-v5")}
    ours = ["asyncrl", "asyncrl-paper-2", "asyncrl-paper-16"]
    assert [c.group for c in pong.values()][:3] == ours
    published = pong["CleanRL-style PPO, EnvPool, as for Pong, 2 threads"]
    assert published.command[0] == "python-of-envpool"
    assert " ".join(published.command[2:]).startswith("--envs 16 --epochs 3 --minibatches 8 --clip 0.2")
    assert dict(published.variables)["OMP_NUM_THREADS"] == "2"
    breakout = {c.group for c in peers("ALE/Breakout-v5")}
    assert {c.group for c in pong.values()} - breakout == {"cleanrl-pong"}  # published for Pong alone
    assert [c.group for c in peers("ALE/Pong-v5", only=("pfrl-2",))] == [*ours, "pfrl-2"]
    assert [c.group for c in peers("ALE/Pong-v5", only=("asyncrl",))] == ours


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        ("bench_peers.py", ["--only", "sb3"], "bench-peers: --only sb3: there are asyncrl, "),
        ("bench_envs.py", ["--only", "Pnog"], "bench-envs: --only Pnog: there are Labyrinth, "),
        ("time_to_score.py", ["pfrl-2", "--frames", "4M"], "--frames is for asyncrl"),
        ("time_to_score.py", ["asyncrl", "--network", "conv2015"], "--network is for peers: asyncrl is timed as"),
        ("bench.py", ["--workers", "0"], "bench: --workers is 0: it must be between 1 and 1024"),
        ("time_to_score.py", ["pfrl-2", "--every", "0"], "--every is 0.0: it must be positive"),
        ("time_to_score.py", ["cleanrl-pong", "--env", "ALE/Breakout-v5"], "are for ALE/Pong-v5 alone"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_runs(script, words, told):
    command = [sys.executable, script, *words]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


def test_peers_are_not_held_to_two_threads_beside_all_of_a_large_machine(from_benchmarks, monkeypatch, capsys):
    bench = from_benchmarks("bench_peers")
    monkeypatch.setattr(from_benchmarks("outcome").signal, "signal", lambda *_: None)
    monkeypatch.setattr(bench, "available_cores", lambda: 16)
    monkeypatch.setattr(sys, "argv", ["bench_peers.py"])
    assert bench.main() == 2
    assert "bench-peers: peers are set up for 2 cores: begin the command with taskset" in capsys.readouterr().err


@pytest.mark.parametrize(("workers", "batch", "games"), [(1, 8, 16), (2, 8, 16), (4, 8, 32), (16, 2, 32), (32, 1, 32)])
def test_stable_baselines_has_its_sixteen_games_or_as_many_as_we(from_benchmarks, workers, batch, games):
    bench, contenders = from_benchmarks("bench"), from_benchmarks("contenders")
    args = bench.with_batch(bench.Arguments(workers=workers))
    assert args.envs_per_worker == batch
    made = [c.command for c in contenders.make_contenders(args, "ALE/Pong-v5") if c.group == "sb3"]
    assert {words[words.index("--envs") + 1] for words in made} == {str(games)}


def test_without_a_compiler_the_kernels_are_no_ceiling(from_benchmarks, monkeypatch):
    bench, contenders = from_benchmarks("bench"), from_benchmarks("contenders")
    monkeypatch.setattr(contenders.kernels, "library", lambda: None)
    made = {c.name for c in contenders.make_contenders(bench.with_batch(bench.Arguments()), "ALE/Pong-v5")}
    assert "own kernels" not in made and "NCHW" in made


def test_a_share_of_many_cores_is_told_how_to_be_measured(from_benchmarks, monkeypatch, capsys):
    module = from_benchmarks("outcome")
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {5, 6, 7, 8})
    for cores, lines in ((4, []), (2, ["begin the command with taskset -c 5,6"])):
        monkeypatch.setattr(module, "available_cores", lambda cores=cores: cores)
        module.prepare("bench")
        assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == lines


def outcome(learner, seconds, best, **changes):
    ended = "cap" if seconds is None else "score"
    told = {"env": "ALE/Pong-v5", "score": 18.0, "cap": 2700.0, "network": None, "ended": ended, "machine": HOST}
    told |= {"seconds_to_score": seconds, "best_score": best, "episodes": 30}
    return {"learner": learner, **told, **changes}


def test_times_to_score_stand_beside_speeds(from_benchmarks, tmp_path, capsys):
    kept, report = from_benchmarks("kept_times"), from_benchmarks("report")
    file = tmp_path / "results" / "times.jsonl"
    assert kept.times_to_score("ALE/Pong-v5", HOST, file) == {}
    for row in (
        outcome("ours", 660.0, 18.9),
        outcome("ours", 438.0, 19.1, machine={**HOST, "git_revision": "y"}),
        outcome("theirs", None, -17.6),
        outcome("mixed", 600.0, 18.0),
        outcome("mixed", None, 12.0),
        outcome("broken", None, -20.0, ended="exit code 1"),
        outcome("ours", 60.0, 20.0, network="conv2015"),
        outcome("ours", 60.0, 20.0, episodes=1),
        outcome("ours", 60.0, 20.0, frames=4_000_000),  # another schedule than its default, which is told
        outcome("elsewhere", 60.0, 20.0, machine={**HOST, "cores": 64}),
        outcome("of another generation", 60.0, 20.0, machine={**HOST, "model": "17"}),
        outcome("old", 600.0, 18.0, machine={name: HOST[name] for name in ("processor", "capability", "cores")}),
        outcome("ours", 900.0, 100.0, env="ALE/Breakout-v5", score=100.0),
    ):
        kept.keep_time(row, file)
    times = kept.times_to_score("ALE/Pong-v5", HOST, file)
    assert times == {
        "ours": "+18: 7:18, 11:00; +18 (--frames 4000000): 1:00",
        "theirs": "+18: not within 45:00, best -17.6",
        "mixed": "+18: 10:00, not within 45:00, best 12.0",
        "broken": "+18: not (exit code 1), best -20.0",
        "old": "+18: 10:00",
    }
    assert kept.times_to_score("ALE/Breakout-v5", HOST, file) == {"ours": "+100: 15:00"}
    file.write_text(file.read_text()[:-9])
    with pytest.raises(UserError, match=r"times.jsonl is damaged .*: mend or remove it"):
        kept.times_to_score("ALE/Pong-v5", HOST, file)
    spread = report.spread_of([1.0])
    summary = {
        **dict.fromkeys(("steps_per_second", "cpu_micros_per_step", "startup_seconds"), spread),
        **dict.fromkeys(("memory_megabytes", "foreign_load"), spread),
        **{"kept": 1, "dropped": 0, "pilot_only": False},
    }
    result = {
        "title": "Pong",
        "machine": {**HOST, "torch": "2"},
        "settings": {"rounds": 1, "seconds": 15.0},
        "summaries": {"fast": {**summary, "group": "ours"}, "slow": {**summary, "group": "ours"}},
        "best": {"ours": "fast"},
        "failures": {},
        "ratios": {},
    }
    report.print_report({**result, "times": times})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "7:18, 11:00" in line]
    assert "fast" in line
    report.print_report(result)
    assert "score after" not in capsys.readouterr().out


@pytest.fixture
def benchmark(from_benchmarks, tmp_path):
    """Return what makes the rounds of three contenders, two of them in one group, and who ran so far."""
    contenders, rounds, kept = map(from_benchmarks, ("contenders", "rounds", "kept_rounds"))
    log, file = tmp_path / "log", tmp_path / "results" / "rounds.jsonl"
    made = [
        contenders.Contender(name, group, (sys.executable, "-c", SCRIPT, name, str(log)))
        for name, group in (("a", "ours"), ("b", "theirs"), ("slow", "theirs"))
    ]

    def sitting(count, keep=kept.keep_round):
        rules = rounds.Rules(count, quiet=0.05, repeats=0)
        return rounds.Rounds(made, rules, *kept.open_rounds(file, SUBJECT), lambda *what: keep(file, *what))

    def ran():
        names = log.read_text().split()
        log.unlink()
        return names

    return sitting, ran, file, kept


def test_rounds_go_on_where_they_ended(benchmark):
    sitting, ran, _, kept = benchmark

    def keep_but_one(file, rows, failures):
        if rows[0].round == 2:
            raise KeyboardInterrupt  # just before the round is written down
        kept.keep_round(file, rows, failures)

    with pytest.raises(KeyboardInterrupt):
        sitting(3, keep_but_one).run()
    assert ran() == ["a", "b", "slow", "a", "b", "b", "a"]  # the pilot, a round, and one backwards
    rounds = sitting(3)
    rounds.run()
    assert ran() == ["b", "a", "a", "b"]  # the second anew, and the third
    assert [(row.round, row.contender) for row in rounds.rows] == [
        *((0, name) for name in ("a", "b", "slow")),
        *((1, name) for name in ("a", "b")),
        *((2, name) for name in ("b", "a")),
        *((3, name) for name in ("a", "b")),
    ]
    assert {row.measurement.steps_per_second for row in rounds.rows if row.contender == "b"} == {200.0}


def test_who_goes_on_is_decided_by_the_pilot_alone(benchmark):
    sitting, ran, file, _ = benchmark
    sitting(1).run()
    ran()
    *before, last = map(json.loads, file.read_text().splitlines())
    for row in last["rows"]:
        row["measurement"]["steps"] //= 10  # a round on a slow machine, where "b" makes less than "slow" as a pilot
    file.write_text("".join(json.dumps(line) + "\n" for line in (*before, last)))
    sitting(2).run()
    assert ran() == ["b", "a"]


def test_what_could_not_be_installed_is_tried_again(benchmark):
    sitting, ran, _, _ = benchmark
    first = sitting(1)
    whole = first.contenders[1]
    first.contenders[1] = dataclasses.replace(whole, failure="cannot be installed: no network")
    first.failures[whole.name] = "cannot be installed: no network"
    first.run()
    assert ran() == ["a", "slow", "a", "slow"]
    first.contenders[1] = whole
    second = sitting(2)
    second.run()
    assert second.failures == {} and "b" in ran()


def test_who_has_failed_stays_out(benchmark):
    sitting, ran, _, _ = benchmark
    first = sitting(1)
    first.contenders[1] = dataclasses.replace(first.contenders[1], command=(sys.executable, "-c", "exit('no luck')"))
    first.run()
    assert ran() == ["a", "slow", "a", "slow"]
    second = sitting(2)
    second.run()
    assert ran() == ["slow", "a"]
    assert second.failures == {"b": "no luck (exit code 1)"}
    assert {row.round for row in sitting(1).rows} == {0, 1}  # fewer than are kept


def test_only_rounds_of_the_same_kind_go_on(benchmark):
    sitting, ran, file, kept = benchmark
    sitting(1).run()
    ran()
    with pytest.raises(UserError, match="was measured with another seconds: remove it"):
        kept.open_rounds(file, SUBJECT | {"seconds": 5.0})
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first, rest[0][:-9]]))
    with pytest.raises(UserError, match=r"is damaged .* remove it"):
        sitting(1)
    file.write_text(json.dumps([1]) + "\n")
    with pytest.raises(UserError, match="is damaged"):
        sitting(1)


def test_a_ratio_is_to_the_fastest_setting_of_each_round(from_benchmarks):
    contenders, rounds, report = map(from_benchmarks, ("contenders", "rounds", "report"))
    measurement = from_benchmarks("meter").Measurement

    def row(number, name, group, steps, quiet=True):
        return rounds.Row(name, group, number, quiet, measurement(steps, 1.0, 2.0, 0.0, 0.1))

    rows = [
        *(row(0, name, group, 50) for name, group in (("a", "ours"), ("b", "theirs"), ("c", "theirs"), ("d", "gone"))),
        *(row(1, "a", "ours", 400), row(1, "b", "theirs", 100), row(1, "c", "theirs", 90)),  # 4 to b
        *(row(2, "a", "ours", 400), row(2, "b", "theirs", 80), row(2, "c", "theirs", 200)),  # 2 to c
        *(row(3, "a", "ours", 400), row(3, "b", "theirs", 200, quiet=False), row(3, "c", "theirs", 10)),  # nothing
        *(row(4, "a", "ours", 900, quiet=False), row(4, "a", "ours", 300)),  # repeated
        *(row(4, "b", "theirs", 100), row(4, "c", "theirs", 90)),  # 3 to b
        row(5, "a", "ours", 400),  # theirs were not measured
        *(row(6, "a", "ours", 400), row(6, "c", "theirs", 10)),  # "b" has failed: nothing
        *(row(number, "e", "theirs", 900, quiet=False) for number in range(1, 7)),  # never undisturbed
    ]
    made = [contenders.Contender(name, group, ()) for name, group in (("a", "ours"), ("b", "theirs"), ("d", "gone"))]
    found = rounds.Rounds(made, rounds.Rules(6, quiet=0.05, repeats=1), rows)
    pairs = (("ours", "theirs"), ("ours", "gone"), ("ours", "left out"))
    ratios = report.make_report(found, 2, pairs)["ratios"]
    assert ratios == {"ours / theirs": report.spread_of([4.0, 2.0, 3.0]), "ours / gone": None}
