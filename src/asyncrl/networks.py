"""Networks: a torso, a core and heads, applied to time-leading batches.

Every network maps observations [T, B, ...] with resets [T, B] and the core's state at t = 0 to its outputs [T, B, ...]
and the core's state after t = T-1. Acting is the same call with T = 1, so that playing and learning cannot differ.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from asyncrl.config import Config
from asyncrl.errors import UserError

CoreState = tuple[Tensor, ...]  # () without recurrence, else (hidden [B, N], cell [B, N])


class InputStatistics(NamedTuple):
    """What a network subtracts from its inputs and divides them by; measured once, then part of the network."""

    mean: np.ndarray  # [...] like one observation
    deviation: np.ndarray  # broadcasts to it


class Standardize(nn.Module):
    """Observations [N, ...] of any dtype to floats, (x - mean) / deviation; bytes are divided by 255 by default."""

    mean: Tensor
    scale: Tensor

    def __init__(self, space: spaces.Box, statistics: InputStatistics | None) -> None:
        super().__init__()
        if statistics is None:
            statistics = InputStatistics(np.zeros(()), np.array(255.0 if space.dtype == np.uint8 else 1.0))
        self.register_buffer("mean", torch.as_tensor(statistics.mean, dtype=torch.float32))
        self.register_buffer("scale", 1 / torch.as_tensor(statistics.deviation, dtype=torch.float32))

    def forward(self, observations: Tensor) -> Tensor:
        floats = observations.to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)
        # In channels_last the first convolution goes backward 2.8 times as fast, but forward no faster: acting spares
        # itself the transposition. Converting first and transposing then is faster than both at once.
        transposes = floats.dim() == 4 and torch.is_grad_enabled()
        return floats.contiguous(memory_format=torch.channels_last) if transposes else floats


class Convolutions(nn.Sequential):
    """Convolutions and one hidden layer on images [N, C, H, W], ReLU after each.

    Args:
        shape: (C, H, W) of one image.
        layers: (channels, kernel, stride) of each convolution.
        hidden: units of the fully connected layer.
    """

    def __init__(self, shape: tuple[int, ...], layers: tuple[tuple[int, int, int], ...], hidden: int) -> None:
        modules: list[nn.Module] = []
        channels, height, width = shape
        for out_channels, kernel, stride in layers:
            modules += [nn.Conv2d(channels, out_channels, kernel, stride), nn.ReLU()]
            channels, height, width = out_channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        if min(height, width) < 1:
            raise UserError(f"images of {shape[1]}x{shape[2]} are too small for this network: choose --network mlp")
        modules += [nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU()]
        super().__init__(*modules)
        self.out_features = hidden


def conv2013(shape: tuple[int, ...]) -> Convolutions:
    """Return the torso of the paper's subset runs (Mnih et al., 2013; supplement 8)."""
    return Convolutions(shape, ((16, 8, 4), (32, 4, 2)), 256)


def conv2015(shape: tuple[int, ...]) -> Convolutions:
    """Return the torso of the paper's 57-game runs (Mnih et al., 2015; section 5.1)."""
    return Convolutions(shape, ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512)


class Perceptron(nn.Sequential):
    """Two hidden layers of tanh on flattened observations [N, ...]; for what is not an image (not in the paper)."""

    def __init__(self, shape: tuple[int, ...], hidden: int = 64) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.out_features = hidden


