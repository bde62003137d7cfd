"""Learning from kept activations gives the gradient of computing them again, and computes nothing again."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from asyncrl.config import Config
from asyncrl.networks import attach_tapes_
from asyncrl.tape import Tape
from asyncrl.torsos import Convolutions, conv2015
from asyncrl.worker import Learner, compute_update

CATCH = Config(env="asyncrl/Catch-v0", workers=1, envs_per_worker=4, t_max=5, lstm_size=8, kernels="torch")
TAPED = [
    CATCH,
    dataclasses.replace(CATCH, envs_per_worker=1, t_max=20),  # the rollout ends early, with the episode
    dataclasses.replace(CATCH, envs_per_worker=1, t_max=None),
    dataclasses.replace(CATCH, t_max=40),  # more rows than there is room at first
    dataclasses.replace(CATCH, core="lstm"),
    dataclasses.replace(CATCH, separate_networks=True),
    dataclasses.replace(CATCH, algo="n-step-q"),
    dataclasses.replace(CATCH, algo="n-step-q", core="lstm"),
    dataclasses.replace(CATCH, algo="one-step-q"),
    dataclasses.replace(CATCH, env="ALE/Pong-v5"),
    dataclasses.replace(CATCH, env="ALE/Pong-v5", envs_per_worker=1, network="conv2015"),
]
SARSA = dataclasses.replace(CATCH, algo="one-step-sarsa")


def name(config: Config) -> str:
    differs = [f for f in vars(config) if getattr(config, f) != getattr(CATCH, f)]
    return " ".join(f"{f}={getattr(config, f)}" for f in differs) or "plain"


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Learner, Learner]]:
    """Two learners that do the same, the second without tapes."""
    taped, plain = Learner(request.param, 0), Learner(request.param, 0)
    plain.tapes = []
    yield taped, plain
    taped.close()
    plain.close()


@pytest.mark.parametrize("pair", TAPED, indirect=True, ids=name)
def test_the_gradient_is_that_of_computing_everything_again(pair: tuple[Learner, Learner]) -> None:
    assert pair[0].tapes
    for _ in range(3):
        gradients = [compute_update(learner).gradient for learner in pair]
        assert gradients[0].norm() > 0
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[1].abs().max()))
        for learner in pair:  # what is on the tape was computed with parameters that are no more
            learner.snapshot.sub_(0.01 * gradients[1] / gradients[1].norm())


@pytest.mark.parametrize("pair", [CATCH], indirect=True, ids=name)
def test_what_acting_computed_is_not_computed_again(pair: tuple[Learner, Learner]) -> None:
    counts = [0, 0]
    for i, learner in enumerate(pair):
        for module in learner.network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        compute_update(learner)
    assert CATCH.t_max is not None
    assert counts == [
        CATCH.t_max + 1,
        CATCH.t_max + 2,
    ]  # acting, the bootstrap's value, and without a tape the gradient


@pytest.mark.parametrize("pair", [SARSA], indirect=True, ids=name)
def test_no_tape_where_an_action_was_chosen_by_the_last_parameters(pair: tuple[Learner, Learner]) -> None:
    assert not pair[0].tapes


def test_a_tape_of_another_rollout_is_refused() -> None:
    tape = Tape()
    tape.record([torch.zeros(4, 3)])
    assert len(tape.play(4)[0]) == 4
    with pytest.raises(RuntimeError, match="5 observations, but 4"):
        tape.play(5)
    tape.rewind()
    with pytest.raises(RuntimeError, match="4 observations, but 0"):
        tape.play(4)


def test_a_network_with_a_tape_is_the_same_network_outside_of_acting_and_learning() -> None:
    torso = conv2015((4, 84, 84))
    (tape,) = attach_tapes_(torso)
    torso(torch.rand(2, 4, 84, 84)).sum().backward()
    with pytest.raises(RuntimeError, match="but 0 on the tape"):
        tape.play(2)
    assert isinstance(torso, Convolutions)
    assert all(p.grad is not None for p in torso.parameters())
