"""A run's configuration as TOML: plain data, checked on reading."""

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from asyncrl.config import Config
from asyncrl.errors import UserError, shortened
from asyncrl.presets import PRESETS, make_preset


def write_config(path: Path, config: Config, provenance: dict[str, str]) -> None:
    """Write every field of `config`, and where it comes from; an older file is replaced at once."""
    values = {name: _plain(value) for name, value in vars(config).items()}
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        aside.unlink(missing_ok=True)
        # Made anew, never through a link: the folder may be a stranger's.
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            tomli_w.dump({**values, "provenance": provenance}, file)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_config(path: Path, workers: int | None = None) -> Config:
    """Read what `write_config` wrote, or a hand-written file: fields left out are those of its preset.

    Args:
        path: of the file.
        workers: instead of those that the file names: a preset depends on them.

    Raises:
        UserError: if the file is unreadable, names an unknown field or holds a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of its parser: also for 5,000 digits, and 5,000 brackets
        raise UserError(f"{path} is not valid TOML: {error}") from None
    values.pop("provenance", None)
    if workers is not None:
        values["workers"] = workers
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(Config)})
    if unknown:
        raise UserError(f"{path}: there is no setting {shortened(unknown[0])}")
    preset = values.get("preset", "fast")
    if preset not in list(PRESETS):
        raise UserError(f"{path}: there is no preset {preset!r}: {', '.join(PRESETS)} are all")
    try:
        return dataclasses.replace(make_preset(preset, values.get("algo", "a3c"), values.get("workers")), **values)
    except (UserError, ValueError, OverflowError) as error:  # the latter two for numbers beyond all measure
        raise UserError(f"{path}: {error}") from None


def _plain(value: Any) -> Any:
    if value is None:
        return "none"  # TOML has no word for it; Config reads this one
    return str(value) if isinstance(value, Path) else value
