"""`benchmarks/net_pass.py`: what is passed backward by hand is what autograd computes, and every way runs."""

import pytest
import torch

from asyncrl import kernels

LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
NETWORKS = ("conv2013", "conv2015")


@pytest.fixture
def net_pass(from_benchmarks):
    pytest.importorskip("ale_py")
    return from_benchmarks("net_pass")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_backward_is_what_autograd_computes(net_pass, network, layout):
    torch.manual_seed(0)
    net = net_pass.Net(network, LAYOUTS[layout])
    inputs = net.inputs(torch.randint(256, (6, *net_pass.SHAPE), dtype=torch.uint8))
    layers = net.activations(inputs)
    of_output = torch.randn_like(layers[-1])
    torso = net.parameters[:-2]
    expected = torch.autograd.grad(layers[-1], torso, of_output)
    found = net_pass.backward(net, [inputs, *(layer.detach() for layer in layers)], of_output)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("network", NETWORKS)
def test_every_way_acts_on_all_frames_and_computes_one_gradient(net_pass, network, monkeypatch):
    drawn, gradients = [], []
    sample, grad = net_pass.sample, torch.autograd.grad

    def draw(log_policy):
        drawn.append(tuple(log_policy.shape))
        return sample(log_policy)

    def differentiate(*args):
        gradients.append(grad(*args))
        return gradients[-1]

    monkeypatch.setattr(net_pass, "sample", draw)
    monkeypatch.setattr(torch.autograd, "grad", differentiate)
    for way, make in net_pass.PASSES.items():
        if way == "own kernels" and kernels.library() is None:
            continue
        do = make(network, "ALE/Breakout-v5", 2, 3)
        for _ in range(2):  # with what was left by the time before
            drawn.clear(), gradients.clear()
            do()
            assert drawn == 3 * [(2, net_pass.ACTIONS)], way
            (gradient,) = gradients
            assert all(part.isfinite().all() and part.norm() > 0 for part in gradient), way
