"""Worlds: `make_envs` builds the environments of one worker behind one interface. Nothing here imports torch.

Importing this registers our worlds with Gymnasium, which since its version 1.0 looks for no plug-ins by itself.
"""

from asyncrl.envs.base import Environments, Step
from asyncrl.envs.make import make_envs
from asyncrl.envs.registration import register_envs

__all__ = ["Environments", "Step", "make_envs"]

register_envs()
