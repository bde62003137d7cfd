"""Functions handed over from Python where a configuration has a name: environments and networks of one's own."""

from collections.abc import Callable
from typing import Any

import cloudpickle

from asyncrl.errors import UserError

_PREFIX = "python-"


class Handed(str):
    """The name of a function in a configuration, which carries the function itself.

    It is text wherever text is wanted: files, run folders and messages have the name only. On its way to a worker
    process it takes the function along by value, so that lambdas and functions of notebooks and scripts work; Gymnasium
    brings cloudpickle. Nothing of this is ever read from a file.

    Args:
        function: to carry.

    Raises:
        UserError: if the function cannot be sent to another process.
    """

    function: Callable[..., Any]
    _pickled: bytes

    def __new__(cls, function: Callable[..., Any]) -> "Handed":
        name = getattr(function, "__name__", type(function).__name__).strip("<>")
        handed = super().__new__(cls, _PREFIX + name)
        handed.function = function
        try:
            handed._pickled = cloudpickle.dumps(function)
        except Exception as error:
            raise UserError(f"{name} cannot be sent to worker processes: {error}") from error
        return handed

    def __reduce__(self) -> tuple:
        return _unpack, (self._pickled,)


def _unpack(pickled: bytes) -> Handed:
    # Safe: the bytes come from the process that started this one, over its pipe, never from a file.
    return Handed(cloudpickle.loads(pickled))


def hand_over(given: Any) -> Any:
    """Return a function as a `Handed`, and anything else as it is."""
    return Handed(given) if callable(given) and not isinstance(given, str) else given


def is_handed(name: Any) -> bool:
    """Return whether `name` is that of a function handed over, with or without the function."""
    return isinstance(name, str) and name.startswith(_PREFIX)


def require_function(name: str, what: str) -> Callable[..., Any]:
    """Return the function that `name` carries.

    Raises:
        UserError: if it is only the name, read back from a file.
    """
    if isinstance(name, Handed):
        return name.function
    function = name.removeprefix(_PREFIX)
    if not function.isprintable():  # a stranger's
        function = repr(function)
    raise UserError(f"the run's {what} is the Python function {function}: hand it over again, as {what}={function}")
