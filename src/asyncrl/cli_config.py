"""Where a verb that trains starts from: an environment with the preset or file that its command line names."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from asyncrl.arguments import peek, split_positional
from asyncrl.config import Algo, Config
from asyncrl.config_file import read_config
from asyncrl.errors import UserError
from asyncrl.presets import PRESETS, preset_for
from asyncrl.trust import require_repeated


def starting_point(args: Sequence[str], usual_env: str | None = None) -> tuple[str | None, Config, list[str]]:
    """Return the environment named first, the settings to start from, and the remaining arguments.

    Args:
        args: of the command line, after the verb.
        usual_env: where neither the first argument nor --env nor a file names one.

    Raises:
        UserError: for a preset that does not exist, a file that is no configuration, or both at once.
    """
    env, rest = split_positional(args)
    preset, file = peek(rest, "--preset"), peek(rest, "--config")
    if file is not None and preset is not None:
        raise UserError("--preset and --config both say where to start from: give one of them")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"there is no preset {preset}: {', '.join(PRESETS)} are all")
    again = peek(rest, "--env")
    if env is not None and again not in (None, env):
        raise UserError(f"{env} and --env {again} name two environments: give one of them")
    named, options = env or again, peek(rest, "--env-options")
    workers = _number_of_workers(peek(rest, "--workers"))
    if file is not None:
        config = _from_file(Path(file), named, options, workers, _known_algo(rest))
    else:
        named = named or usual_env
        config = preset_for(preset or "fast", named, _known_algo(rest) or "a3c", options or "", workers)  # type: ignore[arg-type]
    return named, config if env is None else dataclasses.replace(config, env=env), rest


def _known_algo(rest: Sequence[str]) -> Algo | None:
    """Return the method that the command line says, or None where it says none, or what the parser will refuse."""
    algo = peek(rest, "--algo")
    return next((known for known in get_args(Algo) if known == algo), None)


def _from_file(file: Path, named: str | None, options: str | None, workers: int | None, algo: Algo | None) -> Config:
    """Return the settings that `file` says, and for those that it leaves out its preset's in the world at hand."""

    def in_its_world(config: Config) -> Config:
        if options is not None or named not in (None, config.env):  # the file's are of its own environment
            config = dataclasses.replace(config, env_options=options or "")
        if named is None:
            require_repeated(config, None)
        return config

    def preset_there(config: Config) -> Config:
        config = in_its_world(config)
        chosen = algo or config.algo  # the file's own comes back, until all of the command line is parsed
        preset = preset_for(config.preset, named or config.env, chosen, config.env_options, config.workers)
        return dataclasses.replace(preset, algo=config.algo)

    return in_its_world(read_config(file, workers, preset_there))


def _number_of_workers(text: str | None) -> int | None:
    """Return how many workers `text` says, or None for what the parser will refuse."""
    if text is None:
        return None
    with contextlib.suppress(UserError):
        return Config(workers=text).workers  # type: ignore[arg-type]
    return None
