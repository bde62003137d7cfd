"""Passes of image torsos by our own kernels: bytes to features, and back to the gradients of the weights.

On a few images at a time, which is what actor-learners have, a pass costs PyTorch more in calls than in arithmetic. And
most of a game's picture stands still: what the convolutions make of that is computed once for all images between two
loads of parameters (csrc/changes.c, csrc/differences.c).
"""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from asyncrl.helpers import Helpers
from asyncrl.tape import FIRST_ROWS, Recorder

WIDTH_MULTIPLE = 16  # units and output channels come in multiples of it: floats of the widest vector (vectors.h)
MAX_LAYERS = 4
FLOAT_BYTES = 4


def is_supported(convolutions: list[nn.Conv2d], hidden: nn.Linear) -> bool:
    """Return whether the kernels can compute these layers."""
    widths = [*(layer.out_channels for layer in convolutions), hidden.out_features]
    return len(convolutions) <= MAX_LAYERS and all(width % WIDTH_MULTIPLE == 0 for width in widths)


class Passes(Recorder):
    """The torso of one worker's network, on observations of bytes; it keeps its own acting.

    Args:
        library: the kernels.
        shape: (C, H, W) of one image.
        channels_last: whether images come as [H, W, C].
        convolutions: each followed by a ReLU.
        hidden: the linear layer after them, with its ReLU.
        flat: [P] that the parameters are views of.
        bfloat16: whether they multiply numbers rounded to bfloat16 (they add in float32), which the processor must
            be able to (`kernels.has_bfloat16`).
        threads: that share the images, for a caller that is alone with the cores.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        shape: tuple[int, ...],
        channels_last: bool,
        convolutions: list[nn.Conv2d],
        hidden: nn.Linear,
        flat: Tensor,
        bfloat16: bool = False,
        threads: int = 1,
    ) -> None:
        super().__init__()
        self._library, self._channels_last, self._flat = library, channels_last, flat
        self._parameters = [p for layer in (*convolutions, hidden) for p in layer.parameters()]  # weight, bias
        self._gradients: list[Tensor] = []
        self._others = [[torch.empty_like(p) for p in self._parameters] for _ in range(threads - 1)]  # of other threads
        kinds = [n for layer in convolutions for n in (layer.out_channels, layer.kernel_size[0], layer.stride[0])]
        spec = np.array([*shape, hidden.out_features, len(convolutions), bfloat16, *kinds], np.int32)
        self._torsos = [self._new_torso(spec) for _ in range(threads)]
        self._helpers = Helpers(threads - 1) if threads > 1 else None
        self._widths = library.torso_record(self._torsos[0]), hidden.in_features, hidden.out_features
        self._kept, self._loose = _room(FIRST_ROWS, self._widths), _room(1, self._widths)
        self._loaded = [-1] * threads  # version of the parameters that each knows
        self._mean: Tensor | None = None
        self.count = 0  # of features given for a gradient

    def _new_torso(self, spec: np.ndarray) -> int:
        torso = self._library.torso_new(spec.ctypes.data)
        if not torso:
            raise MemoryError("no memory for a network")
        weakref.finalize(self, self._library.torso_free, torso)
        return torso

    @property
    def threads(self) -> int:
        """That share the images."""
        return len(self._torsos)

    def write_into(self, gradient: Tensor) -> None:
        """Write the next gradient where it belongs in `gradient` [P]."""
        first = self._flat.data_ptr()
        places = ((p.data_ptr() - first) // p.element_size() for p in self._parameters)
        self._gradients = [
            gradient[place : place + p.numel()].view_as(p) for p, place in zip(self._parameters, places, strict=True)
        ]

    def standardize(self, mean: Tensor, scale: Tensor) -> None:
        """Take (byte - mean) * scale as the network's input; `mean` like one image or a number, `scale` a number."""
        self._mean = None
        if mean.numel() > 1:
            is_ordered = self._channels_last or mean.dim() == 2
            self._mean = (mean if is_ordered else mean.permute(1, 2, 0)).contiguous()
        elif mean.item():
            raise ValueError("one mean for all pixels")
        for torso in self._torsos:
            self._library.torso_inputs(torso, _address(self._mean), scale.item())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features [N, F] of images [N, ...] of bytes.

        While recording they are a view of what is kept, which holds until the next `rewind`.
        """
        images = images.contiguous()
        if torch.is_grad_enabled():
            return _Features.apply(self, images, *self._parameters)
        if not self.is_recording:
            self._loose = _with_room(self._loose, 0, len(images))
            return self._forward(images, self._loose, 0).clone()
        self._kept = _with_room(self._kept, self._rows, self._rows + len(images))
        features = self._forward(images, self._kept, self._rows)
        self._rows += len(images)
        return features

    def _forward(self, images: Tensor, room: list[Tensor], first: int) -> Tensor:
        version = self._flat._version + sum(parameter._version for parameter in self._parameters)

        def forward(part: int, start: int, count: int) -> None:
            self._load(part, version)
            where = _addresses_at(room, self._widths, first + start)
            self._library.torso_forward(self._torsos[part], _image(images, start), self._channels_last, count, *where)

        self._share(len(images), forward)
        return room[-1][first : first + len(images)]

    def _load(self, part: int, version: int) -> None:
        if version != self._loaded[part]:
            self._library.torso_load(self._torsos[part], _addresses(self._parameters))
            self._loaded[part] = version

    def _share(self, count: int, do: Callable[[int, int, int], None]) -> int:
        """Have each thread do(number of its part, its first image, how many); return how many parts there were."""
        if self._helpers is None:
            do(0, 0, count)
            return 1
        parts = max(1, min(count, len(self._torsos)))
        starts = [count * part // parts for part in range(parts + 1)]
        self._helpers.run([partial(do, part, start, end - start) for part, (start, end) in enumerate(pairwise(starts))])
        return parts

    def features(self, images: Tensor) -> Tensor:
        """Return the features [N, F] of a rollout: those of acting, if they were kept, else computed now."""
        self.count += 1
        if self.is_playing:
            self.require(len(images))
        else:
            self._kept = _with_room(self._kept, 0, len(images))
            self._forward(images, self._kept, 0)
        return self._kept[-1][: len(images)].clone()

    def backward(self, images: Tensor, gradient: Tensor) -> list[Tensor]:
        """Return the gradients of all parameters from that of the last `features` [N, F]."""
        gradients, self._gradients = self._gradients or [torch.empty_like(p) for p in self._parameters], []
        buffers = [*self._kept, gradient.clone(), torch.empty(len(images), self._widths[1])]
        widths = *self._widths, self._widths[2], self._widths[1]
        shares = [gradients, *self._others]

        def backward(part: int, start: int, count: int) -> None:
            self._load(part, self._loaded[0])  # where there were fewer images than threads to act on
            where = _addresses_at(buffers, widths, start)
            image, target = _image(images, start), _addresses(shares[part])
            self._library.torso_backward(self._torsos[part], image, self._channels_last, count, *where, target)

        parts = self._share(len(images), backward)
        for share in shares[1:parts]:
            for total, more in zip(gradients, share, strict=True):
                total.add_(more)
        return gradients


class _Features(Function):
    """Features of images, as autograd sees them: apply(passes, images, *parameters)."""

    @staticmethod
    def forward(ctx, passes: Passes, images: Tensor, *parameters: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        features = passes.features(images)
        ctx.passes, ctx.images, ctx.count = passes, images, passes.count
        return features

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.count != ctx.passes.count:
            raise RuntimeError("the gradient of features that later ones have overwritten")
        return None, None, *ctx.passes.backward(ctx.images, gradient)


def _room(rows: int, widths: tuple[int, ...]) -> list[Tensor]:
    return [torch.empty(rows, width, dtype=torch.float32) for width in widths]


def _with_room(buffers: list[Tensor], used: int, rows: int) -> list[Tensor]:
    """Return buffers of at least `rows`, the first `used` as they were."""
    if rows <= len(buffers[0]):
        return buffers
    wider = _room(max(rows, 2 * len(buffers[0])), tuple(buffer.shape[1] for buffer in buffers))
    for old, new in zip(buffers, wider, strict=True):
        new[:used] = old[:used]
    return wider


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _image(images: Tensor, number: int) -> int:
    """Return the address of one of them [N, ...]."""
    return images.data_ptr() + number * images.stride(0)


def _addresses_at(buffers: Sequence[Tensor], widths: Sequence[int], row: int) -> list[int]:
    """Return the address of a row of each of `buffers` [N, width]: cheaper than a view."""
    return [b.data_ptr() + FLOAT_BYTES * row * width for b, width in zip(buffers, widths, strict=True)]


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
