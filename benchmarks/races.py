"""Worlds that need options, as functions that both `asyncrl train` and the benchmarks make them by."""

from typing import Any

import gymnasium

import asyncrl.envs  # noqa: F401  (registers the world)


def four_opponents(**how: Any) -> gymnasium.Env:
    """Make TORCS with four robots to overtake, on a track and with a car of its own choice."""
    return gymnasium.make("asyncrl/Torcs-v0", opponents=4, **how)
