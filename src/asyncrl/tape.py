"""Acting's activations kept for the gradient: within a rollout the parameters stay the same, so they still hold.

What is known need not be computed again: a training pass over a taped rollout is a backward pass alone.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx

FIRST_ROWS = 64

_convolution_backward = torch.ops.aten.convolution_backward
_relu_backward = torch.ops.aten.threshold_backward


class Recorder:
    """What one torso gave for the observations of one rollout, in the order in which it acted on them.

    Nothing is kept, and nothing is taken from here, but within `recording` and `playing`.
    """

    def __init__(self) -> None:
        self.is_recording = self.is_playing = False
        self._rows = 0  # that are kept

    def rewind(self) -> None:
        """Forget the last rollout; to be called whenever the parameters change."""
        self._rows = 0

    def require(self, rows: int) -> None:
        """Raise RuntimeError unless exactly `rows` are kept."""
        if rows != self._rows:
            raise RuntimeError(f"a rollout of {rows} observations, but {self._rows} on the tape")


class Tape(Recorder):
    """The outputs of every layer."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []  # of each layer [rows or more, ...]; made once, see `rollout.Buffers`

    def record(self, layers: list[Tensor]) -> None:
        """Keep the next rows of every layer, [N, ...] each; images in channels_last, which goes backward fastest."""
        if not self._buffers:
            self._buffers = [_empty(FIRST_ROWS, layer) for layer in layers]
        end = self._rows + len(layers[0])
        for i, layer in enumerate(layers):
            if end > len(self._buffers[i]):
                wider = _empty(max(end, 2 * len(self._buffers[i])), layer)
                wider[: self._rows] = self._buffers[i][: self._rows]
                self._buffers[i] = wider
            self._buffers[i][self._rows : end] = layer
        self._rows = end

    def play(self, rows: int) -> list[Tensor]:
        """Return all rows of every layer.

        Raises:
            RuntimeError: unless there are exactly `rows`, as many as the rollout that is learnt from.
        """
        self.require(rows)
        return [buffer[:rows] for buffer in self._buffers]


@contextlib.contextmanager
def recording(recorders: Sequence[Recorder]) -> Iterator[None]:
    """Keep what is computed meanwhile."""
    for recorder in recorders:
        recorder.is_recording = True
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.is_recording = False


@contextlib.contextmanager
def playing(recorders: Sequence[Recorder]) -> Iterator[None]:
    """Give what was kept to what is computed for a gradient meanwhile."""
    for recorder in recorders:
        recorder.is_playing = True
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.is_playing = False


def _empty(rows: int, layer: Tensor) -> Tensor:
    layout = torch.channels_last if layer.dim() == 4 else torch.contiguous_format
    return torch.empty(rows, *layer.shape[1:], device=layer.device).contiguous(memory_format=layout)


class PlayedConvolution(Function):
    """relu(convolution) [N, C, H, W] whose outputs are known: apply(inputs, weight, bias, outputs, stride)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor, outputs: Tensor, stride: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, outputs)
        ctx.stride = stride  # pyright: ignore[reportAttributeAccessIssue]
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, weight, outputs = ctx.saved_tensors
        gradient = _relu_backward(gradient, outputs, 0)
        padding, dilation, wanted = [0, 0], [1, 1], list(ctx.needs_input_grad[:3])
        gradients = _convolution_backward(
            gradient, inputs, weight, [len(weight)], ctx.stride, padding, dilation, False, padding, 1, wanted
        )
        return *gradients, None, None


class PlayedLinear(Function):
    """relu(linear) [N, F] whose outputs are known: apply(inputs, weight, bias, outputs)."""

    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor, outputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight, outputs)
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, weight, outputs = ctx.saved_tensors
        gradient = _relu_backward(gradient, outputs, 0)
        return gradient @ weight, gradient.t() @ inputs, gradient.sum(0), None
