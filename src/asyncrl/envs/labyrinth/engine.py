"""The Doom engine (ViZDoom): fed with levels and buttons, read back as frames and positions."""

import math
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asyncrl.envs.labyrinth.launch import (
    EngineError,
    NamingTheCause,
    clean_up,
    import_vizdoom,
    open_lifeline,
    rehearse,
    write_launcher,
)
from asyncrl.envs.labyrinth.level import PLAYER_TYPE, check_level, find_center, write_level, write_thing
from asyncrl.envs.labyrinth.maze import Cell, Maze
from asyncrl.envs.labyrinth.wad import SLOTS, count_slot_bytes, make_wad, pad_level

TICS_PER_SECOND = 35  # Doom's clock
WIDTH, HEIGHT, VIEW = 256, 192, 168  # pixels drawn, and the square in their middle that is the view
VIEW_DEGREES = 90
FULL_DEGREES = 2 * math.degrees(math.atan(WIDTH / VIEW * math.tan(math.radians(VIEW_DEGREES / 2))))
# On a new level the view widens from 90 degrees by 7 a tic, which takes 5, and Doom's player stands still for 8.
SETTLE_TICS = 8
BUTTONS = ("MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT_RIGHT_DELTA")
VARIABLES = ("ITEMCOUNT", "ARMOR", "POSITION_X", "POSITION_Y", "ANGLE")
HIDDEN = (
    "hud", "minimal_hud", "weapon", "crosshair", "decals", "particles", "effects_sprites",
    "messages", "corpses", "screen_flashes",
)  # fmt: skip
START_TOLERANCE_UNITS = 4
MAX_LOG_BYTES = 1 << 18


class Report(NamedTuple):
    """What the engine says after an action."""

    screen: np.ndarray  # uint8 [HEIGHT, WIDTH], entries of the palette, a copy of our own
    items: int  # apples taken on this level
    armor: int  # 1 when the portal was touched
    x: float  # map units
    y: float  # map units
    heading: float  # degrees, anticlockwise from east


class Engine:
    """One running engine; the environment that made it closes it, and so does the end of Python."""

    def __init__(self, size: int):
        """Make the engine's folder for mazes of `size` x `size` cells; it starts with the first level."""
        self._vizdoom = import_vizdoom()
        self._folder = Path(tempfile.mkdtemp(prefix="asyncrl-labyrinth-"))
        self._slot_bytes = count_slot_bytes(size)
        wad, self._offsets = make_wad(self._slot_bytes)
        self._wad_path = self._folder / "labyrinth.wad"
        self._wad_path.write_bytes(wad)
        self._started: list[Any] = []  # the game, once there is one; shared with the finalizer
        alive = open_lifeline(self._folder)
        self._close = weakref.finalize(self, clean_up, self._folder, alive, self._started, os.getpid())
        self._game: Any = None
        self._slot = 0
        self._walls = ""
        self._idle = [0.0] * len(BUTTONS)

    def enter(self, maze: Maze, cell: Cell, heading: int, textures: str, seed: int) -> Report:
        """Check the level of `maze`, load it with the player at `cell`, and return the first view.

        Raises:
            MazeError: if the level fails its checks; nothing has reached the engine then.
            EngineError: if the engine fails.
        """
        self._walls = write_level(maze, textures)
        check_level(self._walls + write_thing(PLAYER_TYPE, cell, heading), len(maze.apples))
        return self.respawn(cell, heading, seed)

    def respawn(self, cell: Cell, heading: int, seed: int) -> Report:
        """Load the same level anew, every apple back, with the player elsewhere."""
        self._slot = 1 - self._slot
        level = pad_level(self._walls + write_thing(PLAYER_TYPE, cell, heading), self._slot_bytes)
        with open(self._wad_path, "r+b") as wad:
            wad.seek(self._offsets[self._slot])
            wad.write(level)
        game = self._game or self._start()
        with self._naming_the_cause("loading a level"):
            game.set_seed(seed & 0x7FFFFFFF)
            game.set_doom_map(SLOTS[self._slot])
            game.new_episode()
            game.send_game_command(f"fov {FULL_DEGREES:.4f}")
        report = self.act(self._idle, SETTLE_TICS)
        self._check_start(report, cell)
        self._trim_log()
        return report

    def act(self, buttons: list[float], tics: int) -> Report:
        """Hold `buttons` (see `BUTTONS`) for a number of tics (1/35 s each)."""
        with self._naming_the_cause("acting"):
            self._game.make_action(buttons, tics)
            state = self._game.get_state()
            if state is None:
                raise EngineError("the Doom engine ended the episode by itself")
            items, armor, x, y, heading = state.game_variables.tolist()
            return Report(state.screen_buffer, int(items), int(armor), x, y, heading)

    def close(self) -> None:
        """End the engine and remove its files. Safe to call twice."""
        self._close()
        self._game = None

    def _start(self) -> Any:
        engine = Path(self._vizdoom.__file__).parent / "vizdoom"
        data = engine.with_name("freedoom2.wad")
        rehearse(engine, data)
        game = self._vizdoom.DoomGame()
        configure(self._vizdoom, game)
        game.set_vizdoom_path(str(write_launcher(self._folder, engine)))
        game.set_doom_game_path(str(data))
        game.set_doom_scenario_path(str(self._wad_path))
        game.set_doom_config_path(str(self._folder / "config.ini"))
        game.set_doom_map(SLOTS[self._slot])
        self._started.append(game)
        self._game = game
        with self._naming_the_cause("starting"):
            game.init()
        return game

    def _naming_the_cause(self, doing: str) -> "NamingTheCause":
        return NamingTheCause(doing, self._folder / "engine.log", self._vizdoom)

    def _check_start(self, report: Report, cell: Cell) -> None:
        x, y = find_center(cell)
        if max(abs(report.x - x), abs(report.y - y)) > START_TOLERANCE_UNITS or report.items or report.armor:
            raise EngineError(f"the Doom engine shows another level: player at {report.x}, {report.y}, not at {x}, {y}")

    def _trim_log(self) -> None:
        log = self._folder / "engine.log"
        if log.stat().st_size > MAX_LOG_BYTES:  # the engine appends, so cutting the file to nothing is safe
            os.truncate(log, 0)


def configure(vizdoom: Any, game: Any) -> None:
    """Set what is drawn, which buttons there are and what is read back."""
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_256X192)
    game.set_screen_format(vizdoom.ScreenFormat.DOOM_256_COLORS8)
    for item in HIDDEN:
        getattr(game, f"set_render_{item}")(False)
    game.set_available_buttons([getattr(vizdoom.Button, name) for name in BUTTONS])
    game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in VARIABLES])
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_console_enabled(True)  # its messages go to engine.log, where `read_cause` finds them
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_doom_skill(1)
    game.set_episode_timeout(0)  # the clock is the environment's
    game.add_game_args("+movebob 0")
