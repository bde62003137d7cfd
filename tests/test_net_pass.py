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
def test_every_way_runs_again_and_again(net_pass, network):
    for way, make in net_pass.PASSES.items():
        if way != "own kernels" or kernels.library() is not None:
            do = make(network, "ALE/Breakout-v5", 2, 3)
            do()
            do()
