"""When an episode ends, and why."""

from dataclasses import dataclass

from asyncrl.envs.options import require_number
from asyncrl.envs.torcs.process import CarState

_OUT_OF_RACE = 0xFF  # TORCS' flags of a car that is no longer simulated
_STANDING_METRES_PER_SECOND = 1.0


@dataclass(frozen=True)
class Rules:
    """Limits of an episode; None switches one off. Paper: it states none of them."""

    off_track_metres: float | None = 1.0  # how far the car's centre may be beside the road
    backward_seconds: float | None = 2.0  # how long it may move against the direction of the track
    stuck_seconds: float | None = 5.0  # how long it may stand (under 1 m/s)
    damage_limit: int | None = 5000  # TORCS' damage points; at 10,000 the car falls apart
    episode_seconds: float | None = 180.0  # of race; the only limit that truncates

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                require_number(name, value, 0)


class Referee:
    """Watches one episode.

    Args:
        rules: the limits.
        action_seconds: race time between two looks.
    """

    def __init__(self, rules: Rules, action_seconds: float) -> None:
        self.rules = rules
        self._action_seconds = action_seconds
        self.reset()

    def reset(self) -> None:
        """Start another episode."""
        self._backward_seconds = 0.0
        self._standing_seconds = 0.0

    def judge(self, car: CarState) -> str:
        """Return why the episode terminates now: "off_track", "backward", "stuck", "damage", "out_of_race", or ""."""
        rules = self.rules
        backward = car.mean_along < -_STANDING_METRES_PER_SECOND
        standing = abs(car.speed_x) + abs(car.speed_y) < _STANDING_METRES_PER_SECOND
        self._backward_seconds = self._backward_seconds + self._action_seconds if backward else 0.0
        self._standing_seconds = self._standing_seconds + self._action_seconds if standing else 0.0
        if car.state & _OUT_OF_RACE:
            return "out_of_race"
        if _reached(beside_road_metres(car), rules.off_track_metres):
            return "off_track"
        if _reached(self._backward_seconds, rules.backward_seconds):
            return "backward"
        if _reached(self._standing_seconds, rules.stuck_seconds):
            return "stuck"
        return "damage" if _reached(car.damage, rules.damage_limit) else ""

    def time_is_up(self, car: CarState) -> bool:
        """Return whether the episode's time is over."""
        return _reached(car.seconds, self.rules.episode_seconds)


def beside_road_metres(car: CarState) -> float:
    """Return how far the car's centre is beyond the road's edge; negative on the road."""
    return abs(car.to_middle) - 0.5 * car.width


def _reached(value: float, limit: float | None) -> bool:
    return limit is not None and value >= limit - 1e-6  # a sum of tenths falls short of the whole
