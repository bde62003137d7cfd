"""Rounds of measurements that are cut off and go on in another sitting."""

import dataclasses
import json
import sys

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
SUBJECT = {"game": ["ALE/Pong-v5", "conv2013"], "seconds": 15.0, "only": ()}


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
