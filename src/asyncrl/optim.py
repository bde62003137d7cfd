"""Optimiser steps on flat `[P]` tensors, in place and without locks (the paper's section 4 and supplement 7).

They are plain functions: what is shared between workers is decided by who owns the statistics (`store.py`), not here.
"""

import ctypes
import math

import torch
from torch import Tensor


def rmsprop_step_(
    theta: Tensor,
    gradient: Tensor,
    mean_square: Tensor,
    *,
    learning_rate: float,
    decay: float,
    epsilon: float,
    library: ctypes.CDLL | None = None,
) -> None:
    """Take one non-centred RMSProp step: g = decay g + (1 - decay) d^2; theta -= learning_rate d / sqrt(g + epsilon).

    Paper: epsilon stands *inside* the root. Its value is open: the authors' 0.1 makes small steps about
    learning_rate / 0.316 * d.
    A lost update of a lock-free `mean_square` only ages it: it stays a convex mix of squares, so it is never negative.

    Args:
        theta: [P], changed in place.
        gradient: [P], of the loss to descend.
        mean_square: [P], changed in place; shared between workers for "Shared RMSProp".
        learning_rate: step size of this step.
        decay: alpha of the paper, 0.99.
        epsilon: added inside the root.
        library: our kernels, which go through memory once instead of five times.
    """
    if library is not None:
        where = (x.data_ptr() for x in (theta, gradient, mean_square))
        library.rmsprop_step(*where, theta.numel(), learning_rate, decay, epsilon)
        return
    mean_square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
    # One operation for the reciprocal root: a sixth of the whole step's time less than a root and a division.
    theta.addcmul_(gradient, (mean_square + epsilon).rsqrt_(), value=-learning_rate)


def momentum_sgd_step_(
    theta: Tensor, gradient: Tensor, momentum: Tensor, *, learning_rate: float, decay: float
) -> None:
    """Take one momentum step: m = decay m + (1 - decay) d; theta -= learning_rate m (supplement 7)."""
    momentum.mul_(decay).add_(gradient, alpha=1 - decay)
    theta.add_(momentum, alpha=-learning_rate)


def adam_step_(
    theta: Tensor,
    gradient: Tensor,
    mean: Tensor,
    mean_square: Tensor,
    *,
    step: int,
    learning_rate: float,
    momentum: float,
    decay: float,
    epsilon: float,
    library: ctypes.CDLL | None = None,
) -> None:
    """Take one Adam step (Kingma & Ba, 2015) with beta1 = `momentum` and beta2 = `decay`; not in the paper.

    `mean` and `mean_square` are paired statistics: never share them between workers without a lock.

    Args:
        theta: [P], changed in place.
        gradient: [P].
        mean: [P], first moment, changed in place.
        mean_square: [P], second moment, changed in place.
        step: 1 for the first step of these moments (bias correction).
        learning_rate: step size of this step.
        momentum: beta1.
        decay: beta2.
        epsilon: added outside the root, as Adam does.
        library: our kernels, which go through memory once.
    """
    if library is not None:
        where = (x.data_ptr() for x in (theta, gradient, mean, mean_square))
        rate, corrected = learning_rate / (1 - momentum**step), 1 - decay**step
        library.adam_step(*where, theta.numel(), rate, momentum, decay, corrected, epsilon)
        return
    mean.lerp_(gradient, 1 - momentum)
    mean_square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
    denominator = (mean_square / (1 - decay**step)).sqrt_().add_(epsilon)
    theta.addcdiv_(mean, denominator, value=-learning_rate / (1 - momentum**step))


def clip_global_norm_(gradient: Tensor, max_norm: float | None) -> float:
    """Scale `gradient` [P] in place so that its norm is at most `max_norm` (None: leave it); return the norm before."""
    norm = math.sqrt(torch.dot(gradient, gradient))  # in two thirds of the time of `vector_norm`
    if norm == math.inf and max_norm is not None and max_norm < 1e18:  # squares of finite numbers may be too large
        norm = float(gradient.double().norm())
    if max_norm is not None and norm > max_norm:
        gradient.mul_(max_norm / norm)
    return norm


def linear_anneal(start: float, end: float, fraction: float) -> float:
    """Return the value `fraction` of the way from `start` to `end`; fractions outside 0 .. 1 are clamped."""
    return start + (end - start) * min(max(fraction, 0.0), 1.0)
