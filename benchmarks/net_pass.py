"""Ways to act and train on the network of 2013 or 2015 without any environment; the cheapest is its ceiling.

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
from asyncrl.torsos import conv2013, conv2015

ACTIONS = 6  # of Pong; how many there are costs nothing beside the rest
SHAPE = (4, 84, 84)
FIRST_STEP, SEED = 100, 1  # of play
TORSOS = {"conv2013": conv2013, "conv2015": conv2015}
_PLAIN, _LAST = torch.contiguous_format, torch.channels_last

convolution_backward = torch.ops.aten.convolution_backward


class Net:
    """A network of the paper's, spelled out: convolutions, a hidden layer, one matrix for both heads.

    Args:
        network: conv2013 or conv2015.
        layout: of weights and activations.
    """

    def __init__(self, network: str, layout: torch.memory_format) -> None:
        torso = TORSOS[network](SHAPE)
        self.layout = layout
        self.convolutions = [m.to(memory_format=layout) for m in torso if isinstance(m, nn.Conv2d)]
        self.hidden = next(m for m in torso if isinstance(m, nn.Linear))
        with torch.no_grad():
            self.convolutions[0].weight /= 255
        self.heads = nn.Linear(self.hidden.out_features, ACTIONS + 1)
        self.parameters = [p for m in (*self.convolutions, self.hidden, self.heads) for p in m.parameters()]

    def inputs(self, frames: Tensor) -> Tensor:
        """Return floats [N, C, H, W] in this layout; by way of floats, which is cheaper than in one go."""
        return frames.float().contiguous(memory_format=self.layout)

    def activations(self, inputs: Tensor) -> list[Tensor]:
        """Return what the layers give: [N, C, H, W] of each convolution, then [N, F]."""
        layers = []
        for convolution in self.convolutions:
            inputs = F.relu_(convolution(inputs))
            layers.append(inputs)
        return [*layers, F.relu_(self.hidden(inputs.flatten(1)))]

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


def make_nets(acting: torch.memory_format, training: torch.memory_format, network: str) -> tuple[Net, Net]:
    """Return the network in two layouts. They share the large matrix; the small kernels are copies of no cost."""
    net = Net(network, training)
    actor = net if acting == training else Net(network, acting)
    actor.hidden, actor.heads = net.hidden, net.heads
    return actor, net


def separate(
    acting: torch.memory_format, training: torch.memory_format, network: str, env: str, batch: int, t_max: int
) -> Callable[[], None]:
    """Act without a graph, one frame per environment at a time; then pass the whole rollout forward and backward."""
    actor, net = make_nets(acting, training, network)
    data = Batch(env, batch, t_max)

    def do() -> None:
        with torch.no_grad():
            actions = [sample(actor.outputs(actor.activations(actor.inputs(f))[-1])[0]) for f in data.frames[:-1]]
            bootstrap = actor.outputs(actor.activations(actor.inputs(data.frames[-1]))[-1])[1]
        hidden = net.activations(net.inputs(data.frames[:-1].flatten(0, 1)))[-1].unflatten(0, (t_max, batch))
        loss = data.loss(*net.outputs(hidden), torch.stack(actions), bootstrap)
        torch.autograd.grad(loss, net.parameters)

    return do


def reused(
    acting: torch.memory_format, training: torch.memory_format, network: str, env: str, batch: int, t_max: int
) -> Callable[[], None]:
    """Act and keep what the layers gave; then only pass backward, the whole rollout at once, layer by layer."""
    actor, net = make_nets(acting, training, network)
    data = Batch(env, batch, t_max)
    with torch.no_grad():  # room in the layout of training
        kept = net.activations(net.inputs(data.frames[:-1].flatten(0, 1)))

    def act(t: int) -> Tensor:
        layers = actor.activations(actor.inputs(data.frames[t]))
        for buffer, layer in zip(kept, layers, strict=True):
            buffer[t * batch : (t + 1) * batch] = layer
        return sample(actor.outputs(layers[-1])[0])

    def do() -> None:
        with torch.no_grad():
            actions = torch.stack([act(t) for t in range(t_max)])
            bootstrap = actor.outputs(actor.activations(actor.inputs(data.frames[-1]))[-1])[1]
        hidden = kept[-1].detach().requires_grad_()
        loss = data.loss(*net.outputs(hidden.unflatten(0, (t_max, batch))), actions, bootstrap)
        gradient, *_ = torch.autograd.grad(loss, [hidden, *net.heads.parameters()])
        backward(net, [net.inputs(data.frames[:-1].flatten(0, 1)), *kept], gradient)

    return do


def own(network: str, env: str, batch: int, t_max: int) -> Callable[[], None]:
    """Act and keep, and pass backward, both by asyncrl's compiled kernels; heads and loss by torch."""
    net, library = Net(network, _PLAIN), kernels.library()
    if library is None:
        raise SystemExit(f"no kernels: {kernels.why_none()}")
    flat = flatten_parameters_(nn.ModuleList([*net.convolutions, net.hidden]))
    passes = Passes(library, SHAPE, False, net.convolutions, net.hidden, flat)
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
    """Return the gradients of the torso's parameters from that of its output [N, F].

    Args:
        net: the network.
        kept: its inputs [N, C, H, W], then what each layer gave.
        gradient: [N, F].
    """
    *images, hidden = kept
    gradient = gradient * (hidden > 0)
    gradients = [gradient.t() @ images[-1].flatten(1), gradient.sum(0)]
    gradient = (gradient @ net.hidden.weight).view_as(images[-1]).contiguous(memory_format=net.layout)
    for index, convolution in reversed(list(enumerate(net.convolutions))):
        gradient = gradient * (images[index + 1] > 0)
        gradient, *of_layer = _through(convolution, images[index], gradient, index > 0)
        gradients = [*of_layer, *gradients]
    return gradients


def _through(layer: torch.nn.Conv2d, inputs: Tensor, gradient: Tensor, wants_inputs: bool) -> tuple[Tensor, ...]:
    shape, none = [layer.out_channels], [0, 0]
    wants = [wants_inputs, True, True]
    return convolution_backward(
        gradient, inputs, layer.weight, shape, layer.stride, none, [1, 1], False, none, 1, wants
    )


OWN = "own kernels"  # the way that needs a C compiler
PASSES: dict[str, Callable[[str, str, int, int], Callable[[], None]]] = {
    "NCHW": partial(separate, _PLAIN, _PLAIN),
    "channels-last": partial(separate, _LAST, _LAST),
    "NCHW to act, channels-last to train": partial(separate, _PLAIN, _LAST),
    "NCHW, activations reused": partial(reused, _PLAIN, _PLAIN),
    "channels-last, activations reused": partial(reused, _LAST, _LAST),
    "NCHW to act, channels-last to train, activations reused": partial(reused, _PLAIN, _LAST),
    OWN: own,
}
