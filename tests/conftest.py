"""What all tests share."""

import torch
from hypothesis import settings

from asyncrl.envs.registration import register_envs

register_envs()
torch.set_num_threads(1)  # as workers do; equal sums everywhere
settings.register_profile("asyncrl", deadline=None)  # a busy machine is no failure
settings.load_profile("asyncrl")
