"""Ways to act and train on the 2013 network without any environment; the cheapest one is the network's ceiling.

Each way is a closure that acts T times on B frames of a game, played before, and computes one gradient of the same loss
on the same network. They differ in memory layout, and in whether the activations of acting are kept for the gradient.
Bytes become floats as they are: that they should be divided by 255 is a constant factor of the first weights.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from ale_py.vector_env import AtariVectorEnv
from torch import Tensor, nn

from asyncrl import kernels, losses
from asyncrl.envs.atari import rom_name
from asyncrl.flat import flatten_parameters_
from asyncrl.passes import Passes
from asyncrl.returns import n_step_returns
from asyncrl.tape import playing, recording
from asyncrl.torsos import conv2013

ACTIONS = 6
SHAPE = (4, 84, 84)
FIRST_STEP, SEED = 100, 1  # of play
_PLAIN, _LAST = torch.contiguous_format, torch.channels_last

convolution_backward = torch.ops.aten.convolution_backward


class Net:
    """The 2013 network, spelled out: two convolutions, a hidden layer, one matrix for both heads.

    Args:
        layout: of weights and activations.
    """

    def __init__(self, layout: torch.memory_format) -> None:
        torso = conv2013(SHAPE)
        self.layout = layout
        self.conv1, self.conv2, self.hidden = (
            torso[0].to(memory_format=layout),
            torso[2].to(memory_format=layout),
            torso[5],
        )
        with torch.no_grad():
            self.conv1.weight /= 255
        self.heads = torch.nn.Linear(256, ACTIONS + 1)
        self.parameters = [p for m in (self.conv1, self.conv2, self.hidden, self.heads) for p in m.parameters()]

    def inputs(self, frames: Tensor) -> Tensor:
        """Return floats [N, C, H, W] in this layout; by way of floats, which is cheaper than in one go."""
        return frames.float().contiguous(memory_format=self.layout)

    def activations(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the layers give: [N, 16, 20, 20], [N, 32, 9, 9], [N, 256]."""
        first = F.relu_(self.conv1(inputs))
        second = F.relu_(self.conv2(first))
        return first, second, F.relu_(self.hidden(second.flatten(1)))

    def outputs(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities [..., A] and values [...]."""
        outputs = self.heads(hidden)
        return torch.log_softmax(outputs[..., :ACTIONS], -1), outputs[..., ACTIONS]


def play(env: str, batch: int, steps: int) -> Tensor:
    """Return the frames [steps, B, C, H, W] of games under random actions, from some way into them."""
    envs = AtariVectorEnv(rom_name(env), batch, num_threads=1, use_fire_reset=False, repeat_action_probability=0.0)
    envs.reset(seed=SEED)
    actions = np.random.default_rng(SEED).integers(envs.single_action_space.n, size=(FIRST_STEP + steps, batch))
    frames = [torch.from_numpy(np.array(envs.step(action)[0])) for action in actions]
    return torch.stack(frames[FIRST_STEP:])


class Batch:
    """Frames of a game and rewards of one rollout, [T + 1, B, ...] and [T, B].

    Our kernels are quicker the less changes between frames, so that those must be real ones. Random play of games that
    began together changes a little less than training does: the ceiling is rather too high than too low.
    """

    def __init__(self, env: str, batch: int, t_max: int) -> None:
        self.frames = play(env, batch, t_max + 1)
        self.rewards = torch.randn(t_max, batch)
        self.discounts = torch.full((t_max, batch), 0.99)
        self.cut_values = torch.zeros(t_max, batch)

    def loss(self, log_policy: Tensor, values: Tensor, actions: Tensor, bootstrap: Tensor) -> Tensor:
        """Return the A3C loss of log-probabilities [T, B, A] and values [T, B]."""
        returns = n_step_returns(self.rewards, self.discounts, self.cut_values, bootstrap)
        return losses.categorical_actor_critic_loss(log_policy, values, actions, returns, 0.01, 0.5).total


def sample(log_policy: Tensor) -> Tensor:
    """Draw actions [B], in the cheapest way known: by Gumbel noise."""
    return (log_policy - torch.empty_like(log_policy).exponential_().log_()).argmax(-1)


def make_nets(acting: torch.memory_format, training: torch.memory_format) -> tuple[Net, Net]:
    """Return the network in two layouts. They share the large matrix; the small kernels are copies of no cost."""
    net = Net(training)
    actor = net if acting == training else Net(acting)
    actor.hidden, actor.heads = net.hidden, net.heads
    return actor, net


def separate(
    acting: torch.memory_format, training: torch.memory_format, env: str, batch: int, t_max: int
) -> Callable[[], None]:
    """Act without a graph, one frame per environment at a time; then pass the whole rollout forward and backward."""
    actor, net = make_nets(acting, training)
    data = Batch(env, batch, t_max)

    def do() -> None:
        with torch.no_grad():
            actions = [sample(actor.outputs(actor.activations(actor.inputs(f))[2])[0]) for f in data.frames[:-1]]
            bootstrap = actor.outputs(actor.activations(actor.inputs(data.frames[-1]))[2])[1]
        hidden = net.activations(net.inputs(data.frames[:-1].flatten(0, 1)))[2].unflatten(0, (t_max, batch))
        loss = data.loss(*net.outputs(hidden), torch.stack(actions), bootstrap)
        torch.autograd.grad(loss, net.parameters)

    return do


def reused(
    acting: torch.memory_format, training: torch.memory_format, env: str, batch: int, t_max: int
) -> Callable[[], None]:
    """Act and keep what the layers gave; then only pass backward, the whole rollout at once, layer by layer."""
    actor, net = make_nets(acting, training)
    data = Batch(env, batch, t_max)
    n = t_max * batch
    kept = [torch.empty(n, *shape).contiguous(memory_format=training) for shape in ((16, 20, 20), (32, 9, 9))]
    kept.append(torch.empty(n, 256))

    def act(t: int) -> Tensor:
        layers = actor.activations(actor.inputs(data.frames[t]))
        for buffer, layer in zip(kept, layers, strict=True):
            buffer[t * batch : (t + 1) * batch] = layer
        return sample(actor.outputs(layers[-1])[0])

    def do() -> None:
        with torch.no_grad():
            actions = torch.stack([act(t) for t in range(t_max)])
            bootstrap = actor.outputs(actor.activations(actor.inputs(data.frames[-1]))[2])[1]
        hidden = kept[-1].detach().requires_grad_()
        loss = data.loss(*net.outputs(hidden.unflatten(0, (t_max, batch))), actions, bootstrap)
        gradient, *_ = torch.autograd.grad(loss, [hidden, *net.heads.parameters()])
        backward(net, [net.inputs(data.frames[:-1].flatten(0, 1)), *kept], gradient)

    return do


def own(env: str, batch: int, t_max: int) -> Callable[[], None]:
    """Act and keep, and pass backward, both by asyncrl's compiled kernels; heads and loss by torch."""
    net, library = Net(_PLAIN), kernels.library()
    if library is None:
        raise SystemExit(f"no kernels: {kernels.why_none()}")
    flat = flatten_parameters_(nn.ModuleList([net.conv1, net.conv2, net.hidden]))
    passes = Passes(library, SHAPE, False, [net.conv1, net.conv2], net.hidden, flat)
    data = Batch(env, batch, t_max)

    def do() -> None:
        flat.mul_(1.0)  # new parameters, which have the kernels begin anew
        passes.rewind()
        with torch.no_grad(), recording([passes]):
            actions = torch.stack([sample(net.outputs(passes(frames))[0]) for frames in data.frames[:-1]])
        with torch.no_grad():
            bootstrap = net.outputs(passes(data.frames[-1]))[1]
        gradient = torch.empty_like(flat)
        passes.write_into(gradient)
        with playing([passes]):
            hidden = passes(data.frames[:-1].flatten(0, 1)).unflatten(0, (t_max, batch))
        torch.autograd.grad(data.loss(*net.outputs(hidden), actions, bootstrap), net.parameters)

    return do


@torch.no_grad()
def backward(net: Net, kept: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the gradients of the torso's parameters from that of its output [N, 256]."""
    inputs, first, second, hidden = kept
    gradient = gradient * (hidden > 0)
    of_hidden = [gradient.t() @ second.flatten(1), gradient.sum(0)]
    gradient = (gradient @ net.hidden.weight).view_as(second).contiguous(memory_format=net.layout) * (second > 0)
    gradient, *of_conv2 = _through(net.conv2, first, gradient, True)
    _, *of_conv1 = _through(net.conv1, inputs, gradient * (first > 0), False)
    return [*of_conv1, *of_conv2, *of_hidden]


def _through(layer: torch.nn.Conv2d, inputs: Tensor, gradient: Tensor, wants_inputs: bool) -> tuple[Tensor, ...]:
    shape, none = [layer.out_channels], [0, 0]
    wants = [wants_inputs, True, True]
    return convolution_backward(
        gradient, inputs, layer.weight, shape, layer.stride, none, [1, 1], False, none, 1, wants
    )


PASSES: dict[str, Callable[[str, int, int], Callable[[], None]]] = {
    "NCHW": partial(separate, _PLAIN, _PLAIN),
    "channels-last": partial(separate, _LAST, _LAST),
    "NCHW to act, channels-last to train": partial(separate, _PLAIN, _LAST),
    "NCHW, activations reused": partial(reused, _PLAIN, _PLAIN),
    "channels-last, activations reused": partial(reused, _LAST, _LAST),
    "NCHW to act, channels-last to train, activations reused": partial(reused, _PLAIN, _LAST),
    "own kernels": own,
}
