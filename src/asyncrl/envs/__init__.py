"""Worlds: `make_envs` builds the environments of one worker behind one interface. Nothing here imports torch."""

from asyncrl.envs.base import Environments, Step
from asyncrl.envs.make import make_envs

__all__ = ["Environments", "Step", "make_envs"]