class LSTM(nn.Module):
    """LSTM cells whose state is zeroed where an episode begins, also inside a rollout (section 5.1)."""

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(in_features, size)
        self.out_features = size

    def initial_state(self, batch: int) -> CoreState:
        """Return the zero state of `batch` environments."""
        return (torch.zeros(batch, self.out_features), torch.zeros(batch, self.out_features))

    def forward(self, features: Tensor, resets: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        hidden, cell = state
        outputs = []
        for step, keep in zip(features, (~resets).float().unsqueeze(-1), strict=True):
            hidden, cell = self.cell(step, (hidden * keep, cell * keep))
            outputs.append(hidden)
        return torch.stack(outputs), (hidden, cell)


class FeedForward(nn.Module):
    """The core that remembers nothing."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.out_features = in_features

    def initial_state(self, batch: int) -> CoreState:
        """Return the empty state."""
        return ()

    def forward(self, features: Tensor, resets: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        return features, state


class Trunk(nn.Module):
    """Standardised inputs, a torso and a core: observations [T, B, ...] to features [T, B, N]."""

    def __init__(self, inputs: Standardize, torso: nn.Module, core: FeedForward | LSTM) -> None:
        super().__init__()
        self.inputs = inputs
        self.torso = torso
        self.core = core
        self.out_features = core.out_features

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        features = self.torso(self.inputs(observations.flatten(0, 1)))
        return self.core(features.unflatten(0, observations.shape[:2]), resets, state)


class PolicyValue(NamedTuple):
    """Outputs of an actor-critic with discrete actions."""

    log_policy: Tensor  # [T, B, A], normalised log-probabilities
    values: Tensor  # [T, B]


class ActorCritic(nn.Module):
    """Softmax policy and linear value heads on one trunk (section 4: all non-output layers are shared)."""

    def __init__(self, trunk: Trunk, num_actions: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.policy = nn.Linear(trunk.out_features, num_actions)
        self.value = nn.Linear(trunk.out_features, 1)

    def initial_state(self, batch: int) -> CoreState:
        """Return the core's state before the first observation of `batch` environments."""
        return self.trunk.core.initial_state(batch)

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[PolicyValue, CoreState]:
        features, state = self.trunk(observations, resets, state)
        log_policy = torch.log_softmax(self.policy(features), -1)
        return PolicyValue(log_policy, self.value(features).squeeze(-1)), state


class QNetwork(nn.Module):
    """One linear output per action on a trunk (supplement 8)."""

    def __init__(self, trunk: Trunk, num_actions: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.q = nn.Linear(trunk.out_features, num_actions)

    def initial_state(self, batch: int) -> CoreState:
        """Return the core's state before the first observation of `batch` environments."""
        return self.trunk.core.initial_state(batch)

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        features, state = self.trunk(observations, resets, state)
        return self.q(features), state


Network = ActorCritic | QNetwork


def make_network(
    config: Config,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    statistics: InputStatistics | None = None,
) -> Network:
    """Build the network of `config` for one environment's spaces, with weights drawn from `config.seed`.

    Args:
        config: names method, network, core and initial weights.
        observation_space: of one environment.
        action_space: of one environment.
        statistics: of the inputs; None leaves them as they are, bytes divided by 255.

    Raises:
        UserError: for spaces that are not supported.
    """
    if not isinstance(observation_space, spaces.Box):
        raise UserError(f"{config.env} observes {observation_space}: only Box observations are supported")
    if not isinstance(action_space, spaces.Discrete):
        raise UserError(f"{config.env} takes {action_space}: only Discrete actions are supported")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(config.seed).generate_state(1)[0]))
        trunk = _make_trunk(config, observation_space, statistics)
        head = ActorCritic if config.is_actor_critic else QNetwork
        network = head(trunk, int(action_space.n))
        if config.initialization == "orthogonal":
            initialize_orthogonal_(network)
    return network


def _make_trunk(config: Config, space: spaces.Box, statistics: InputStatistics | None) -> Trunk:
    is_image = space.dtype == np.uint8 and len(space.shape) == 3
    name = config.network
    if name == "auto":
        name = "conv2013" if is_image and min(space.shape[1:]) >= 36 else "mlp"
    if name != "mlp" and not is_image:
        raise UserError(f"--network {name} wants images, but {config.env} observes {space}: choose --network mlp")
    torso = {"conv2013": conv2013, "conv2015": conv2015, "mlp": Perceptron}[name](space.shape)
    core = LSTM(torso.out_features, config.lstm_size) if config.is_recurrent else FeedForward(torso.out_features)
    return Trunk(Standardize(space, statistics), torso, core)


def initialize_orthogonal_(network: Network) -> None:
    """Draw orthogonal weights: gain sqrt(2) in the trunk, 0.01 for the policy, 1 for values; biases 0."""
    gains = {"policy": 0.01, "value": 1.0, "q": 1.0}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gains.get(name, math.sqrt(2)))
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def flatten_parameters_(network: nn.Module) -> Tensor:
    """Move all parameters of `network` into one flat tensor [P] that they share from then on; return it.

    Writing the flat tensor changes the network: a pull is one copy. Pull only between a gradient and the next forward
    pass: autograd does not notice a change made in between, and the gradient would be silently wrong.
    """
    parameters = list(network.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = piece.view_as(parameter)
    return flat


def flat_gradient(loss: Tensor, network: nn.Module) -> Tensor:
    """Return d loss / d parameters as one flat tensor [P]: a value of its own, never anybody's `.grad`."""
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return torch.cat([g.reshape(-1) for g in gradients])
