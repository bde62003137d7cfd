"""Continuous control on MuJoCo: the DeepMind Control Suite, and pictures for it and for Gymnasium's own tasks."""

from asyncrl.envs.mujoco.camera import Camera
from asyncrl.envs.mujoco.dm_control import DmControlEnv
from asyncrl.envs.mujoco.gl import find_backend
from asyncrl.envs.mujoco.pixels import PixelsEnv

__all__ = ["Camera", "DmControlEnv", "PixelsEnv", "find_backend"]
