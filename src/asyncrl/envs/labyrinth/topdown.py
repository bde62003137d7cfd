"""The maze from above, for people."""

from collections.abc import Collection

import numpy as np

from asyncrl.envs.labyrinth.maze import Cell, Maze

WALL, FLOOR, LINES = (52, 58, 74), (232, 226, 212), (214, 207, 190)
APPLE, LEAF, PORTAL, AGENT = (222, 40, 40), (70, 160, 60), (225, 40, 215), (30, 90, 200)


def draw_map(
    maze: Maze, apples: Collection[Cell], position: tuple[float, float], heading: float, side: int
) -> np.ndarray:
    """Draw a maze with the apples left and the agent.

    Args:
        maze: what to draw.
        apples: cells of the apples still there.
        position: of the agent, in cells from the south-west corner.
        heading: degrees, anticlockwise from east.
        side: pixels along one side of the picture.

    Returns:
        uint8 `[side, side, 3]`, north up.
    """
    size = len(maze.open)
    rows, columns = np.mgrid[0:side, 0:side]
    x, y = (columns + 0.5) * size / side, size - (rows + 0.5) * size / side  # of each pixel, in cells
    cell_x, cell_y = x.astype(int), y.astype(int)
    floor = maze.open[cell_x, cell_y]
    picture = np.where(floor[..., None], FLOOR, WALL).astype(np.uint8)
    picture[floor & (np.minimum(x - cell_x, y - cell_y) < 0.04)] = LINES
    for cx, cy in apples:
        picture[np.hypot(x - cx - 0.5, y - cy - 0.45) < 0.24] = APPLE
        picture[np.hypot(x - cx - 0.6, y - cy - 0.74) < 0.09] = LEAF
    from_portal = np.hypot(x - maze.portal[0] - 0.5, y - maze.portal[1] - 0.5)
    picture[from_portal < 0.42] = PORTAL
    picture[(from_portal < 0.3) & (from_portal > 0.18)] = (255, 255, 255)
    turn = np.radians(heading)
    dx, dy = x - position[0], y - position[1]
    ahead, aside = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    picture[(ahead < 0.4) & (ahead > -0.3) & (abs(aside) < (0.4 - ahead) * 0.42)] = AGENT  # an arrow
    return picture
