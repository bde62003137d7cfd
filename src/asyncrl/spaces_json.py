"""Gymnasium spaces to what JSON holds, and back: a checkpoint tells so what its network sees and does."""

from typing import Any

import numpy as np
from gymnasium import spaces

from asyncrl.errors import UserError


def encode_space(space: spaces.Space) -> dict[str, Any]:
    """Describe a Box, Discrete or MultiDiscrete space in JSON."""
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    assert isinstance(space, spaces.Box)
    low, high = (_compact(bound) for bound in (space.low, space.high))
    return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}


def decode_space(description: Any) -> spaces.Space:
    """Return the space that `encode_space` described.

    Raises:
        UserError: if it is no such description.
    """
    try:
        if description["type"] == "Discrete":
            return spaces.Discrete(description["n"], start=description["start"])
        if description["type"] == "MultiDiscrete":
            return spaces.MultiDiscrete(description["nvec"], start=description["start"])
        shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
        low, high = (_bound(description[k], shape, dtype) for k in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError, MemoryError) as error:
        raise UserError(f"the checkpoint's spaces cannot be read: {error}") from None


def plain_space(space: spaces.Space) -> spaces.Space:
    """Return a space of Gymnasium's own class that is like `space`, which may be of another."""
    return decode_space(encode_space(space))


def other_space(theirs: tuple[spaces.Space, spaces.Space], described: dict[str, Any]) -> str | None:
    """Return which of an environment's two spaces, "observation" or "action", is not as `described`, if one is not."""
    pairs = zip(("observation", "action"), theirs, strict=True)
    return next((name for name, space in pairs if not _is(space, described[name])), None)


def _is(space: spaces.Space, described: dict[str, Any]) -> bool:
    is_one_of_ours = isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete)
    return is_one_of_ours and encode_space(space) == described


def _bound(texts: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return what `_compact` wrote: whole numbers not by way of floats, which have fewer digits than an int64."""
    read = float if np.issubdtype(dtype, np.inexact) else int
    if isinstance(texts, list):
        return np.array([read(text) for text in texts], dtype).reshape(shape)
    return np.broadcast_to(np.array(read(texts), dtype), shape)


def _compact(bound: np.ndarray) -> Any:
    bound = bound.astype(int) if bound.dtype == bool else bound
    first = bound.flat[0].item()
    return str(first) if bound.size and (bound == first).all() else [str(x) for x in bound.ravel().tolist()]
