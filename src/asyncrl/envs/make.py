"""From the name of a world to its environments."""

import contextlib
import difflib
import functools
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from asyncrl.config import Config
from asyncrl.envs.atari import AtariEnvironments, likeness, near_game, rom_name
from asyncrl.envs.base import Environments
from asyncrl.envs.mujoco import find_backend
from asyncrl.envs.mujoco.gl import INSTALL_COMMAND as MUJOCO_COMMAND
from asyncrl.envs.registration import our_spec, our_worlds
from asyncrl.envs.vector import FilmedEnvironment, GymnasiumEnvironments
from asyncrl.errors import UserError, blaming
from asyncrl.handed import is_handed, require_function


def make_envs(config: Config, num_envs: int, threads: int = 1, beat: Callable[[], None] = lambda: None) -> Environments:
    """Build `num_envs` environments of `config.env`; the caller seeds them by `reset(seed)` and closes them.

    Args:
        config: of the run.
        num_envs: how many.
        threads: that step Atari games, for a caller that is alone with the cores.
        beat: called as each is built or reset, which may take long; not for Atari games, where it does not.

    Raises:
        UserError: for an unknown name, a missing extra, or an environment that cannot be built.
    """
    if is_atari(config.env):
        if config.env_options:
            raise UserError("--env-options are for other worlds: Atari games are as the paper has them, or --sticky")
        return AtariEnvironments(rom_name(config.env), num_envs, sticky=config.sticky, threads=min(threads, num_envs))
    if config.sticky:
        raise UserError(f"--sticky is for Atari games, but {config.env} is none")
    return GymnasiumEnvironments(_environment_maker(config), num_envs, beat)


@contextlib.contextmanager
def opened_envs(config: Config, num_envs: int, threads: int = 1) -> Iterator[Environments]:
    """Build environments, as `make_envs`, for a short while; here their own exceptions are mistakes of the user too.

    Raises:
        UserError: if they cannot be built.
    """
    with blaming(f"{config.env} cannot be made"):
        envs = make_envs(config, num_envs, threads)
    try:
        yield envs
    except BaseException:
        with contextlib.suppress(Exception):  # what has failed before is what there is to tell
            envs.close()
        raise
    with blaming(f"{config.env} cannot be closed"):
        envs.close()


def make_filmed_env(config: Config) -> FilmedEnvironment:
    """Build one environment of `config.env` that shows itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, of worlds without pictures: filming them ends in one line anyway
        return FilmedEnvironment(_environment_maker(config, render_mode="rgb_array"))


def is_atari(env: str) -> bool:
    """Return whether `env` names an Atari game."""
    return env.startswith("ALE/")


def is_import_path(env: str) -> bool:
    """Return whether naming `env` imports a module: package.module:function, or Gymnasium's module:Id-v0."""
    return ":" in env


def _environment_maker(config: Config, **how: Any) -> Callable[[], gymnasium.Env]:
    """Return what makes `config.env` with its options, and `how`, which a function of the user need not take."""
    env, options = config.env, config.env_keywords
    if is_handed(env):
        return functools.partial(_call, require_function(env, "env"), env, options, how)
    module, _, name = env.rpartition(":")
    if module and not re.search(r"-v\d+$", name):
        return functools.partial(_call, _imported_function(module, name), env, options, how)
    ours = our_spec(name)
    if fixed := sorted(set(options) & {*(ours.kwargs if ours else ()), "entry_point"}):
        # A file of a stranger must not make other environments, and their modules, of ours.
        raise UserError(f"--env-options cannot change {fixed[0]}: {env} is made of it")
    spec = our_spec(env)  # also where the package is used without being installed
    if spec is None:
        _check_registered(env)
        if how and _is_gymnasium_mujoco(env):
            find_backend()  # it would look for a screen, and fail without one

    def make() -> gymnasium.Env:
        try:
            return gymnasium.make(env if spec is None else spec, **options, **how)
        except UserError:
            raise
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in options:
                raise
            made = gymnasium.spec(name) if spec is None else spec
            others = _others(made.entry_point, *made.kwargs)
            raise UserError(f"--env-options: {env} has no option {unknown[1]}{others}") from error
        except (gymnasium.error.Error, ImportError) as error:
            lacks_mujoco = isinstance(error, gymnasium.error.DependencyNotInstalled) and _is_gymnasium_mujoco(env)
            why = f"it needs MuJoCo: {MUJOCO_COMMAND}" if lacks_mujoco else _first_line(error)
            raise UserError(f"{env} cannot be made: {why}") from error

    return make


def _others(maker: Any, *not_to_choose: str) -> str:
    """Say, behind the name of an option that `maker`, a callable or its path, lacks, which ones it has."""
    try:
        parameters = inspect.signature(load_env_creator(maker) if isinstance(maker, str) else maker).parameters.values()
    except (TypeError, ValueError):
        return ""
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [name for name in named if name not in ("render_mode", *not_to_choose)]
    return f"; it has {', '.join(names)}" if names else ""


def _call(function: Callable[..., Any], env: str, options: dict[str, Any], how: dict[str, Any]) -> gymnasium.Env:
    """Make an environment by the user's function, which need not take arguments such as render_mode."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_all and (unknown := sorted(set(options) - set(parameters))):
        raise UserError(f"--env-options: {env} takes no {unknown[0]}{_others(function)}")
    made = function(**options, **{name: value for name, value in how.items() if takes_all or name in parameters})
    if not isinstance(made, gymnasium.Env):
        raise UserError(f"{env} made a {type(made).__name__}: it must return a gymnasium.Env")
    return made


def _imported_function(module: str, name: str) -> Callable[..., gymnasium.Env]:
    if module == "__main__":
        raise UserError(f"{module}:{name} is out of the workers' reach: put it into a module that they can import")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        top = module.partition(".")[0]
        is_lost = isinstance(error, ModuleNotFoundError) and error.name == top  # Python does not look in this folder
        is_here = Path(f"{top}.py").exists() or Path(top, "__init__.py").exists()
        hint = "; to import from this folder set PYTHONPATH=." if is_lost and is_here else ""
        raise UserError(f"cannot import {module}:{name}: {_first_line(error)}{hint}") from error
    return function


def _check_registered(env: str) -> None:
    package, _, name = env.rpartition(":")
    spec = gymnasium.registry.get(name)
    games = {name for name, spec in gymnasium.registry.items() if "ale_py" in str(spec.entry_point)}
    is_atari_game = name.startswith("ALE/") or name in games
    if not is_atari_game and (package or spec is not None):
        return  # Gymnasium imports the package itself
    known = [name for name in (*our_worlds(), *gymnasium.registry) if name not in games]
    near = difflib.get_close_matches(env, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "is the package that brings it installed?"
    if re.search(r"-v\d+$", env) and (not near or "/" in env):
        hint = f"{hint} PACKAGE:{env} has a package imported"
    may_be_game = is_atari_game or re.fullmatch(r"(?i)(ALE/)?[^/:]+", env)  # others' worlds have names before a slash
    game = near_game(env) if may_be_game else None
    if game is not None and not (near and likeness(near[0], env) >= likeness(game, env)):
        hint = f"did you mean {game}?"
    elif is_atari_game or ("/" not in env and any(word in env.lower() for word in ("pong", "breakout", "noframeskip"))):
        hint = "Atari games are named like ALE/Pong-v5"
    raise UserError(f"there is no environment {env}: {hint}")


def _is_gymnasium_mujoco(env: str) -> bool:
    spec = gymnasium.registry.get(env)
    return spec is not None and "gymnasium.envs.mujoco" in str(spec.entry_point)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
