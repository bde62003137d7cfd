"""What goes to the car and what comes from it besides pixels: action tables and the state vector."""

import numpy as np
from gymnasium import spaces

from asyncrl.envs.torcs.process import CarState

Controls = tuple[float, float, float]  # steer (1 is full left), accelerator, brake

STATE_LIMIT = 3.0  # every state value is scaled to about 1 and clipped here
STATE_NAMES = (
    "speed along the car / 50 m/s",
    "speed across the car, left / 10 m/s",
    "angle to the road's axis / 1 rad",
    "position across the road, 1 is the left edge",
    "engine speed / red line",
    "gear / 6",
    *(f"turn of the axis over the next {metres} m, left / 1 rad" for metres in (10, 20, 40, 80, 160)),
    "metres to the next car ahead / 100",
    "metres that car is left of us / 10",
)


_STEERS = (1.0, 0.0, -1.0)
_PEDALS = ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0))
DISCRETE_ACTIONS = len(_STEERS) * len(_PEDALS)
_FULL_LOCK_METRES_PER_SECOND = 10.0


def action_space(kind: str) -> spaces.Space:
    """Return Discrete(9), or Box [steer, pedal] in [-1, 1] if `kind` is "continuous"."""
    if kind == "discrete":
        return spaces.Discrete(DISCRETE_ACTIONS)
    return spaces.Box(-1.0, 1.0, (2,), np.float32)


def discrete_controls(action: int, speed: float, steer_lock: float) -> Controls:
    """Return the controls of action 3 * (left, straight, right) + (accelerate, coast, brake).

    Above 10 m/s the wheel is turned in inverse proportion to the speed: a wheel that is either straight or held over
    for a tenth of a second upsets a fast car. With a constant lock our scripted driver leaves the road on half of the
    tracks; with this, it laps 14 of 15.

    Args:
        action: 0 to 8.
        speed: m/s.
        steer_lock: how far the wheel turns up to 10 m/s; 1 is all the way.
    """
    row, column = divmod(action, len(_PEDALS))
    lock = steer_lock * min(1.0, _FULL_LOCK_METRES_PER_SECOND / max(abs(speed), 1e-3))
    return (lock * _STEERS[row], *_PEDALS[column])


def continuous_controls(action: np.ndarray) -> Controls:
    """Return the controls of [steer, pedal]; a positive pedal accelerates, a negative one brakes."""
    steer, pedal = (float(value) for value in np.clip(action, -1.0, 1.0))
    return steer, max(pedal, 0.0), max(-pedal, 0.0)


def state_vector(car: CarState) -> np.ndarray:
    """Return the low-dimensional observation [13], in the order of `STATE_NAMES`."""
    values = (
        car.speed_x / 50.0,
        car.speed_y / 10.0,
        car.angle,
        car.track_pos,
        car.engine / car.red_line,
        car.gear / 6.0,
        car.turn_10,
        car.turn_20,
        car.turn_40,
        car.turn_80,
        car.turn_160,
        car.gap_ahead / 100.0,
        car.gap_left / 10.0,
    )
    return np.clip(np.array(values, np.float32), -STATE_LIMIT, STATE_LIMIT)


def state_space() -> spaces.Box:
    """Return the space of `state_vector`."""
    return spaces.Box(-STATE_LIMIT, STATE_LIMIT, (len(STATE_NAMES),), np.float32)
