"""`make bench-envs`: what its table says follows from the measurements, and a missed bar is told."""

import types

import pytest

from asyncrl.worlds import World


@pytest.fixture
def bench(from_benchmarks):
    return from_benchmarks("bench_envs")


@pytest.fixture
def measured(bench, from_benchmarks):
    """Return rounds in which each way took these microseconds of processor time a step, one figure a round."""
    rounds = from_benchmarks("rounds")

    def make(world: str, quiet: bool = True, **micros: list[float]) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            rows=[
                rounds.Row(f"{world}, {way}", "", number, quiet, bench.Measurement(1000, 1.0, figure * 1e-3, 0.0, 1.0))
                for way, figures in micros.items()
                for number, figure in enumerate(figures, 1)
            ]
        )

    return make


def test_rates_are_of_processor_time_and_the_share_is_of_the_same_round(bench, measured):
    case = bench.Case("maze", "maze-v0", "any", bar=2500)
    rounds = measured("maze", gymnasium=[400, 500, 200], trainer=[100, 300], training=[1000, 500])
    world = bench.summarize(case, rounds)
    assert world["gymnasium"] == pytest.approx({"median": 2500, "min": 2000, "max": 5000, "low": 2250, "high": 3750})
    assert world["share"] == pytest.approx({"median": 0.35, "min": 0.1, "max": 0.6, "low": 0.225, "high": 0.475})
    assert not world["missed"]


def test_a_missed_bar_is_told(bench, measured):
    assert bench.summarize(bench.Case("maze", "maze-v0", "any", bar=2500), measured("maze", gymnasium=[401]))["missed"]


@pytest.mark.parametrize(("ours", "missed"), [(110, False), (112, True)])
def test_nine_tenths_of_the_bare_library_are_wanted(bench, measured, ours, missed):
    case = bench.Case("cart", "cart-v0", "any", ways=("gymnasium", "bare"), bare=("gymnasium", "bare"))
    world = bench.summarize(case, measured("cart", gymnasium=[ours], bare=[100]))
    assert world["of_bare"]["median"] == pytest.approx(100 / ours) and world["missed"] is missed


def test_what_was_disturbed_or_is_of_another_world_does_not_count(bench, measured):
    case = bench.Case("TORCS", "torcs-v0", "any", bar=400)
    assert bench.summarize(case, measured("TORCS", quiet=False, gymnasium=[100]))["gymnasium"] is None
    assert bench.summarize(case, measured("TORCS, 4 opponents", gymnasium=[100]))["gymnasium"] is None


def test_a_world_that_is_missing_fails_with_the_cure(bench, monkeypatch):
    world = World("TORCS", ("asyncrl/Torcs-v0",), missing="no torcs", install="get torcs")
    monkeypatch.setattr(bench, "list_worlds", lambda: [world])
    contenders = bench.make_contenders(bench.Arguments(), [c for c in bench.CASES if c.needs == "TORCS"])
    assert len(contenders) == 6 and {c.failure for c in contenders} == {"no torcs: get torcs"}
