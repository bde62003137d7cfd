"""Checks of what worlds are asked for: the impossible is refused in one line, before anything is started."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from asyncrl.errors import UserError


class OptionError(UserError, ValueError):
    """An option out of range: both what `asyncrl` shows in one line and what Gymnasium users expect."""


def require_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise `OptionError` unless `value` is one of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def require_whole(name: str, value: Any, least: int, most: int) -> int:
    """Return `value` as Python's own integer.

    Raises:
        OptionError: unless it is a whole number (NumPy's too) from `least` to `most`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise OptionError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return int(value)


def require_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return `value` as Python's own float.

    Raises:
        OptionError: unless it is a finite number from `least` to `most`.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or not least <= number <= most:
        bounds = "" if least == -math.inf else f" from {least:g}" + ("" if most == math.inf else f" to {most:g}")
        raise OptionError(f"{name} must be a finite number{bounds}, not {value!r}")
    return number


def require_action(action: Any, count: int) -> int:
    """Return a discrete action as Python's own integer; a negative one would count from the end of a table.

    Raises:
        OptionError: unless it is one of `count`.
    """
    index = action.item() if hasattr(action, "item") else action
    return require_whole("an action", index, 0, count - 1)
