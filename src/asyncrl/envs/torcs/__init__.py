"""TORCS as a Gymnasium environment: Debian's game, our host program, no window and no clock."""

from asyncrl.envs.torcs.build import APT_COMMAND, build_host, check_installed
from asyncrl.envs.torcs.catalog import cars, robots, tracks
from asyncrl.envs.torcs.env import TorcsEnv
from asyncrl.envs.torcs.process import CarState, HostError
from asyncrl.envs.torcs.rules import Rules

__all__ = [
    "APT_COMMAND", "CarState", "HostError", "Rules", "TorcsEnv", "build_host", "cars", "check_installed", "robots",
    "tracks",
]  # fmt: skip
