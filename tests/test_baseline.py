"""The stored ratios of `make bench`: what counts as worse, and that nothing unmeasured passes."""

import pytest

MACHINE = {"processor": "a", "capability": "AVX2", "cores": 2}


@pytest.fixture
def baseline(from_benchmarks):
    return from_benchmarks("baseline")


def spread(low, median, high):
    """Return a spread with these quartiles, and a round far off at either end."""
    return {"median": median, "low": low, "high": high, "min": 0.5 * low, "max": 2 * high}


def result(**ratios):
    return {**dict.fromkeys(("date", "title", "settings"), 0), "schema": 3, "machine": MACHINE, "ratios": ratios}


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        (spread(2.9, 3.0, 3.1), False),
        (spread(2.6, 2.7, 2.8), False),  # their middle halves meet
        (spread(2.5, 2.6, 2.7), True),
        (spread(3.5, 3.6, 3.7), False),  # better
    ],
)
def test_worse_means_by_more_than_the_spread(baseline, after, worse):
    assert baseline.is_worse(after, spread(2.75, 3.0, 3.2)) is worse


def test_a_narrow_range_does_not_make_a_loss_of_a_percent(baseline):
    assert not baseline.is_worse(spread(2.97, 2.97, 2.97), spread(3.0, 3.0, 3.0))


def test_compare_tells_and_returns_a_code(baseline, tmp_path):
    path = tmp_path / "baseline.json"
    baseline.keep_baseline(result(x=spread(2.9, 3.0, 3.1)), path)
    stored = baseline.read_baseline(path)
    assert baseline.compare(result(x=spread(2.9, 3.0, 3.1)), stored) == (
        ["as good: x: 3.00 (half of the rounds 2.90 to 3.10), stored 3.00 (half of the rounds 2.90 to 3.10)"],
        0,
    )
    assert baseline.compare(result(x=spread(1.9, 2.0, 2.1)), stored)[1] == 1
    assert baseline.compare(result(x=None), stored)[1] == 2
    assert baseline.compare(result(), stored)[1] == 2
    other = result(x=spread(2.9, 3.0, 3.1)) | {"machine": MACHINE | {"capability": "AVX512"}}
    assert "another machine: a (AVX2), 2 cores" in baseline.compare(other, stored)[0][0]


def test_what_was_not_measured_is_not_kept(baseline, tmp_path):
    path = tmp_path / "baseline.json"
    with pytest.raises(ValueError, match="no quiet round for x"):
        baseline.keep_baseline(result(x=None), path)
    assert not path.exists()
    with pytest.raises(ValueError, match="make one on a quiet machine"):
        baseline.read_baseline(path)
    path.write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="of another version: make one"):
        baseline.read_baseline(path)


def test_a_spread_has_the_quartiles_of_its_rounds(from_benchmarks):
    spread_of = from_benchmarks("report").spread_of
    assert spread_of([5.0, 1.0, 2.0, 9.0, 4.0]) == {"median": 4.0, "min": 1.0, "max": 9.0, "low": 2.0, "high": 5.0}
    assert set(spread_of([3.0]).values()) == {3.0} and spread_of([]) is None
