"""A run's configuration as TOML: plain data, checked on reading."""

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import tomli_w

from asyncrl.config import PRESETS, Config
from asyncrl.errors import UserError


def write_config(path: Path, config: Config, provenance: dict[str, str]) -> None:
    """Write every field of `config` that is not None, and where it comes from."""
    values = {name: _plain(value) for name, value in vars(config).items() if value is not None}
    path.write_text(tomli_w.dumps({**values, "provenance": provenance}), encoding="utf-8")


def read_config(path: Path) -> Config:
    """Read what `write_config` wrote, or a hand-written file: fields left out are those of its preset.

    Raises:
        UserError: if the file is unreadable, names an unknown field or holds a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error.strerror if isinstance(error, OSError) else error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    values.pop("provenance", None)
    fields = typing.get_type_hints(Config)
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{path}: there is no setting {name}")
        values[name] = _checked(value, fields[name], f"{path}: {name}")
    return dataclasses.replace(PRESETS[values.get("preset", "fast")](), **values)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _checked(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value in typing.get_args(hint):
            return value
        raise UserError(f"{where} is {value!r}: it must be one of {', '.join(typing.get_args(hint))}")
    if origin is types.UnionType:
        (hint,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
        return _checked(value, hint, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise UserError(f"{where} is {value!r}: it must be of type {hint.__name__}")
