"""Labyrinth: random first-person mazes on ViZDoom. Importing this loads neither ViZDoom nor torch."""

from asyncrl.envs.labyrinth.env import ACTIONS, LabyrinthEnv
from asyncrl.envs.labyrinth.launch import EngineError
from asyncrl.envs.labyrinth.maze import Maze, MazeError, make_maze
from asyncrl.envs.options import OptionError

__all__ = ["ACTIONS", "EngineError", "LabyrinthEnv", "Maze", "MazeError", "OptionError", "make_maze"]
