"""Record an agent's play. Atari's vector environment renders nothing, so a mirror game is played beside it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from asyncrl.agent import Agent
from asyncrl.envs import make_envs
from asyncrl.envs.atari import FRAMES_PER_STEP, STICKY_PROBABILITY, rom_name
from asyncrl.envs.make import is_atari
from asyncrl.errors import UserError
from asyncrl.evaluate import Mode, Player
from asyncrl.trust import require_repeated

FRAMES_PER_SECOND = 60
MIN_HEIGHT = 420
