"""Networks: trunks and heads, applied to time-leading batches.

Every network maps observations [T, B, ...] with resets [T, B] and the core's state at t = 0 to its outputs [T, B, ...]
and the core's state after t = T-1. Acting is the same call with T = 1, so that playing and learning cannot differ.
"""

import ctypes
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.flat import require_single_precision
from asyncrl.handed import is_handed, require_function
from asyncrl.images import MIN_PICTURE, is_image, torso_shape
from asyncrl.inputs import InputStatistics
from asyncrl.passes import Passes, is_supported
from asyncrl.policies import Policy, PolicyHead, policy_head
from asyncrl.seeding import alone, seeded
from asyncrl.tape import Tape
from asyncrl.torsos import (
    LSTM,
    Convolutions,
    CoreState,
    FeedForward,
    OwnTorso,
    PaperPerceptron,
    Perceptron,
    Standardize,
    Trunk,
    conv2013,
    conv2015,
    conv_small,
)

__all__ = [
    "ActorCritic",
    "Network",
    "PolicyValue",
    "QNetwork",
    "SeparateActorCritic",
    "attach_passes_",
    "attach_tapes_",
    "initialize_orthogonal_",
    "make_network",
    "set_input_statistics_",
]


class PolicyValue(NamedTuple):
    """Outputs of an actor-critic."""

    policy: Policy  # distribution of actions at each [T, B]
    values: Tensor  # [T, B]


