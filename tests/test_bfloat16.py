"""Our kernels may multiply numbers rounded to bfloat16, where the processor can."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import asyncrl
from asyncrl import kernels
from asyncrl.errors import DivergedError, UserError
from asyncrl.flat import flatten_parameters_
from asyncrl.passes import Passes
from asyncrl.speed import measure_speed
from asyncrl.torsos import conv2013, conv_small
from asyncrl.worker import Learner, compute_update
from tests.test_kernels import CASES, CATCH


@pytest.fixture
def bfloat16() -> None:
    if not kernels.has_bfloat16():
        pytest.skip("this processor has no AVX-512 BF16")


@pytest.mark.parametrize(
    ("make", "shape", "density"),
    [
        (conv2013, (4, 84, 84), 0.01),
        (conv2013, (3, 61, 52), 0.01),
        (conv2013, (5, 37, 43), 0.01),
        (conv2013, (2, 36, 44), 0.01),
        (conv_small, (4, 3, 3), 0.1),  # one position
        (conv_small, (2, 5, 7), 0.1),
        (conv_small, (6, 10, 10), 0.05),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 5, 23, 257])
@pytest.mark.parametrize("stands_still", [False, True])  # all but the first rows, of which some is computed only once
@pytest.mark.parametrize("threads", [1, 3])
def test_products_of_what_bfloat16_can_hold_are_exact(
    bfloat16: None,
    make: Callable,
    shape: tuple[int, ...],
    density: float,
    stands_still: bool,
    threads: int,
    number: int,
    single_threaded: None,
) -> None:
    # Few weights of -1 and 1 among zeros, and pixels of 0 to 2: no factor needs more than eight bits.
    torso = make(shape)
    generator = torch.Generator().manual_seed(number)
    flat = flatten_parameters_(torso)
    signs = torch.randint(0, 2, flat.shape, generator=generator) * 2 - 1
    flat.copy_((torch.rand(flat.shape, generator=generator) < density) * signs)
    convolutions = [module for module in torso if isinstance(module, torch.nn.Conv2d)]
    hidden = next(module for module in torso if isinstance(module, torch.nn.Linear))
    images = torch.randint(0, 3, (number, *shape), generator=generator, dtype=torch.uint8)
    if stands_still:
        images[:, :, 5:] = images[0, :, 5:]
    gradient = torch.randint(-1, 2, (number, hidden.out_features), generator=generator).float()
    library = kernels.library()
    assert library is not None
    both = []
    for in_bfloat16 in (True, False):
        passes = Passes(library, shape, False, convolutions, hidden, flat, in_bfloat16, threads if in_bfloat16 else 1)
        passes.standardize(torch.tensor(0.0), torch.tensor(1.0))
        both.append([passes.features(images), *passes.backward(images, gradient)])
    assert all(values.norm() > 0 for values in both[1])
    for ours, exact in zip(*both, strict=True):
        assert torch.equal(ours, exact)


@pytest.mark.parametrize("case", ["one game", "a tile and a rest", "three convolutions", "colours", "sarsa"])
def test_bfloat16_rounds_factors_only(bfloat16: None, case: str, single_threaded: None) -> None:
    rounded = Learner(dataclasses.replace(CASES[case], kernels="bf16"), 0)
    floats = Learner(CASES[case], 0)
    assert rounded.passes
    for _ in range(2):
        ours, theirs = (compute_update(learner).gradient for learner in (rounded, floats))
        assert not torch.equal(ours, theirs)
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99
        assert 0.95 < ours.norm() / theirs.norm() < 1.05
    for learner in (rounded, floats):
        learner.close()


@pytest.mark.parametrize("place", [3, -300_000])  # a weight of the first convolution, of the linear layer
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 3.4e38])
def test_what_is_no_number_is_noticed(bfloat16: None, place: int, number: float, single_threaded: None) -> None:
    learner = Learner(dataclasses.replace(CASES["a tile of games"], kernels="bf16"), 0)
    learner.snapshot[place] = number
    with pytest.raises(DivergedError):
        compute_update(learner)
    learner.close()


@pytest.fixture
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_bfloat16", lambda: False)
    monkeypatch.setattr(kernels, "why_none", lambda: None)


REFUSED = "--kernels bf16: .* has no AVX-512 BF16. Choose --kernels auto"


def test_without_bfloat16_it_is_refused(no_bfloat16: None, tmp_path: Path) -> None:
    for act in (
        lambda: asyncrl.train("asyncrl/Catch-v0", kernels="bf16", frames=200, workers=1, run_dir=tmp_path / "run"),
        lambda: measure_speed(dataclasses.replace(CATCH, kernels="bf16"), seconds=1, warmup=0),
    ):
        with pytest.raises(UserError, match=REFUSED):
            act()
    assert not list(tmp_path.iterdir())


def test_a_run_in_bfloat16_goes_on_without_it(no_bfloat16: None, tmp_path: Path) -> None:
    run = asyncrl.train("asyncrl/Catch-v0", frames=200, workers=1, run_dir=tmp_path / "run")
    written = run.path / "config.toml"
    written.write_text(written.read_text().replace('kernels = "auto"', 'kernels = "bf16"'))
    with pytest.raises(UserError, match=REFUSED):
        asyncrl.resume(run.path, frames=400)
    done = asyncrl.resume(run.path, kernels="auto", frames=400)
    assert done.config.kernels == "auto"


def test_a_network_without_convolutions_has_nothing_to_compute_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "has_bfloat16", lambda: True)
    for env, network in (("CartPole-v1", "auto"), ("asyncrl/Catch-v0", "mlp")):
        with pytest.raises(UserError, match=f"bf16 is for convolutions on pictures of bytes, and {env} with this"):
            asyncrl.train(env, network=network, kernels="bf16", frames=200, workers=1, run_dir=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a2c_may_have_it(bfloat16: None, single_threaded: None) -> None:
    floats = dataclasses.replace(CASES["a tile of games"], algo="a2c", threads=2)
    learners = [Learner(config, 0) for config in (dataclasses.replace(floats, kernels="bf16"), floats)]
    ours, theirs = (compute_update(learner).gradient for learner in learners)
    assert not torch.equal(ours, theirs)
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99
    for learner in learners:
        learner.close()
