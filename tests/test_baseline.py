"""The stored ratios of `make bench`: what counts as worse, and that nothing unmeasured passes."""

import pytest

MACHINE = {"processor": "a", "family": "25", "model": "1", "capability": "AVX2", "cores": 2}
SETTINGS = {"env": "ALE/Pong-v5", "workers": 2, "envs_per_worker": 8, "rounds": 5}


@pytest.fixture
def baseline(from_benchmarks):
    return from_benchmarks("baseline")


def spread(low, median, high):
    """Return a spread with these quartiles, and a round far off at either end."""
    return {"median": median, "low": low, "high": high, "min": 0.5 * low, "max": 2 * high}


NAMES = ("asyncrl / sb3", "share_of_roofline", "share_of_roofline_cpu")
GOOD = spread(2.9, 3.0, 3.1)


def result(x, **changes):
    """Return a result whose first ratio is `x`, all others good."""
    ratios = dict.fromkeys(NAMES, GOOD) | {NAMES[0]: x}
    told = {"date": "", "title": "", "settings": SETTINGS, "schema": 4, "machine": MACHINE}
    return {**told, "ratios": ratios, "failures": {}, **changes}


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
    baseline.keep_baseline(result(GOOD), path)
    stored = baseline.read_baseline(MACHINE, SETTINGS, path)
    lines, code = baseline.compare(result(GOOD), stored)
    told = "asyncrl / sb3: 3.00 (half of the rounds 2.90 to 3.10), stored 3.00 (half of the rounds 2.90 to 3.10)"
    assert (lines[0], len(lines), code) == (f"as good: {told}", 3, 0)
    assert baseline.compare(result(spread(1.9, 2.0, 2.1)), stored)[1] == 1
    assert baseline.compare(result(None), stored)[1] == 2
    assert baseline.compare(result(GOOD, ratios={}), stored)[1] == 2
    lines, code = baseline.compare(result(GOOD, failures={"own kernels": "no cc"}), stored)
    assert lines[0] == "failed: own kernels" and code == 2  # without the cheapest pass a share means nothing
    assert baseline.compare(result(spread(1.9, 2.0, 2.1), failures={"own kernels": "no cc"}), stored)[1] == 1


def test_what_was_not_measured_is_not_kept(baseline, tmp_path):
    path = tmp_path / "baseline.json"
    with pytest.raises(ValueError, match="not measured, or in no quiet round: asyncrl / sb3: nothing kept"):
        baseline.keep_baseline(result(None), path)
    with pytest.raises(ValueError, match="round: asyncrl / sb3, share_of_roofline, share_of_roofline_cpu: nothing"):
        baseline.keep_baseline(result(GOOD, ratios={}), path)  # as with --only asyncrl
    with pytest.raises(ValueError, match="4 rounds are no baseline, 5 are: nothing kept"):
        baseline.keep_baseline(result(GOOD, settings=SETTINGS | {"rounds": 4}), path)
    with pytest.raises(ValueError, match="failed: own kernels: nothing kept"):
        baseline.keep_baseline(result(GOOD, failures={"own kernels": "no cc"}), path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("machine", "settings", "told"),
    [
        ({"capability": "AVX512"}, {}, "is of capability AVX2, not AVX512: make one on"),
        ({"model": "17"}, {}, "is of model 1, not 17: make one on"),
        ({}, {"env": "ALE/Breakout-v5"}, "is of env ALE/Pong-v5, not ALE/Breakout-v5: make one on"),
        ({}, {"envs_per_worker": 16}, "is of envs_per_worker 8, not 16: make one on"),
    ],
)
def test_only_what_is_alike_is_compared(baseline, tmp_path, machine, settings, told):
    path = tmp_path / "baseline.json"
    with pytest.raises(ValueError, match=r"there is no baseline.*: make one on a quiet machine"):
        baseline.read_baseline(MACHINE, SETTINGS, path)
    path.write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="of another version: make one"):
        baseline.read_baseline(MACHINE, SETTINGS, path)
    baseline.keep_baseline(result(GOOD), path)
    with pytest.raises(ValueError, match=told):
        baseline.read_baseline(MACHINE | machine, SETTINGS | settings, path)


def test_an_older_baseline_serves_every_model(baseline, tmp_path):
    path, older = (
        tmp_path / "baseline.json",
        {name: MACHINE[name] for name in MACHINE if name not in ("family", "model")},
    )
    baseline.keep_baseline(result(GOOD, machine=older), path)
    assert baseline.read_baseline(MACHINE, SETTINGS, path)["machine"] == older


def test_a_spread_has_the_quartiles_of_its_rounds(from_benchmarks):
    spread_of = from_benchmarks("report").spread_of
    assert spread_of([5.0, 1.0, 2.0, 9.0, 4.0]) == {"median": 4.0, "min": 1.0, "max": 9.0, "low": 2.0, "high": 5.0}
    assert set(spread_of([3.0]).values()) == {3.0} and spread_of([]) is None
