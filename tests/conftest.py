"""What all tests share."""

from asyncrl.envs.registration import register_envs

register_envs()
