"""asyncrl: asynchronous deep reinforcement learning on the CPUs you have (Mnih et al., 2016).

The public names are imported on first use: `import asyncrl` alone loads neither torch nor any simulator.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncrl.agent import Agent, load
    from asyncrl.config import Config
    from asyncrl.errors import UserError
    from asyncrl.run import Run, resume, train

__version__ = "0.1.0"
__all__ = ["Agent", "Config", "Run", "UserError", "__version__", "load", "resume", "train"]

_HOMES = {
    "Agent": "agent",
    "load": "agent",
    "Config": "config",
    "UserError": "errors",
    "Run": "run",
    "resume": "run",
    "train": "run",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'asyncrl' has no attribute {name!r}")
    from asyncrl.seeding import put_back_after

    with put_back_after():  # rich, for one, draws from Python's generator when it is imported
        return getattr(import_module(f"asyncrl.{_HOMES[name]}"), name)
