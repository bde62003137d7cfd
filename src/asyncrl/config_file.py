"""A run's configuration as TOML: plain data, checked on reading."""

import dataclasses
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from asyncrl.config import RENAMED, Config, require_settings
from asyncrl.errors import UserError
from asyncrl.machine import sync
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
        sync(aside)  # checkpoints are worth nothing without it
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def read_run_config(run_dir: Path) -> Config:
    """Return the configuration of a run, whoever's it is.

    Raises:
        UserError: as `read_config`, and where something else than a file is in its place, as a pipe to wait for.
    """
    path = run_dir / "config.toml"
    if path.exists() and not path.is_file():
        raise UserError(f"cannot read {path}: it is no file")
    return read_config(path)


def read_config(path: Path, workers: int | None = None, start: Callable[[Config], Config] | None = None) -> Config:
    """Read what `write_config` wrote, or a hand-written file: fields left out are those of its preset.

    Args:
        path: of the file.
        workers: instead of those that the file names: a preset depends on them.
        start: returns the preset as it is in the world of the configuration read so far, for the fields left out.
            Without it no environment is built, and they are those of the preset by its very name. With it another run
            shall begin, so that the folder of the one that wrote the file is left out.

    Raises:
        UserError: if the file is unreadable, names an unknown field or holds a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of its parser: also for 5,000 digits, and 5,000 brackets
        raise UserError(f"{path} is not valid TOML: {error}") from None
    if values.pop("provenance", None) is not None and start is not None and "run_dir" in values:
        values["run_dir"] = "none"
    values = {RENAMED.get(name, name): value for name, value in values.items()}
    if workers is not None:
        values["workers"] = workers
    preset = values.get("preset", "fast")
    if preset not in list(PRESETS):
        raise UserError(f"{path}: there is no preset {preset!r}: {', '.join(PRESETS)} are all")
    try:
        require_settings(values)
        config = dataclasses.replace(make_preset(preset, values.get("algo", "a3c"), values.get("workers")), **values)
    except (UserError, ValueError, OverflowError) as error:  # the latter two for numbers beyond all measure
        raise UserError(f"{path}: {error}") from None
    if start is None or len(values) == len(dataclasses.fields(Config)):
        return config
    here = start(config)
    return dataclasses.replace(here, **{**values, "preset": here.preset})


def _plain(value: Any) -> Any:
    if value is None:
        return "none"  # TOML has no word for it; Config reads this one
    return str(value) if isinstance(value, Path) else value
