"""Values of settings, brought to the types that their fields declare."""

import contextlib
import numbers
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from asyncrl.errors import UserError
from asyncrl.quantities import parse_count, parse_number


def typed(value: Any, hint: Any, where: str) -> Any:
    """Return `value` as the type `hint`, where that loses nothing: 1e6 or "1M" as an int, text as a path.

    Raises:
        UserError: for any other value, naming `where` it stands.
    """
    if typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        raise UserError(f"{where} is {value!r}: it must be one of {', '.join(typing.get_args(hint))}")
    if typing.get_origin(hint) is types.UnionType:
        (hint,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
        return None if value in (None, "none") else typed(value, hint, where)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, tuple | list):
            return tuple(typed(item, typing.get_args(hint)[0], where) for item in value)
        raise UserError(f"{where} is {value!r}: it must be a list of numbers")
    accepted, name = _ACCEPTED[hint]
    if hint in _QUANTITIES and isinstance(value, str):  # as on the command line: 10M, 20min
        with contextlib.suppress(ValueError):
            return _QUANTITIES[hint](value)
    if (
        isinstance(value, accepted)
        and isinstance(value, bool) == (hint is bool)
        and (hint is not int or value % 1 == 0)
        and (hint not in (str, Path) or _is_unicode(str(value)))
    ):
        return hint(value)
    raise UserError(f"{where} is {value!r}: it must be {name}")


def _is_unicode(text: str) -> bool:
    """Return whether config.toml can hold `text`: a name of a file may be any bytes."""
    return text.encode(errors="ignore").decode() == text


_QUANTITIES: dict[type, Callable[[str], float]] = {int: parse_count, float: parse_number}
_ACCEPTED: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((numbers.Integral, float), "a whole number"),
    float: ((numbers.Real,), "a number"),
    str: ((str,), "a text in UTF-8"),
    Path: ((str, Path), "a path in UTF-8"),
}
