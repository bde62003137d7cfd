"""`benchmarks/scaling.py`: what is divided by what, and how trainings side by side add up."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def scaling(from_benchmarks):
    return from_benchmarks("scaling")


@pytest.mark.parametrize("most, numbers", [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))])
def test_workers_double_up_to_the_cores(scaling, most, numbers):
    assert scaling.powers_of_two(most) == numbers


def test_each_number_is_compared_with_the_least_and_with_as_many_that_share_nothing(scaling):
    assert scaling.pairs_of((4, 1)) == [("4 workers", "1 worker"), ("4 workers", "4 stores of one worker")]
    assert scaling.pairs_of((2,)) == [("2 workers", "2 stores of one worker")]
    assert scaling.pairs_of((1,)) == []


def test_efficiency_is_the_share_of_a_proportional_speed_up(scaling):
    ratios = {"4 workers / 2 workers": {"median": 1.5}, "8 workers / 2 workers": None}
    assert scaling.efficiencies({"ratios": ratios}, (2, 4, 8)) == {4: 0.75}


def test_every_pair_is_measured(scaling):
    contenders = scaling.make_contenders(scaling.Arguments(workers=(1, 2, 4)))
    groups = {contender.group for contender in contenders}
    assert len(groups) == len(contenders) == 5
    assert {group for pair in scaling.pairs_of((1, 2, 4)) for group in pair} == groups


def test_trainings_side_by_side_add_their_rates_and_count_their_session_once(from_benchmarks):
    measurement = from_benchmarks("meter").Measurement
    total = from_benchmarks("side_by_side").add(
        [measurement(1000, 10.0, 18.0, 0.01, 3.0, 500.0), measurement(3000, 10.0, 20.0, 0.04, 2.0, 510.0)]
    )
    assert total == measurement(4000, 10.0, 19.0, 0.04, 3.0, 510.0)


def test_memory_of_the_session_is_counted(from_benchmarks):
    script = (
        "import meter; before = meter.session_megabytes(); held = bytearray(b'x') * (64 << 20); "
        "print(before, meter.session_megabytes())"
    )
    folder = Path(from_benchmarks("meter").__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
    )
    before, after = map(float, ran.stdout.split())
    assert 60 < after - before < 70
    assert 1 < before < 60


def test_limits_of_sharing_follow_from_what_one_worker_needs(from_benchmarks):
    module = from_benchmarks("sharing")
    needs = module.Needs(
        moved_bytes=20_000_000, parameters=1_600_000, update_seconds=0.01, pull_seconds=1e-4, push_seconds=1e-3
    )
    found = module.sharing("paper", needs, 40e9)
    assert found.workers_at_bandwidth == pytest.approx(20)  # each moves 2 GB/s
    assert found.workers_at_one_push == pytest.approx(11)
    assert found.lost_per_worker == pytest.approx(1e-5)  # a line is at risk for 100 ns of 10 ms


def test_bandwidth_is_that_of_all_at_once(from_benchmarks):
    module = from_benchmarks("sharing")
    for workers in (1, 2):
        assert 1e7 < module.bandwidth(workers, 0.2) < 1e13


def test_the_bar_of_the_start_is_three_imports_and_the_environments(from_benchmarks):
    row = {"import torch": 2.0, "a worker's environments": 1.0, "and their reset": 2.0, "first gradient": 7.2}
    shares = from_benchmarks("startup").shares_of_the_bar(row)
    assert shares == pytest.approx({"of the bar": 7.2 / 7.2, "of the bar, with resets": 7.2 / 9.6})
