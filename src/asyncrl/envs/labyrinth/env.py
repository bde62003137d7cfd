"""`asyncrl/Labyrinth-v0`: apples, a portal and a new maze every episode, as a Gymnasium environment."""

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from asyncrl.envs.labyrinth.draws import Draws
from asyncrl.envs.labyrinth.engine import TICS_PER_SECOND, Engine, Report
from asyncrl.envs.labyrinth.level import CELL_UNITS, TEXTURES
from asyncrl.envs.labyrinth.maze import HEADINGS, Cell, Maze, check_options, find_respawns, make_maze
from asyncrl.envs.labyrinth.topdown import draw_map
from asyncrl.envs.labyrinth.view import SIDE, crop_view, make_observation
from asyncrl.envs.options import OptionError, require_action, require_choice, require_number, require_whole

APPLE_REWARD, PORTAL_REWARD = 1.0, 10.0
TURN_DEGREES = 3.75  # per tic: 15 degrees per action of 4 tics, 131 degrees per second
RENDER_PIXELS = 504
RENDER_VIEWS = ("first_person", "map", "both")


class Action(NamedTuple):
    """What one action holds down for its tics; the order is that of `engine.BUTTONS`."""

    name: str
    forward: int = 0
    backward: int = 0
    left: int = 0
    right: int = 0
    turn: float = 0.0  # degrees per tic, clockwise


ACTIONS = (
    Action("forward", forward=1),
    Action("backward", backward=1),
    Action("strafe left", left=1),
    Action("strafe right", right=1),
    Action("turn left", turn=-TURN_DEGREES),
    Action("turn right", turn=TURN_DEGREES),
    Action("forward and turn left", forward=1, turn=-TURN_DEGREES),
    Action("forward and turn right", forward=1, turn=TURN_DEGREES),
)
PLAIN_ACTIONS = 6  # without the two that walk and turn at once


class LabyrinthEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Collect apples (+1) and reach the portal (+10) in a random maze, seen through one's own eyes.

    The portal puts the agent at a random place of the same maze and brings all apples back. An episode ends
    by time alone (`truncated`, with the true final frame). Doom's clock has 35 tics a second, so 60 seconds
    are 2,100 tics: 525 actions of 4 tics.

    An episode is a function of the options, its maze seed (`info["maze_seed"]`) and the actions:
    `reset(options={"maze_seed": n})` plays it again. The engine starts at the first reset; `close` ends it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 35 / 4}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(
        self,
        *,
        size: int = 9,
        apples: int = 8,
        episode_seconds: float = 60.0,
        tics_per_action: int = 4,
        textures: str = "varied",
        generator: str = "rooms",
        forward_turns: bool = False,
        render_mode: str | None = None,
        render_view: str = "first_person",
    ):
        """Set the rules; nothing is started yet.

        Args:
            size: cells along one side of the maze, rim included; odd, 7 to 51.
            apples: apples in the maze.
            episode_seconds: game time of an episode.
            tics_per_action: tics (1/35 s) that an action lasts.
            textures: "varied" draws one of eight for every straight wall, "plain" takes the same for all.
            generator: "rooms", or "labmaze" where that package is installed.
            forward_turns: add the two actions that walk and turn at once.
            render_mode: None or "rgb_array".
            render_view: what `render` shows: "first_person", "map" or "both".
        """
        check_options(size, apples, generator)
        require_choice("textures", textures, TEXTURES)
        require_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        require_choice("render_view", render_view, RENDER_VIEWS)
        self.tics_per_action = require_whole("tics_per_action", tics_per_action, 1, TICS_PER_SECOND)
        self.episode_tics = round(require_number("episode_seconds", episode_seconds, 0) * TICS_PER_SECOND)
        if self.episode_tics < tics_per_action:
            raise OptionError(f"episode_seconds must leave time for one action, not {episode_seconds!r}")
        self.size, self.apples, self.generator, self.textures = int(size), int(apples), generator, textures
        self.render_mode, self.render_view = render_mode, render_view
        self.metadata = {**self.metadata, "render_fps": TICS_PER_SECOND / tics_per_action}
        self.actions = ACTIONS if forward_turns else ACTIONS[:PLAIN_ACTIONS]
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self._buttons = [[float(value) for value in action[1:]] for action in self.actions]
        self._engine: Engine | None = None
        self._maze: Maze | None = None
        self._tics_left = 0

    @property
    def maze(self) -> Maze:
        """The maze of the episode under way."""
        if self._maze is None:
            raise gymnasium.error.ResetNeeded("call reset() first: there is no maze yet")
        return self._maze

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode in a new maze, or in the one of `options["maze_seed"]`."""
        super().reset(seed=seed)
        # `random_raw` is the part of NumPy's generators that never changes from version to version.
        maze_seed = int(self.np_random.bit_generator.random_raw()) >> 33
        maze_seed = (options or {}).get("maze_seed", maze_seed)
        self._maze = maze = make_maze(maze_seed, self.size, self.apples, self.generator)
        self._tics_left = 0
        self._draws = Draws(maze.seed ^ 0x5EED)  # respawns: a stream apart from the maze's
        self._respawns = find_respawns(maze)
        self._apples_taken = self._portals = 0
        if self._engine is None:
            self._engine = Engine(self.size)
        try:
            self._see(self._engine.enter(maze, maze.start, maze.heading, self.textures, maze.seed))
        except Exception:
            self.close()  # a broken engine is not kept: the next reset starts another
            raise
        self._apples_left = set(maze.apples)
        self._tics_left = self.episode_tics
        return make_observation(self._report.screen), self._make_info()

    def step(self, action: int | np.integer) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Hold an action for its tics (fewer at the very end of the episode)."""
        if self._engine is None or self._tics_left <= 0:
            raise gymnasium.error.ResetNeeded("call reset() first: no episode is under way")
        buttons = self._buttons[require_action(action, len(self.actions))]
        tics = min(self.tics_per_action, self._tics_left)
        try:
            reward = self._advance(self._engine, buttons, tics)
        except Exception:
            self.close()
            raise
        self._tics_left -= tics
        return make_observation(self._report.screen), reward, False, self._tics_left == 0, self._make_info()

    def render(self) -> np.ndarray | None:
        """Return what `render_view` names as uint8 `[504, 504, 3]` (`[504, 1008, 3]` for "both")."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() shows nothing: make the environment with render_mode='rgb_array'")
            return None
        _ = self.maze  # or complain that there is none
        if self.render_view == "map":
            return self.render_map()
        eyes = crop_view(self._report.screen, RENDER_PIXELS)
        return eyes if self.render_view == "first_person" else np.concatenate([eyes, self.render_map()], 1)

    def render_map(self) -> np.ndarray:
        """Return the maze from above, north up, as uint8 `[504, 504, 3]`: for people, never for the agent."""
        maze, position = self.maze, (self._report.x / CELL_UNITS, self._report.y / CELL_UNITS)
        return draw_map(maze, self._apples_left, position, self._report.heading, RENDER_PIXELS)

    def close(self) -> None:
        """End the engine and remove its files."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None
        self._tics_left = 0

    def _advance(self, engine: Engine, buttons: list[float], tics: int) -> float:
        before = self._report
        self._see(engine.act(buttons, tics))
        apples = self._report.items - before.items
        if apples:
            self._forget_nearest_apples(apples)
        self._apples_taken += apples
        if self._report.armor == before.armor:
            return apples * APPLE_REWARD
        self._portals += 1
        self._apples_left = set(self.maze.apples)
        cell, heading = self._draws.pick(self._respawns), self._draws.pick(HEADINGS)
        self._see(engine.respawn(cell, heading, self.maze.seed + self._portals))
        return apples * APPLE_REWARD + PORTAL_REWARD

    def _see(self, report: Report) -> None:
        self._report = report

    def _forget_nearest_apples(self, count: int) -> None:
        # The engine counts apples without naming them. One is taken within 48 units of its middle and
        # the next is at least 128 away, so those nearest to the agent are the ones.
        here = (self._report.x / CELL_UNITS - 0.5, self._report.y / CELL_UNITS - 0.5)
        for cell in sorted(self._apples_left, key=lambda cell: math.dist(cell, here))[:count]:
            self._apples_left.remove(cell)

    def _make_info(self) -> dict[str, Any]:
        report = self._report
        return {
            "position": np.array((report.x / CELL_UNITS, report.y / CELL_UNITS), np.float32),  # cells, east and north
            "heading": report.heading,  # degrees, anticlockwise from east
            "apples": self._apples_taken,  # in this episode
            "portals": self._portals,  # in this episode
            "apples_left": len(self._apples_left),
            "tics_left": self._tics_left,  # 1/35 s
            "maze_seed": self.maze.seed,
        }


def locate(position: np.ndarray) -> Cell:
    """Return the cell of a position as `info` gives it."""
    return int(position[0]), int(position[1])
