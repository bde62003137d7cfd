"""Our kernels compute once what is the same in many pictures; nobody can tell by the numbers."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asyncrl import kernels
from asyncrl.flat import flatten_parameters_
from asyncrl.passes import Passes
from asyncrl.tape import playing, recording
from asyncrl.torsos import Convolutions

Layers = tuple[tuple[int, int, int], ...]
CONV2013: Layers = ((16, 8, 4), (32, 4, 2))
CONV2015: Layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
KINDS: dict[str, tuple[tuple[int, int, int], Layers]] = {
    "2013": ((4, 84, 84), CONV2013),
    "2015": ((4, 84, 84), CONV2015),
    "one layer": ((4, 84, 84), ((32, 8, 4),)),
    "colours": ((3, 61, 75), CONV2013),
    "rows and columns that no output sees": ((5, 37, 43), CONV2013),
    "more outputs than pixels": ((2, 50, 50), ((48, 5, 2), (16, 3, 1), (32, 3, 2))),
    "strides over what kernels leave out": ((4, 84, 84), ((16, 4, 5), (32, 2, 3))),
}


class Torso:
    """The same parameters and statistics each time, with kernels that know no picture yet."""

    def __init__(self, kind: str, channels_last: bool, threads: int = 1) -> None:
        shape, layers = KINDS[kind]
        torch.manual_seed(0)
        self.net = Convolutions(shape, layers, 32)
        self.channels_last = channels_last
        flat = flatten_parameters_(self.net)
        convolutions = [module for module in self.net if isinstance(module, nn.Conv2d)]
        hidden = next(module for module in self.net if isinstance(module, nn.Linear))
        library = kernels.library()
        assert library is not None
        self.passes = Passes(library, shape, channels_last, convolutions, hidden, flat, threads=threads)
        channels, height, width = shape
        order = (height, width, channels) if channels_last else shape
        self.mean, self.scale = 255 * torch.rand(order), torch.tensor(1 / 60)
        self.passes.standardize(self.mean, self.scale)

    def expected(self, images: Tensor) -> Tensor:
        floats = (images.float() - self.mean) * self.scale
        return self.net(floats.permute(0, 3, 1, 2).contiguous() if self.channels_last else floats)

    @torch.no_grad()
    def act(self, images: Tensor) -> Tensor:
        return self.passes(images)


def pictures(kind: str, number: int, others: Sequence[int], channels_last: bool) -> Tensor:
    """Return one scene `number` times, things moving before it, a large one once; at indices `others` noise instead."""
    (channels, height, width), _ = KINDS[kind]
    rng = np.random.default_rng(number)
    images = np.repeat(rng.integers(0, 256, (1, channels, height, width), np.uint8), number, axis=0)
    for image in images:
        y, x = rng.integers(height - 4), rng.integers(width - 2)
        image[:, y : y + 5, x : x + 3] = rng.integers(256)
        image[rng.integers(channels), rng.integers(height), rng.integers(width)] ^= 255
    images[-1, :, : height // 3, : width // 3] ^= 255  # a ninth
    images[list(others)] = rng.integers(0, 256, images[list(others)].shape, np.uint8)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images)


@pytest.fixture(autouse=True)
def _kernels(single_threaded: None) -> None:
    assert kernels.why_none() is None, "these tests need a C compiler"


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("number", "others"), [(1, ()), (2, ()), (9, (0, 4)), (40, (7,))])
def test_a_gradient_is_that_of_pytorch(kind: str, channels_last: bool, number: int, others: tuple[int, ...]) -> None:
    torso = Torso(kind, channels_last)
    images = pictures(kind, number, others, channels_last)
    weights = torch.randn(number, 32)
    ours, theirs = torso.passes(images), torso.expected(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))
    gradients = [torch.autograd.grad((f * weights).sum(), list(torso.net.parameters())) for f in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        assert their.norm() > 0
        torch.testing.assert_close(our, their, rtol=1e-4, atol=2e-5 * float(their.abs().max()))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_same_numbers_whatever_came_before(kind: str, channels_last: bool) -> None:
    images = pictures(kind, 12, (3,), channels_last)
    alone = torch.cat([Torso(kind, channels_last).act(image[None]) for image in images])
    torso = Torso(kind, channels_last)
    torso.act(images[-2:])
    assert torch.equal(torch.cat([torso.act(image[None]) for image in images]), alone)
    after_others = Torso(kind, channels_last)
    after_others.act(pictures(kind, 2, (0,), channels_last))
    assert torch.equal(after_others.act(images), torso.act(images))
    assert len(torch.unique(alone, dim=0)) > len(images) / 2


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 2, 7])  # fewer environments than threads, too
def test_threads_that_share_the_images_give_the_same(threads: int, batch: int) -> None:
    images = pictures("2013", 5 * batch, (0, 3), False)
    weights = torch.randn(len(images), 32)
    found = []
    for torso in (Torso("2013", False), Torso("2013", False, threads)):
        passes, parameters = torso.passes, list(torso.net.parameters())
        for _ in range(2):  # the second time with parameters that have changed
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(1.01)
            passes.rewind()
            with recording([passes]):
                acted = torch.cat([torso.act(some) for some in images.split(batch)])
            with playing([passes]):
                features = passes(images)
            assert torch.equal(features, acted)
            gradients = torch.autograd.grad((features * weights).sum(), parameters)
        found.append((acted, *gradients))
    (one_features, *one), (several_features, *several) = found
    torch.testing.assert_close(several_features, one_features, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(several, one, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_another_scene_long_after_is_no_other() -> None:
    torso = Torso("2013", False)
    first, second = pictures("2013", 2, (), False), pictures("2013", 3, (), False)
    for _ in range(300):
        torso.act(first)
    found = torso.act(second)
    assert torch.equal(found, Torso("2013", False).act(second))
    for _ in range(300):
        assert torch.equal(torso.act(second), found)
    assert torch.equal(torso.act(first), Torso("2013", False).act(first))


def test_new_parameters_and_statistics_count_at_once() -> None:
    torso, images = Torso("2013", False), pictures("2013", 4, (), False)
    before = torso.act(images)
    for module in torso.net:
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                module.weight.mul_(1.5)
    with torch.no_grad():
        torch.testing.assert_close(torso.act(images), torso.expected(images), rtol=1e-4, atol=1e-4)
        torso.mean = torso.mean + 1
        torso.passes.standardize(torso.mean, torso.scale)
        torch.testing.assert_close(torso.act(images), torso.expected(images), rtol=1e-4, atol=1e-4)
    assert not torch.equal(torso.act(images), before)


def test_what_is_no_number_is_found_where_pictures_are_the_same() -> None:
    torso, images = Torso("2013", False), pictures("2013", 6, (), False)
    features = torso.passes(images)
    weights = torch.zeros(6, 32)
    weights[1, features[1].argmax()] = float("nan")
    gradients = torch.autograd.grad((features * weights).sum(), list(torso.net.parameters()))
    assert all(gradient.isnan().any() for gradient in gradients)
