"""The parts of a network: standardised inputs, a torso, a core.

They are put together by `networks.py`.
"""

import copy
import math
import weakref
from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from asyncrl.errors import UserError
from asyncrl.images import has_channels_last, is_image, torso_shape
from asyncrl.inputs import InputStatistics
from asyncrl.passes import Passes
from asyncrl.tape import PlayedConvolution, PlayedLinear, Tape

CoreState = tuple[Tensor, ...]  # () without recurrence, else (hidden [B, N], cell [B, N])
CLIP = 10.0  # deviations


class Standardize(nn.Module):
    """Observations [N, ...] of any dtype to floats, (x - mean) / deviation; bytes are divided by 255 by default.

    Images come out as [N, C, H, W], however the environment orders them.

    Vectors with statistics are also clipped to [-10, 10]: what has never changed before may change by any factor.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, space: spaces.Box, statistics: InputStatistics | None) -> None:
        super().__init__()
        self._shape = space.shape
        self._channels_last, self._adds_channel = False, False
        if is_image(space):
            self._channels_last, self._adds_channel = has_channels_last(space.shape), len(space.shape) == 2
        self._clips = statistics is not None and not is_image(space)
        if statistics is None:
            statistics = InputStatistics(np.zeros(()), np.array(255.0 if space.dtype == np.uint8 else 1.0))
        mean, deviation = (torch.as_tensor(values, dtype=torch.float32) for values in statistics)
        self.register_buffer("mean", self._shaped(mean))
        self.register_buffer("scale", 1 / self._shaped(deviation))

    @property
    def channels_last(self) -> bool:
        """Whether images come as [H, W, C]."""
        return self._channels_last

    def set_statistics_(self, statistics: InputStatistics) -> None:
        """Use new statistics [D] of a vector of D numbers from now on."""
        device = self.mean.device
        self.mean = self._shaped(torch.from_numpy(statistics.mean)).to(device)
        self.scale = 1 / self._shaped(torch.from_numpy(statistics.deviation)).to(device)

    def _shaped(self, numbers: Tensor) -> Tensor:
        """Return one number for each of an observation's in its shape; one for all as it is."""
        return numbers.view(self._shape) if numbers.dim() else numbers

    def forward(self, observations: Tensor) -> Tensor:
        floats = observations.to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)
        if self._clips:
            floats.clamp_(-CLIP, CLIP)
        if self._channels_last:
            return floats.permute(0, 3, 1, 2)  # a view, which is what torch calls channels_last
        if self._adds_channel:
            floats = floats.unsqueeze(1)
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
        self.tape: Tape | None = None  # of whoever acts and learns with this network

    def forward(self, input: Tensor) -> Tensor:
        if self.tape is not None and self.tape.is_playing and torch.is_grad_enabled():
            return self._play(input, self.tape.play(len(input)))
        if self.tape is not None and self.tape.is_recording:
            return self._record(input, self.tape)
        return super().forward(input)

    def _record(self, inputs: Tensor, tape: Tape) -> Tensor:
        layers = []
        for module in self:
            inputs = module(inputs)
            if isinstance(module, nn.ReLU):
                layers.append(inputs)
        tape.record(layers)
        return inputs

    def _play(self, inputs: Tensor, layers: list[Tensor]) -> Tensor:
        played = iter(layers)
        for module in self:
            if isinstance(module, nn.Conv2d):
                inputs = PlayedConvolution.apply(inputs, module.weight, module.bias, next(played), module.stride)
            elif isinstance(module, nn.Linear):
                inputs = PlayedLinear.apply(inputs, module.weight, module.bias, next(played))
            elif isinstance(module, nn.Flatten):
                inputs = module(inputs)
        return inputs


def conv2013(shape: tuple[int, ...]) -> Convolutions:
    """Return the torso of the paper's subset runs (Mnih et al., 2013; supplement 8)."""
    return Convolutions(shape, ((16, 8, 4), (32, 4, 2)), 256)


def conv2015(shape: tuple[int, ...]) -> Convolutions:
    """Return the torso of the paper's 57-game runs (Mnih et al., 2015; section 5.1)."""
    return Convolutions(shape, ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512)


def conv_small(shape: tuple[int, ...]) -> Convolutions:
    """Return a torso for small images such as MinAtar's, after its authors (Young & Tian, 2019; not in the paper)."""
    return Convolutions(shape, ((16, 3, 1),), 128)


class Perceptron(nn.Sequential):
    """Two hidden layers of tanh on flattened observations [N, ...]; for what is not an image (not in the paper)."""

    def __init__(self, shape: tuple[int, ...], hidden: int = 64) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.out_features = hidden


class PaperPerceptron(nn.Sequential):
    """One hidden layer of 200 ReLU on flattened observations [N, ...]: the paper's for continuous control."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(shape), 200), nn.ReLU())
        self.out_features = 200


class OwnTorso(nn.Module):
    """The user's module: from floats [N, ...], images as [N, C, H, W], to features [N, F].

    Args:
        make: from the observation space to the module; called in every process that needs one.
        space: of one observation.
        name: to use in complaints.

    Raises:
        UserError: if it is no module, or does not turn a batch into one row of features each.
    """

    def __init__(self, make: Callable[[spaces.Box], nn.Module], space: spaces.Box, name: str) -> None:
        super().__init__()
        module = make(space)
        if not isinstance(module, nn.Module):
            raise UserError(f"{name} made a {type(module).__name__}: it must return a torch.nn.Module")
        module = self.module = _own_copy(module, name)
        pictures = torch.zeros(2, *torso_shape(space))
        with torch.no_grad():
            features = module(pictures)
        self._rearranges = pictures.dim() == 4 and not _takes_channels_last(module, pictures)
        if features.dim() != 2 or len(features) != 2:
            raise UserError(f"{name} made {list(features.shape)} of a batch of 2: it must return features [2, F]")
        if features.dtype != torch.float32:
            raise UserError(f"{name} made features of {features.dtype}: they must be float32")
        self.out_features = features.shape[1]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.module(inputs.contiguous() if self._rearranges else inputs)


_UNCOPIED: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


def _own_copy(module: nn.Module, name: str) -> nn.Module:
    """Return a copy: a function that makes the same module each time must not have networks share their weights."""
    try:
        return copy.deepcopy(module)
    except Exception:  # torch copies no results of computations, as older wrappers of weights keep them
        if module in _UNCOPIED:
            raise UserError(
                f"{name} made the same module twice, and torch makes no copy of it: make a new one"
            ) from None
        _UNCOPIED.add(module)
        return module


def _takes_channels_last(module: nn.Module, pictures: Tensor) -> bool:
    """Return whether it works in torch's other order of memory too, which is the faster one; `view` does not."""
    try:
        with torch.no_grad():
            module(pictures.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return True


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
        self.passes: Passes | None = None  # in the place of inputs and torso, for whoever acts and learns with them

    def forward(self, observations: Tensor, resets: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        images = observations.flatten(0, 1)
        features = self.torso(self.inputs(images)) if self.passes is None else self.passes(images)
        return self.core(features.unflatten(0, observations.shape[:2]), resets, state)