class ActorCritic(nn.Module):
    """Policy and linear value heads on one trunk (section 4: all non-output layers are shared)."""

    def __init__(self, trunk: Trunk, head: PolicyHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.policy = nn.Linear(trunk.out_features, head.num_outputs)
        self.value = nn.Linear(trunk.out_features, 1)
        self._make_policy = head.make

    def initial_state(self, batch: int) -> CoreState:
        """Return the core's state before the first observation of `batch` environments."""
        return self.trunk.core.initial_state(batch)

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[PolicyValue, CoreState]:
        features, state = self.trunk(observations, resets, state)
        return PolicyValue(self._make_policy(_linear(self.policy, features)), _value(self.value, features)), state


class SeparateActorCritic(nn.Module):
    """Policy and value networks that share nothing, each with a trunk of its own (supplement 9)."""

    def __init__(self, trunk: Trunk, value_trunk: Trunk, head: PolicyHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.policy = nn.Linear(trunk.out_features, head.num_outputs)
        self.value_trunk = value_trunk
        self.value = nn.Linear(value_trunk.out_features, 1)
        self._make_policy = head.make

    def initial_state(self, batch: int) -> CoreState:
        """Return the states of both cores, the policy's first."""
        return (*self.trunk.core.initial_state(batch), *self.value_trunk.core.initial_state(batch))

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[PolicyValue, CoreState]:
        half = len(state) // 2
        features, policy_state = self.trunk(observations, resets, state[:half])
        value_features, value_state = self.value_trunk(observations, resets, state[half:])
        outputs = PolicyValue(self._make_policy(_linear(self.policy, features)), _value(self.value, value_features))
        return outputs, (*policy_state, *value_state)


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
        return _linear(self.q, features), state


def _linear(head: nn.Linear, features: Tensor) -> Tensor:
    # Calling the module would cost twice as much as the product itself.
    return nn.functional.linear(features, head.weight, head.bias)


def _value(head: nn.Linear, features: Tensor) -> Tensor:
    return _linear(head, features).squeeze(-1)


Network = ActorCritic | SeparateActorCritic | QNetwork


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
        UserError: for spaces that are not supported, or a network that no memory holds.
    """
    if not isinstance(observation_space, spaces.Box):
        raise UserError(
            f"{config.env} observes {_brief(observation_space)}: only Box observations are supported; "
            "gymnasium.wrappers.FlattenObservation makes one of it (FilterObservation picks parts of a Dict)"
        )
    for verb, space in (("observes", observation_space), ("takes", action_space)):
        if isinstance(space, spaces.Box) and (not space.shape or 0 in space.shape):
            raise UserError(f"{config.env} {verb} {_brief(space)}: a Box must have one dimension or more, none empty")
    seed = np.random.SeedSequence(config.seed)
    with alone, seeded(seed):  # a torso of the user's own may draw from any of them
        torch.default_generator.manual_seed(int(seed.generate_state(1)[0]))
        try:
            network = _assemble(config, observation_space, action_space, statistics)
        except (MemoryError, OverflowError, RuntimeError) as error:  # torch has no other word for a full memory
            raise UserError(f"cannot make a network of these settings: {' '.join(str(error).split())}") from error
        require_single_precision(network)
        if config.initialization == "orthogonal":
            initialize_orthogonal_(network)
    return network


def _assemble(
    config: Config, observations: spaces.Box, actions: spaces.Space, statistics: InputStatistics | None
) -> Network:
    if config.is_actor_critic:
        head = policy_head(
            actions,
            config.env,
            spherical=config.policy_variance == "spherical",
            bounds_mean=config.policy_mean == "tanh",
            min_deviation=config.min_deviation,
        )
        trunk = _make_trunk(config, observations, statistics)
        if config.separate_networks:
            return SeparateActorCritic(trunk, _make_trunk(config, observations, statistics), head)
        return ActorCritic(trunk, head)
    if not isinstance(actions, spaces.Discrete):
        raise UserError(
            f"{config.env} takes {_brief(actions)}: --algo {config.algo} wants Discrete, --algo a3c takes it"
        )
    return QNetwork(_make_trunk(config, observations, statistics), int(actions.n))


def _brief(space: spaces.Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"a {type(space).__name__} space"


_TORSOS = {
    "conv2013": conv2013,
    "conv2015": conv2015,
    "conv-small": conv_small,
    "mlp": Perceptron,
    "mlp200": PaperPerceptron,
}


def _make_trunk(config: Config, space: spaces.Box, statistics: InputStatistics | None) -> Trunk:
    torso = _make_torso(config, space)
    core = LSTM(torso.out_features, config.lstm_size) if config.is_recurrent else FeedForward(torso.out_features)
    return Trunk(Standardize(space, statistics), torso, core)


def _make_torso(config: Config, space: spaces.Box) -> Convolutions | Perceptron | PaperPerceptron | OwnTorso:
    name, shape = config.network, torso_shape(space)
    if is_handed(name):
        return OwnTorso(require_function(name, "network"), space, name)
    if name == "auto":
        size = min(shape[1:]) if is_image(space) else 0
        name = "conv2013" if size >= MIN_PICTURE else "conv-small" if size >= 3 else "mlp"
    if name.startswith("conv") and not is_image(space):
        raise UserError(
            f"--network {name} wants images, but {config.env} observes {_brief(space)}: choose --network mlp"
        )
    return _TORSOS[name](shape)


def initialize_orthogonal_(network: Network) -> None:
    """Draw orthogonal weights: gain sqrt(2) in torsos, 0.01 for the policy, 1 for values; biases 0.

    An LSTM keeps torch's weights, and a torso of the user's own those that it came with.
    """
    gains = {"policy": 0.01, "value": 1.0, "q": 1.0}
    users = {part for module in network.modules() if isinstance(module, OwnTorso) for part in module.modules()}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in users:
            nn.init.orthogonal_(module.weight, gains.get(name, math.sqrt(2)))
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def attach_tapes_(network: nn.Module) -> list[Tape]:
    """Give every torso of convolutions in `network` a tape; return them. Other torsos cost too little to be taped."""
    tapes = []
    for module in network.modules():
        if isinstance(module, Convolutions):
            module.tape = Tape()
            tapes.append(module.tape)
    return tapes


def attach_passes_(
    network: Network,
    library: ctypes.CDLL,
    space: spaces.Box,
    flat: Tensor,
    bfloat16: bool = False,
    threads: int = 1,
) -> list[Passes]:
    """Let our own kernels compute every torso of `network` that they can; return their passes.

    Args:
        network: changed in place.
        library: the kernels.
        space: of one observation.
        flat: [P] that its parameters are views of.
        bfloat16: whether they multiply in bfloat16.
        threads: that share the images.
    """
    attached = []
    for trunk, convolutions, hidden in _supported_trunks(network, space):
        last = trunk.inputs.channels_last
        trunk.passes = Passes(library, torso_shape(space), last, convolutions, hidden, flat, bfloat16, threads)
        trunk.passes.standardize(trunk.inputs.mean, trunk.inputs.scale)
        attached.append(trunk.passes)
    return attached


def largest_supported_torso(network: Network, space: spaces.Space) -> int:
    """Return the parameters of the largest torso that our own kernels can compute; 0 if they can none.

    Args:
        network: whose torsos they are.
        space: of one observation.
    """
    torsos = [trunk.torso for trunk, *_ in _supported_trunks(network, space)]
    return max((sum(p.numel() for p in torso.parameters()) for torso in torsos), default=0)


def _supported_trunks(network: Network, space: spaces.Space) -> Iterator[tuple[Trunk, list[nn.Conv2d], nn.Linear]]:
    for trunk in network.modules():
        if not isinstance(trunk, Trunk) or not isinstance(trunk.torso, Convolutions) or space.dtype != np.uint8:
            continue
        convolutions = [module for module in trunk.torso if isinstance(module, nn.Conv2d)]
        hidden = next(module for module in trunk.torso if isinstance(module, nn.Linear))
        if is_supported(convolutions, hidden):
            yield trunk, convolutions, hidden


def set_input_statistics_(network: nn.Module, statistics: InputStatistics) -> None:
    """Centre and scale the vectors that `network` sees by `statistics` [D] from now on."""
    for module in network.modules():
        if isinstance(module, Standardize):
            module.set_statistics_(statistics)
