"""What a file may make us do: name an environment, never import its author's code unasked."""

import dataclasses
import shlex
from collections.abc import Callable
from typing import Any

from asyncrl.config import Config
from asyncrl.envs.make import is_import_path
from asyncrl.envs.registration import our_spec
from asyncrl.errors import UserError, shortened
from asyncrl.handed import hand_over, is_handed, require_function


def repeat(config: Config, env: str | Callable[..., Any] | None, network: Callable[..., Any] | None) -> Config:
    """Return `config`, read from a file that has only names, with the functions the user hands over again.

    Raises:
        UserError: if they have other names, or belong to another environment.
    """
    given = {"env": hand_over(env), "network": hand_over(network)}
    for name, value in given.items():
        if value is not None and value != getattr(config, name):
            raise UserError(f"the run was trained with {name} {getattr(config, name)}, not {value}")
    return dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})


def require_repeated(config: Config, repeated: str | None) -> None:
    """Check that an environment read from a file has been repeated by the user if making it may import a module.

    Raises:
        UserError: if it may and `repeated` is not the same, or is another environment altogether.
    """
    env = config.env
    if repeated is not None and repeated != env:
        raise UserError(f"the run was trained on {env}, not on {repeated}")
    if is_handed(env):
        require_function(env, "env")
    if repeated is None and may_import(config):
        options = f"is made with {shortened(config.env_options)}" if config.env_options else ""
        code = f"imports code ({env})" if is_import_path(env) else ""
        what = " and ".join(filter(None, (code, options)))
        raise UserError(f"the run's environment {what}: repeat it with --env {shlex.quote(env)} if you trust it")


def may_import(config: Config) -> bool:
    """Return whether making the environment may import a module: that of its path, or one that an option names."""
    return is_import_path(config.env) or (bool(config.env_options) and our_spec(config.env) is None)
