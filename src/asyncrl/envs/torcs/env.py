"""`asyncrl/Torcs-v0`: a race in TORCS as a Gymnasium environment, in lock-step with its agent."""

import contextlib
import copy
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from asyncrl.envs.options import OptionError, require_action, require_choice, require_number, require_whole
from asyncrl.envs.torcs import controls as controls_
from asyncrl.envs.torcs.build import build_host
from asyncrl.envs.torcs.catalog import DEFAULT_TRACK, find_car, find_opponents, find_track
from asyncrl.envs.torcs.process import CarState, Host, HostError
from asyncrl.envs.torcs.rules import Referee, Rules, beside_road_metres

_PHYSICS_SECONDS = 0.002
_START_LATERAL = 0.4  # at most, in units of half the road's width
_GRID_METRES = 25.0  # from the first place of the grid to the line
_GRID_SPACING_METRES = 10.0
# TORCS' robots lose memory at each new race (four `bt` 20 kB): past this growth the host is replaced at a reset.
_HOST_GROWTH_BYTES = 64 << 20
MAX_RENDERED = 4096  # pixels along a side
_STEPS_TO_FORGIVE = 1000  # failures farther apart than this do not add up

Observation = np.ndarray | dict[str, np.ndarray]


class TorcsEnv(gymnasium.Env):
    """Drive one car. See docs/torcs.md for what is observed, rewarded and forbidden.

    The host process is started at the first reset and owned by the environment; `close` ends it.

    Args:
        track: "category/name" or "name".
        car: "slow", "fast" or a TORCS car.
        opponents: number of robots in the agent's car, or a list of "module:index" or "module:index:car".
        observation: "pixels", "state" or "both" (a Dict).
        actions: "discrete" or "continuous".
        action_seconds: race time that one action lasts, a multiple of 0.02.
        steer_lock: how far the discrete actions turn the wheel up to 10 m/s (1 is all the way); less above.
        size: pixels along each side of the picture.
        reward_scale: reward per m/s of mean speed along the road's axis during a step.
        random_start: start anywhere along the track, by the seed; otherwise at the end of the grid.
        damage: whether collisions damage the agent's car.
        traction_control: whether its driven wheels are kept from spinning under full throttle.
        rules: limits of an episode, as `Rules` or as a dict of those that differ.
        render_mode: None or "rgb_array".
        render_scale: the rendered picture is this many times as large as the observed one.
        timeout_seconds: wall-clock limit for one answer of the host.
        max_restarts: how many lost hosts in a row to replace before raising.

    Raises:
        UserError: if TORCS is missing or an option is impossible; says what to do.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (Gymnasium's form)

    def __init__(
        self,
        *,
        track: str = DEFAULT_TRACK,
        car: str = "slow",
        opponents: int | list[str] | tuple[str, ...] = 0,
        observation: str = "pixels",
        actions: str = "discrete",
        action_seconds: float = 0.1,
        steer_lock: float = 0.5,
        size: int = 84,
        reward_scale: float = 0.01,
        random_start: bool = True,
        damage: bool = True,
        traction_control: bool = True,
        rules: Rules | dict[str, float | None] | None = None,
        render_mode: str | None = None,
        render_scale: int = 4,
        timeout_seconds: float = 30.0,
        max_restarts: int = 3,
    ) -> None:
        require_choice("observation", observation, ("pixels", "state", "both"))
        require_choice("actions", actions, ("discrete", "continuous"))
        require_choice("render_mode", render_mode, (None, "rgb_array"))
        self._size = require_whole("size", size, 8, 1024)
        self._render_scale = require_whole("render_scale", render_scale, 1, MAX_RENDERED // self._size)
        self._steer_lock = require_number("steer_lock", steer_lock, 0.01, 1)
        self._reward_scale = require_number("reward_scale", reward_scale)
        self._timeout_seconds = require_number("timeout_seconds", timeout_seconds, 0.01, 1e6)
        self._max_restarts = require_whole("max_restarts", max_restarts, 0, 1000)
        self._track = find_track(track)
        self._car = find_car(car)
        self._opponents = find_opponents(opponents, self._car)
        build_host()  # here, so that a missing compiler shows when the environment is made
        self._kind, self._random_start = observation, random_start
        self._car_options = {"damage": damage, "traction_control": traction_control}
        self._physics_steps = _physics_steps(action_seconds)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": 1 / action_seconds}
        self._discrete = actions == "discrete"
        self.action_space = controls_.action_space(actions)
        self.observation_space = self._make_observation_space()
        self._referee = Referee(rules if isinstance(rules, Rules) else _make_rules(rules or {}), action_seconds)
        self._host: Host | None = None
        self._base_bytes = 0  # what the host held after its first reset
        self._failures = 0
        self._steps_since_failure = 0
        self._observation: Observation = {}
        self._lap_started, self._laps, self._lap_seconds = 0.0, 0, 0.0
        self.car: CarState | None = None  # all numbers of the present moment, for scripted drivers

    # -- Gymnasium's interface -----------------------------------------------------------------
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        """Start an episode.

        Args:
            seed: of the start positions and of the robots' choices.
            options: "start_metres" (from the line) and "track_pos" (-1 to 1) put the car at a given place.

        Raises:
            HostError: if hosts keep failing.
        """
        super().reset(seed=seed)
        start, metres, lateral, host_seed = self._draw_start(options or {})
        while True:
            try:
                host = self._ready_host()
                metres = start * host.track_length if metres is None else metres
                self.car, picture = host.reset(metres, lateral, host_seed, draw=self._kind != "state")
                break
            except HostError as error:
                self._lose_host(error)
        self._base_bytes = self._base_bytes or host.resident_bytes()
        self._referee.reset()
        self._lap_started, self._laps, self._lap_seconds = 0.0, 0, 0.0
        self._observation = self._observe(picture)
        return self._observation, self._info(self.car)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict]:
        """Drive for `action_seconds`.

        A host that dies or hangs meanwhile ends the episode: the last observation again, reward 0, truncated, and
        info["host_restarted"]; the next reset starts another host.

        Raises:
            HostError: if more than `max_restarts` hosts were lost in a row.
        """
        if self._host is None or self.car is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        try:
            self.car, picture = self._host.step(
                self._physics_steps, self._controls(action, self.car.speed_x), draw=self._kind != "state"
            )
        except HostError as error:
            self._lose_host(error)
            info = self._info(self.car) | {"host_restarted": True, "host_error": str(error), "ended_by": "host"}
            return copy.deepcopy(self._observation), 0.0, False, True, info
        self._steps_since_failure += 1
        self._observation = self._observe(picture)
        self._count_laps(self.car)
        reason = self._referee.judge(self.car)
        truncated = not reason and self._referee.time_is_up(self.car)
        info = self._info(self.car)
        if reason or truncated:
            info["ended_by"] = reason or "time"
        return self._observation, self._reward_scale * self.car.mean_along, bool(reason), truncated, info

    def render(self) -> np.ndarray | None:
        """Return the driver's view, `render_scale` times as large as it is observed; None without a render mode.

        It is black where the host was lost; the next step or reset reports or replaces it.
        """
        if self.render_mode is None:
            return None
        if self.car is None:
            raise gymnasium.error.ResetNeeded("call reset before render")
        side = self._size * self._render_scale
        if self._host is not None:
            with contextlib.suppress(HostError):
                return np.frombuffer(self._host.view(), np.uint8).reshape(side, side, 3).copy()
        return np.zeros((side, side, 3), np.uint8)

    def close(self) -> None:
        """End the host. May be called more than once."""
        if self._host is not None:
            self._host.close()
            self._host = None

    # -- the host --------------------------------------------------------------------------------
    def _ready_host(self) -> Host:
        if self._host and self._base_bytes and self._host.resident_bytes() > self._base_bytes + _HOST_GROWTH_BYTES:
            self.close()
        if self._host is None:
            self._base_bytes = 0
            self._host = Host(
                self._track,
                self._car,
                self._opponents,
                graphics=self._kind != "state" or self.render_mode is not None,
                size=(self._size, self._size),
                view_scale=self._render_scale if self.render_mode else 0,
                **self._car_options,
                timeout_seconds=self._timeout_seconds,
            )
        return self._host

    def _lose_host(self, error: HostError) -> None:
        """Drop a failed host; raise if that happened too often in a row."""
        self.close()
        if self._steps_since_failure >= _STEPS_TO_FORGIVE:
            self._failures = 0
        self._failures += 1
        self._steps_since_failure = 0
        if self._failures > self._max_restarts:
            self._failures = 0
            raise HostError(f"gave up after {self._max_restarts} restarts of TORCS: {error}") from error

    # -- between agent and car ----------------------------------------------------------------------
    def _make_observation_space(self) -> spaces.Space:
        pixels = spaces.Box(0, 255, (self._size, self._size, 3), np.uint8)
        if self._kind == "pixels":
            return pixels
        state = controls_.state_space()
        return state if self._kind == "state" else spaces.Dict({"pixels": pixels, "state": state})

    def _controls(self, action: Any, speed: float) -> controls_.Controls:
        if self._discrete:
            action = require_action(action, controls_.DISCRETE_ACTIONS)
            return controls_.discrete_controls(action, speed, self._steer_lock)
        return controls_.continuous_controls(action)

    def _observe(self, picture: bytes) -> Observation:
        assert self.car is not None
        if self._kind == "state":
            return controls_.state_vector(self.car)
        pixels = np.frombuffer(bytearray(picture), np.uint8).reshape(self._size, self._size, 3)
        return pixels if self._kind == "pixels" else {"pixels": pixels, "state": controls_.state_vector(self.car)}

    def _info(self, car: CarState) -> dict[str, Any]:
        return {
            "speed": car.speed_x,  # m/s
            "speed_along": car.along,  # m/s along the road's axis
            "distance": car.distance,  # m along the axis since the start of the episode
            "laps": self._laps,  # whole laps since the start of the episode
            "lap_seconds": self._lap_seconds,  # of the last whole lap, 0 before
            "seconds": car.seconds,  # of race
            "damage": car.damage,
            "track_pos": car.track_pos,  # 1 left edge, -1 right edge
            "angle": car.angle,  # rad
            "off_track": beside_road_metres(car) > 0,
            "race_position": car.race_position,
        }

    # -- bookkeeping ------------------------------------------------------------------------------
    def _draw_start(self, options: dict[str, Any]) -> tuple[float, float | None, float, int]:
        """Draw the start: a fraction of the lap, metres from the line where told, the position across, a seed."""
        fraction, lateral = self.np_random.uniform(), self.np_random.uniform(-_START_LATERAL, _START_LATERAL)
        host_seed = int(self.np_random.integers(1 << 31))
        metres = options.get("start_metres", None if self._random_start else self._grid_metres())
        if metres is not None:
            metres = require_number("start_metres", metres)
        lateral = require_number("track_pos", options.get("track_pos", lateral if self._random_start else 0.0), -1, 1)
        return fraction, metres, lateral, host_seed

    def _grid_metres(self) -> float:
        return -_GRID_METRES - _GRID_SPACING_METRES * len(self._opponents)

    def _count_laps(self, car: CarState) -> None:
        assert self._host is not None
        if car.distance >= (self._laps + 1) * self._host.track_length:
            self._laps += 1
            self._lap_seconds, self._lap_started = car.seconds - self._lap_started, car.seconds


def _physics_steps(action_seconds: float) -> int:
    steps = round(require_number("action_seconds", action_seconds, 0.02, 10) / _PHYSICS_SECONDS)
    if steps % 10 or abs(steps * _PHYSICS_SECONDS - action_seconds) > 1e-9:
        raise OptionError(f"action_seconds must be a multiple of 0.02 from 0.02 to 10, not {action_seconds}")
    return steps


def _make_rules(limits: dict[str, Any]) -> Rules:
    unknown = set(limits) - {field.name for field in fields(Rules)}
    if unknown:
        raise OptionError(
            f"rules has no {', '.join(sorted(unknown))}; it has {', '.join(f.name for f in fields(Rules))}"
        )
    return Rules(**limits)
