"""What a policy network says of each step, as a distribution: all offer `sample`, `log_prob`, `entropy` and `mode`.

So acting, evaluation and A3C's loss are the same lines for discrete, multi-discrete and continuous actions. Actions
here are the learner's: indices from 0, or unbounded numbers of which [-1, 1] spans the environment's bounds
(envs/actions.py).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from asyncrl import losses
from asyncrl.errors import DivergedError, UserError

MIN_DEVIATION = 1e-3  # a log-probability must stay finite when the policy becomes certain


class Categorical(NamedTuple):
    """One choice among A; actions int64 [T, B]."""

    log_policy: Tensor  # [T, B, A], normalised log-probabilities

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions [T, B]: the greatest of log-probabilities with Gumbel noise, a third of `multinomial`'s time.

        Raises:
            DivergedError: if a probability is no number.
        """
        waits = torch.empty(self.log_policy.shape).exponential_(generator=generator)
        heights, actions = (self.log_policy - waits.log_()).max(-1)
        if math.isnan(heights.sum()):
            raise DivergedError("the policy")
        return actions

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log pi(a|s) [T, B]."""
        return self.log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy [T, B] in nats."""
        return losses.categorical_entropy(self.log_policy)

    def mode(self) -> Tensor:
        """Return the likeliest actions [T, B]."""
        return self.log_policy.argmax(-1)


class MultiCategorical(NamedTuple):
    """Several independent choices at once; actions int64 [T, B, choices]."""

    choices: tuple[Categorical, ...]

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions [T, B, choices]."""
        return torch.stack([choice.sample(generator) for choice in self.choices], -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability [T, B] of all choices together."""
        parts = zip(self.choices, actions.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(action) for choice, action in parts]).sum(0)

    def entropy(self) -> Tensor:
        """Return the entropy [T, B] in nats of all choices together."""
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)

    def mode(self) -> Tensor:
        """Return the likeliest actions [T, B, choices]."""
        return torch.stack([choice.mode() for choice in self.choices], -1)


class Gaussian(NamedTuple):
    """Independent normal distributions of A numbers; actions float32 [T, B, A], unbounded (supplement 9)."""

    mean: Tensor  # [T, B, A]
    variance: Tensor  # [T, B, 1] (spherical, the paper) or [T, B, A]

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions [T, B, A].

        Raises:
            DivergedError: if one is not finite, which no simulator could make anything of.
        """
        noise = torch.randn(self.mean.shape, generator=generator)
        actions = self.mean + self.variance.sqrt() * noise
        if not bool(actions.isfinite().all()):
            raise DivergedError("the policy")
        return actions

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log pi(a|s) [T, B], summed over the dimensions."""
        return losses.gaussian_log_prob(actions, self.mean, self.variance)

    def entropy(self) -> Tensor:
        """Return the differential entropy [T, B], summed over the dimensions."""
        # Paper: it prints 1/2 (log(2 pi sigma^2) + 1), the entropy of one dimension. Ours is the whole policy's: its
        # weight against the log-probability, also a sum, is then the same for any number of dimensions.
        return losses.gaussian_entropy(self.variance, self.mean.shape[-1])

    def mode(self) -> Tensor:
        """Return the means [T, B, A]."""
        return self.mean


Policy = Categorical | MultiCategorical | Gaussian


class PolicyHead(NamedTuple):
    """How many linear outputs a policy over some actions needs, and how they become the distribution."""

    num_outputs: int
    make: Callable[[Tensor], Policy]  # from outputs [T, B, num_outputs]


def policy_head(
    space: spaces.Space, env: str, *, spherical: bool, bounds_mean: bool, min_deviation: float = MIN_DEVIATION
) -> PolicyHead:
    """Return the head for the actions of `space`.

    Args:
        space: of one environment's actions.
        spherical: whether a Gaussian has one variance for all dimensions, as in the paper.
        bounds_mean: whether its mean stays within the bounds, where these are finite; not in the paper.
        min_deviation: of a Gaussian.
        env: to name in complaints.

    Raises:
        UserError: for actions that no policy here can take.
    """
    if isinstance(space, spaces.Discrete):
        return PolicyHead(int(space.n), make_categorical)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        sizes = [int(n) for n in space.nvec]
        return PolicyHead(sum(sizes), lambda outputs: make_multi_categorical(outputs, sizes))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        dimensions = int(np.prod(space.shape))
        bounded = torch.from_numpy(np.isfinite(space.low) & np.isfinite(space.high)).flatten() if bounds_mean else None
        return PolicyHead(
            dimensions + (1 if spherical else dimensions),
            lambda outputs: make_gaussian(outputs, dimensions, bounded, min_deviation),
        )
    raise UserError(
        f"{env} takes {space}: only Discrete, one row of MultiDiscrete and Box actions of floats are supported; "
        "gymnasium.wrappers.TransformAction can make one of these of it"
    )


def make_categorical(outputs: Tensor) -> Categorical:
    """Return the softmax policy of `outputs` [T, B, A]."""
    return Categorical(torch.log_softmax(outputs, -1))


def make_multi_categorical(outputs: Tensor, sizes: list[int]) -> MultiCategorical:
    """Return one softmax policy for each of `sizes`, from `outputs` [T, B, sum of sizes]."""
    return MultiCategorical(tuple(make_categorical(part) for part in outputs.split(sizes, -1)))


def make_gaussian(
    outputs: Tensor, dimensions: int, bounded: Tensor | None = None, min_deviation: float = MIN_DEVIATION
) -> Gaussian:
    """Return the Gaussian whose mean is linear and whose variance is the softplus of the rest (supplement 9).

    Paper: no floor is stated; by default 1e-6 is added to the variance.

    Args:
        outputs: [T, B, dimensions and variances].
        dimensions: A.
        bounded: [A] bool, where the mean is a tanh: a linear one may run far out of the bounds, where all draws are
            clipped to the same action and nothing calls it back.
        min_deviation: its square is added to the variance.
    """
    mean, rest = outputs.split([dimensions, outputs.shape[-1] - dimensions], -1)
    if bounded is not None:
        mean = torch.where(bounded.to(mean.device), mean.tanh(), mean)
    return Gaussian(mean, torch.nn.functional.softplus(rest) + min_deviation**2)
