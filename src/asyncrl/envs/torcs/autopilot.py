"""A scripted driver that follows the middle of the road: what to compare an agent's score with.

Paper: its reference in TORCS is a human tester. This stand-in looks at the numbers, not at the pixels.
"""

import math

import numpy as np

from asyncrl.envs.torcs.process import CarState

_GRIP = 7.0  # m/s^2 sideways that it trusts the tyres with; asphalt gives the slow car about 9
_BRAKING = 5.0  # m/s^2


def corner_speed(car: CarState, grip: float = _GRIP) -> float:
    """Return the speed in m/s from which every turn within 160 m can still be taken."""
    edges = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)
    turns = (0.0, car.turn_10, car.turn_20, car.turn_40, car.turn_80, car.turn_160)
    fastest = math.inf
    for i in range(5):
        curvature = abs(turns[i + 1] - turns[i]) / (edges[i + 1] - edges[i])
        squared = grip / max(curvature, 1e-4)
        fastest = min(fastest, math.sqrt(squared + 2 * _BRAKING * edges[i]))
    return fastest


def _steering(car: CarState) -> float:
    ahead = car.turn_20 * 0.35  # begin to turn before the bend does
    return max(-1.0, min(1.0, 1.2 * car.angle + ahead - 0.35 * car.track_pos))


def follow_centre(car: CarState) -> np.ndarray:
    """Return the continuous action [steer, pedal]; read `car` from `env.unwrapped.car`."""
    spare = corner_speed(car) - car.speed_x
    pedal = min(1.0, 0.5 * spare) if spare > 0 else max(-0.7, 0.2 * spare)
    return np.array([_steering(car), pedal], np.float32)


def follow_centre_discrete(car: CarState) -> int:
    """Return one of the 9 discrete actions."""
    steer, pedal = follow_centre(car)
    lock = 0.4 * min(1.0, 5.0 / max(car.speed_x, 1.0))
    row = 0 if steer > lock else 2 if steer < -lock else 1
    return 3 * row + (0 if pedal > 0 else 2 if pedal < -0.4 else 1)
