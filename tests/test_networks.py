"""Networks: a sequence equals its steps, states reset where they should, the flat tensor is the parameters."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import features_of, linear, log_softmax, random_script, split_theta, tiny_network, zero_state
from torch import nn

from asyncrl.algorithms import bootstrap_value, greedy_values, state_values
from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.flat import flat_gradient, flatten_parameters_
from asyncrl.inputs import InputStatistics
from asyncrl.networks import (
    ActorCritic,
    Network,
    QNetwork,
    make_network,
    set_input_statistics_,
)
from asyncrl.rollout import Rollout
from asyncrl.torsos import CoreState, Standardize

T, B = 6, 4
VECTORS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
IMAGES = spaces.Box(0, 255, (4, 84, 84), np.uint8)
DISCRETE = spaces.Discrete(3)
RECURRENT = Config(core="lstm", lstm_size=5)


def vectors(steps: int = T, batch: int = B) -> torch.Tensor:
    return torch.randn(steps, batch, 3, generator=torch.Generator().manual_seed(0))


def some_resets() -> torch.Tensor:
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 1] = resets[4, 1] = resets[3, 2] = resets[0, 3] = True
    return resets


def warm_state(network: Network, batch: int = B) -> CoreState:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(x.shape, generator=generator) for x in network.initial_state(batch))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("core", ["ff", "lstm"])
@pytest.mark.parametrize("algo", ["a3c", "n-step-q"])
def test_outputs_equal_the_oracles_with_resets_inside(algo: str, core: str) -> None:
    script = random_script(T, B, seed=0)
    network = tiny_network(Config(algo=algo, core=core))
    p = split_theta(flatten_parameters_(network).numpy(), network)
    resets = torch.tensor([[script.begins(s, b) for b in range(B)] for s in range(T)])
    assert resets[1:].any()
    outputs, _ = network(torch.from_numpy(script.observations[:T]), resets, network.initial_state(B))
    for b in range(B):
        state = zero_state()
        for s in range(T):
            x, state = features_of(p, script.observations[s, b], script.begins(s, b), state)
            if algo == "a3c":
                np.testing.assert_allclose(
                    outputs.policy.log_policy[s, b].detach(), log_softmax(linear(p, "policy", x)), 1e-4
                )
                np.testing.assert_allclose(outputs.values[s, b].detach(), linear(p, "value", x).item(), 1e-4, 1e-5)
            else:
                np.testing.assert_allclose(outputs[s, b].detach(), linear(p, "q", x), 1e-4, 1e-5)


@pytest.mark.parametrize("config", [Config(), RECURRENT])
def test_a_sequence_equals_its_steps(config: Config) -> None:
    network, observations, resets = make_network(config, VECTORS, DISCRETE), vectors(), some_resets()
    whole, last_state = network(observations, resets, warm_state(network))
    state = warm_state(network)
    for t in range(T):
        step, state = network(observations[t : t + 1], resets[t : t + 1], state)
        torch.testing.assert_close(step.policy.log_policy[0], whole.policy.log_policy[t])
        torch.testing.assert_close(step.values[0], whole.values[t])
    for one, other in zip(state, last_state, strict=True):
        torch.testing.assert_close(one, other)


def test_a_reset_forgets_and_only_in_its_environment() -> None:
    network, observations = make_network(RECURRENT, VECTORS, DISCRETE), vectors()
    outputs, _ = network(observations, some_resets(), warm_state(network))
    fresh, _ = network(observations[2:, 1:2], some_resets()[2:, 1:2], network.initial_state(1))
    never, _ = network(observations, torch.zeros(T, B, dtype=torch.bool), warm_state(network))
    torch.testing.assert_close(outputs.values[2:, 1:2], fresh.values)
    torch.testing.assert_close(outputs.values[:, 0], never.values[:, 0])
    assert not torch.allclose(outputs.values[2:, 1], never.values[2:, 1])


def test_a_reset_blocks_the_gradient_into_the_episode_before() -> None:
    network = make_network(RECURRENT, VECTORS, DISCRETE)
    observations, resets = vectors().requires_grad_(), torch.zeros(T, B, dtype=torch.bool)
    resets[3] = True
    outputs, _ = network(observations, resets, network.initial_state(B))
    (gradient,) = torch.autograd.grad(outputs.values[3:].sum(), observations)
    assert (gradient[:3] == 0).all()
    assert (gradient[3:] != 0).any()


@pytest.mark.parametrize(("algo", "value"), [("a3c", state_values), ("n-step-q", greedy_values)])
def test_the_bootstrap_continues_from_the_state_and_leaves_it(algo: str, value: object) -> None:
    config = dataclasses.replace(RECURRENT, algo=algo)
    network, observations = make_network(config, VECTORS, DISCRETE), vectors(T + 1)
    no_resets = torch.zeros(T + 1, B, dtype=torch.bool)
    zeros = torch.zeros(T, B)
    state = warm_state(network)
    actions = torch.zeros(T, B, dtype=torch.long)
    rollout = Rollout(observations, actions, zeros, zeros, zeros, no_resets[:T], state, None)
    _, after = network(observations[:T], no_resets[:T], state)
    copies = [x.clone() for x in after]
    bootstrap = bootstrap_value(network, rollout, after, value)  # type: ignore[arg-type]
    whole, _ = network(observations, no_resets, state)
    torch.testing.assert_close(bootstrap, value(whole)[-1].detach())  # type: ignore[operator]
    assert not bootstrap.requires_grad
    assert all(torch.equal(x, y) for x, y in zip(after, copies, strict=True))


def test_sizes_of_the_papers_networks() -> None:
    """Weights and biases by hand: conv 4-16-32 and 256; conv 4-32-64-64 and 512; an LSTM of 256 cells after it."""
    hidden2013 = (4 * 64 + 1) * 16 + (16 * 16 + 1) * 32 + (32 * 9 * 9 + 1) * 256
    hidden2015 = (4 * 64 + 1) * 32 + (32 * 16 + 1) * 64 + (64 * 9 + 1) * 64 + (64 * 7 * 7 + 1) * 512
    lstm = 4 * 256 * (512 + 256 + 2)
    base = Config(network="conv2013")
    deep = dataclasses.replace(base, network="conv2015", core="lstm")
    pong = spaces.Discrete(6)
    assert count(make_network(base, IMAGES, pong)) == hidden2013 + 257 * 6 + 257
    assert count(make_network(dataclasses.replace(base, algo="n-step-q"), IMAGES, pong)) == hidden2013 + 257 * 6
    assert count(make_network(deep, IMAGES, pong)) == hidden2015 + lstm + 257 * 6 + 257


@pytest.mark.parametrize("network", ["conv2013", "conv2015"])
def test_every_hidden_layer_has_its_rectifier(network: str) -> None:
    torso = make_network(Config(network=network), IMAGES, DISCRETE).trunk.torso
    kinds = [type(m) for m in torso.children() if not isinstance(m, nn.Flatten)]
    assert all(issubclass(kind, nn.Conv2d | nn.Linear) for kind in kinds[::2])
    assert all(kind is nn.ReLU for kind in kinds[1::2])


def test_initial_weights_are_uniform_within_the_root_of_the_fan_in() -> None:
    network = make_network(Config(network="conv2013"), IMAGES, DISCRETE)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for tensor in (module.weight, module.bias):
                assert tensor.abs().max() <= bound
            if module.weight.numel() > 1000:
                assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_orthogonal_weights_have_their_gains() -> None:
    network = make_network(Config(initialization="orthogonal"), VECTORS, DISCRETE)
    for module, gain in ((network.policy, 0.01), (network.value, 1.0), (network.trunk.torso[3], math.sqrt(2))):
        squares = module.weight @ module.weight.T
        torch.testing.assert_close(squares, gain**2 * torch.eye(len(squares)), rtol=1e-4, atol=1e-5)
        assert (module.bias == 0).all()


def test_bytes_are_divided_by_255_and_statistics_used() -> None:
    images = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8)
    torch.testing.assert_close(Standardize(IMAGES, None)(images), images.float() / 255)
    statistics = InputStatistics(np.array([1.0, 2, 3], np.float32), np.array(4.0, np.float32))
    inputs, before = torch.randn(5, 3), None
    before = inputs.clone()
    outputs = Standardize(VECTORS, statistics)(inputs)
    torch.testing.assert_close(outputs, (before - torch.tensor([1.0, 2, 3])) / 4)
    assert torch.equal(inputs, before)


def test_statistics_are_buffers_saved_with_the_network_and_never_learned() -> None:
    statistics = InputStatistics(np.ones(3, np.float32), np.array(2.0, np.float32))
    plain = make_network(Config(), VECTORS, DISCRETE)
    network = make_network(Config(), VECTORS, DISCRETE, statistics)
    assert count(network) == count(plain)
    assert {"trunk.inputs.mean", "trunk.inputs.scale"} <= set(network.state_dict())


def test_weights_are_drawn_from_the_seed_and_leave_the_global_generator_alone() -> None:
    def theta(seed: int) -> torch.Tensor:
        return flatten_parameters_(make_network(Config(seed=seed), VECTORS, DISCRETE))

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(theta(1), theta(1))
    assert not torch.equal(theta(1), theta(2))
    assert torch.equal(torch.rand(3), expected)


def test_the_method_chooses_the_heads() -> None:
    assert isinstance(make_network(Config(algo="a3c"), VECTORS, DISCRETE), ActorCritic)
    for algo in ("n-step-q", "one-step-q", "one-step-sarsa"):
        assert isinstance(make_network(Config(algo=algo), VECTORS, DISCRETE), QNetwork)


def test_a_policy_of_large_logits_stays_finite() -> None:
    network = make_network(Config(), VECTORS, DISCRETE)
    with torch.no_grad():
        network.policy.bias.copy_(torch.tensor([1000.0, -1000.0, 0.0]))
    outputs, _ = network(vectors(), torch.zeros(T, B, dtype=torch.bool), ())
    assert torch.isfinite(outputs.policy.log_policy).all()
    torch.testing.assert_close(outputs.policy.log_policy.exp().sum(-1), torch.ones(T, B))


@pytest.mark.parametrize(
    ("config", "observation_space", "action_space", "message"),
    [
        (Config(), spaces.Discrete(4), DISCRETE, "only Box observations"),
        (Config(algo="n-step-q"), VECTORS, spaces.MultiDiscrete([2, 2]), "--algo a3c takes it"),
        (Config(network="conv2013"), VECTORS, DISCRETE, "--network mlp"),
        (Config(network="conv2013"), spaces.Box(0, 255, (1, 10, 5), np.uint8), DISCRETE, "too small"),
        (Config(), spaces.Box(-1, 1, (), np.float32), DISCRETE, "observes .* one dimension or more"),
        (Config(), spaces.Box(-1, 1, (0,), np.float32), DISCRETE, "observes .* none empty"),
        (Config(), VECTORS, spaces.Box(-1, 1, (), np.float32), "takes .* one dimension or more"),
    ],
)
def test_unsupported_spaces_are_refused_in_one_line(
    config: Config, observation_space: spaces.Space, action_space: spaces.Space, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_network(config, observation_space, action_space)


def test_new_statistics_stay_on_the_device_of_the_network() -> None:
    network = make_network(Config(standardize_inputs=True), VECTORS, DISCRETE).to("meta")
    size = VECTORS.shape[0]
    set_input_statistics_(network, InputStatistics(np.zeros(size, np.float32), np.ones(size, np.float32)))
    assert {buffer.device.type for buffer in network.buffers()} == {"meta"}


def test_the_flat_tensor_is_the_parameters() -> None:
    network = make_network(Config(), VECTORS, DISCRETE)
    before = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    flat = flatten_parameters_(network)
    assert torch.equal(flat, before)
    start = flat.data_ptr()
    for parameter in network.parameters():
        assert parameter.data_ptr() == start
        start += 4 * parameter.numel()
    flat.zero_()
    outputs, _ = network(vectors(), torch.zeros(T, B, dtype=torch.bool), ())
    assert (outputs.values == 0).all()


def test_the_flat_gradient_is_a_value_in_the_same_order() -> None:
    network = make_network(Config(algo="n-step-q"), VECTORS, DISCRETE)
    flat = flatten_parameters_(network)

    def loss() -> torch.Tensor:
        return network(vectors(), torch.zeros(T, B, dtype=torch.bool), ())[0].square().sum()

    gradient = flat_gradient(loss(), network)
    kept = gradient.clone()
    again = flat_gradient(loss(), network)
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(gradient, kept)
    assert torch.equal(gradient, again)
    direction = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    direction /= direction.norm()
    origin, step = flat.clone(), 1e-2
    flat.copy_(origin + step * direction)
    above = loss().item()
    flat.copy_(origin - step * direction)
    slope = (above - loss().item()) / (2 * step)
    assert slope == pytest.approx((gradient @ direction).item(), rel=1e-2, abs=1e-3)


def test_the_documented_trap_a_pull_between_forward_and_backward() -> None:
    """Autograd notices no change through the flat tensor: the gradient is that of neither set of parameters."""
    network = make_network(Config(algo="n-step-q"), VECTORS, DISCRETE)
    flat = flatten_parameters_(network)
    resets = torch.zeros(T, B, dtype=torch.bool)
    right = flat_gradient(network(vectors(), resets, ())[0].square().sum(), network)
    loss = network(vectors(), resets, ())[0].square().sum()
    flat.mul_(2)
    wrong = flat_gradient(loss, network)
    assert not torch.allclose(right, wrong, rtol=0.01)
