"""The stored ratios of `make bench`: what counts as worse, and that nothing unmeasured passes."""

import pytest


@pytest.fixture
def baseline(from_benchmarks):
    return from_benchmarks("baseline")


def spread(low, median, high):
    return {"median": median, "min": low, "max": high}


def result(**ratios):
    names = ("schema", "date", "title", "settings")
    return {**dict.fromkeys(names, 0), "machine": {"processor": "a", "cores": 2}, "ratios": ratios}


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        (spread(2.9, 3.0, 3.1), False),
        (spread(2.6, 2.8, 2.95), False),  # within the range of the stored ones
        (spread(2.5, 2.6, 3.05), False),  # its own range reaches up to the stored median
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
        ["as good: x: 3.00 (2.90 to 3.10), stored 3.00 (2.90 to 3.10)"],
        0,
    )
    assert baseline.compare(result(x=spread(1.9, 2.0, 2.1)), stored)[1] == 1
    assert baseline.compare(result(x=None), stored)[1] == 2
    assert baseline.compare(result(), stored)[1] == 2
    other = result(x=spread(2.9, 3.0, 3.1)) | {"machine": {"processor": "b", "cores": 2}}
    assert "another machine" in baseline.compare(other, stored)[0][0]


def test_what_was_not_measured_is_not_kept(baseline, tmp_path):
    path = tmp_path / "baseline.json"
    with pytest.raises(ValueError, match="no quiet round for x"):
        baseline.keep_baseline(result(x=None), path)
    assert not path.exists()
    with pytest.raises(ValueError, match="make one on a quiet machine"):
        baseline.read_baseline(path)
