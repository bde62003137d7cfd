"""All parameters of a network as one flat vector, and their gradient as another."""

import torch
from torch import Tensor, nn

from asyncrl.errors import UserError


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


def require_single_precision(network: nn.Module) -> None:
    """Raise a UserError unless all parameters are float32 and on the CPU: so they are shared, and kernels read them."""
    for name, parameter in network.named_parameters():
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise UserError(
                f"the network's {name} is made as {parameter.dtype} on {parameter.device}: it must be float32 on the "
                "CPU, by torch's defaults (torch.set_default_dtype, set_default_device) and in a torso of your own"
            )


def flat_gradient(loss: Tensor, network: nn.Module, into: Tensor | None = None) -> Tensor:
    """Return d loss / d parameters as one flat tensor [P], which is never anybody's `.grad`.

    Args:
        loss: a scalar.
        network: whose parameters.
        into: [P] to write it into and return; pieces may be written there already (`Passes.write_into`).

    It is 0 for what does not require a gradient, or has no part in the loss: layers that a user has frozen.
    """
    parameters = list(network.parameters())
    trained = [p for p in parameters if p.requires_grad]
    gradients = dict(zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True))
    size = sum(p.numel() for p in parameters)
    flat = torch.empty(size, dtype=loss.dtype, device=loss.device) if into is None else into
    for piece, parameter in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True):
        gradient = gradients.get(parameter)
        if gradient is None:
            piece.zero_()
        elif piece.data_ptr() != gradient.data_ptr():
            piece.copy_(gradient.reshape(-1))
    return flat
