"""Random mazes of rooms and corridors on a grid, and the checks that one is playable.

A maze is a square of `size` x `size` cells. Cells with two odd coordinates are the junctions; the cells
between them are passages or walls; the rim is always wall. `x` grows to the east, `y` to the north.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from asyncrl.envs.labyrinth.draws import Draws
from asyncrl.envs.options import OptionError, require_choice, require_whole
from asyncrl.errors import MissingPackageError

Cell = tuple[int, int]

MIN_SIZE, MAX_SIZE = 7, 51  # cells; under 7 two rooms do not fit, over 51 nobody arrives within 60 seconds
MAX_SEED = 2**64 - 1
GENERATORS = ("rooms", "labmaze")
CARVINGS = 100  # tries of a generator that may leave too few cells
ROOM_SIDES = (3, 3, 3, 5)  # cells; a 5-cell room is drawn one time in four, for one side at a time
EXTRA_DOOR_PROBABILITY = 0.1  # per wall cell that could join two regions already joined: these make loops
DEAD_ENDS_KEPT = 0.4  # share of blind alleys left as they are
RESPAWN_DISTANCE = 3  # least walking distance, in cells, between a respawn and the portal
HEADINGS = tuple(range(0, 360, 45))  # degrees, anticlockwise from east
NEIGHBOURS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class MazeError(ValueError):
    """A maze that fails its checks: a mistake of the generator, never of the user."""


@dataclass(frozen=True)
class Maze:
    """Walls and the things among them.

    Attributes:
        open: bool `[size, size]`, indexed `[x, y]`; True where one can walk.
        start: cell of the first spawn.
        heading: degrees at the first spawn, anticlockwise from east.
        portal: cell of the portal.
        apples: cells of the apples.
        seed: what it was made from.
    """

    open: np.ndarray
    start: Cell
    heading: int
    portal: Cell
    apples: tuple[Cell, ...]
    seed: int

    @property
    def cells(self) -> list[Cell]:
        """The open cells in a fixed order."""
        return [(int(x), int(y)) for x, y in np.argwhere(self.open)]


def check_options(size: int, apples: int, generator: str) -> None:
    """Raise `OptionError` unless a maze can be made with these options."""
    if not require_whole("size", size, MIN_SIZE, MAX_SIZE) % 2:
        raise OptionError(f"size must be an odd number of cells from {MIN_SIZE} to {MAX_SIZE}, not {size!r}")
    most = ((size - 1) // 2) ** 2 - 4  # our own generator opens every junction, and some cells must stay free
    require_whole(f"apples in a maze of size {size}", apples, 0, most)
    require_choice("generator", generator, GENERATORS)


def make_maze(seed: int, size: int = 9, apples: int = 8, generator: str = "rooms") -> Maze:
    """Make the maze of a seed: the same for the same arguments on every machine.

    Args:
        seed: 0 to 2**64 - 1.
        size: cells along one side, rim included; odd.
        apples: number of apples.
        generator: "rooms" (ours), or "labmaze" (DeepMind Lab's own, from the package of that name; its
            mazes are repeatable on one platform only).

    Raises:
        OptionError: if an argument is out of range, or labmaze makes no maze with room for so many apples.
    """
    check_options(size, apples, generator)
    seed = require_whole("the seed of a maze", seed, 0, MAX_SEED)
    draws = Draws(seed)
    grid, cells = carve_roomy(draws, size, generator, apples + 2)
    start, portal, *apple_cells = draws.sample(cells, apples + 2)
    maze = Maze(grid, start, draws.pick(HEADINGS), portal, tuple(apple_cells), seed)
    check_maze(maze)
    return maze


# --- carving ---------------------------------------------------------------------------------------------


def carve_roomy(draws: Draws, size: int, generator: str, things: int) -> tuple[np.ndarray, list[Cell]]:
    """Carve until there are cells for all `things`; return the grid and its open cells.

    Ours always has them; one labmaze of 70 at the default size has fewer than ten.
    """
    for _ in range(CARVINGS):
        grid = carve(draws, size) if generator == "rooms" else carve_with_labmaze(draws, size)
        cells = [(int(x), int(y)) for x, y in np.argwhere(grid)]
        if len(cells) >= things:
            return grid, cells
    raise OptionError(f"{generator} makes no maze of size {size} with {things} open cells: ask for fewer apples")


def carve(draws: Draws, size: int) -> np.ndarray:
    """Carve rooms, fill the rest with corridors, join all regions, and open most blind alleys.

    Returns:
        bool `[size, size]`, True where open; connected, and open at every junction.
    """
    region = np.full((size, size), -1)  # -1 is wall; other values tell regions apart
    rooms = place_rooms(draws, region)
    carve_corridors(draws, region, first_region=rooms)
    open_doors(draws, region)
    grid = region >= 0
    open_dead_ends(draws, grid)
    return grid


def place_rooms(draws: Draws, region: np.ndarray) -> int:
    """Carve rooms that do not overlap; return how many.

    Rooms start and end on odd coordinates, so that at least one wall cell is left between two of them.
    """
    size, rooms = len(region), 0
    sides = [s for s in ROOM_SIDES if s <= (size - 1) // 2]
    for _ in range(size):  # attempts grow with the side, so about a third of the area becomes rooms
        w, h = draws.pick(sides), draws.pick(sides)
        x = 1 + 2 * draws.below((size - w) // 2)
        y = 1 + 2 * draws.below((size - h) // 2)
        if (region[x : x + w, y : y + h] < 0).all():
            region[x : x + w, y : y + h] = rooms
            rooms += 1
    return rooms


def carve_corridors(draws: Draws, region: np.ndarray, first_region: int) -> None:
    """Fill the junctions outside rooms with depth-first mazes, each a region of its own."""
    size = len(region)
    for x in range(1, size, 2):
        for y in range(1, size, 2):
            if region[x, y] < 0:
                carve_one_corridor(draws, region, (x, y), first_region)
                first_region += 1


def carve_one_corridor(draws: Draws, region: np.ndarray, origin: Cell, label: int) -> None:
    """Walk at random from `origin` to junctions not yet carved, stepping back when stuck."""
    stack = [origin]
    region[origin] = label
    while stack:
        x, y = stack[-1]
        steps = [(dx, dy) for dx, dy in NEIGHBOURS if is_uncarved(region, x + 2 * dx, y + 2 * dy)]
        if not steps:
            stack.pop()
            continue
        dx, dy = draws.pick(steps)
        region[x + dx, y + dy] = region[x + 2 * dx, y + 2 * dy] = label
        stack.append((x + 2 * dx, y + 2 * dy))


def is_uncarved(region: np.ndarray, x: int, y: int) -> bool:
    """Tell whether a junction lies inside the rim and is still wall."""
    return 0 < x < len(region) and 0 < y < len(region) and region[x, y] < 0


def open_doors(draws: Draws, region: np.ndarray) -> None:
    """Open wall cells until all regions are joined, plus a few more, which make loops."""
    parent = list(range(int(region.max()) + 1))

    def root(r: int) -> int:
        while parent[r] != r:
            r = parent[r]
        return r

    for (x, y), a, b in draws.shuffled(find_doors(region)):
        a, b = root(a), root(b)
        if a != b or draws.chance(EXTRA_DOOR_PROBABILITY):
            region[x, y] = a
            parent[b] = a


def find_doors(region: np.ndarray) -> list[tuple[Cell, int, int]]:
    """List the wall cells that lie straight between two different regions, with those regions."""
    size, doors = len(region), []
    for x in range(1, size - 1):
        for y in range(1, size - 1):
            if (x + y) % 2 == 0:
                continue  # between junctions one coordinate is odd and one even
            dx, dy = (1, 0) if x % 2 == 0 else (0, 1)
            a, b = int(region[x - dx, y - dy]), int(region[x + dx, y + dy])
            if region[x, y] < 0 and a != b:
                doors.append(((x, y), a, b))
    return doors


def open_dead_ends(draws: Draws, grid: np.ndarray) -> None:
    """Break through the end of most blind alleys into the passage behind, so that one can go round."""
    inside = range(1, len(grid) - 1)
    tips = [(int(x), int(y)) for x, y in np.argwhere(grid) if count_open(grid, x, y) == 1]
    for x, y in draws.shuffled(tips):
        walls = [
            (x + dx, y + dy)
            for dx, dy in NEIGHBOURS
            if not grid[x + dx, y + dy] and x + dx in inside and y + dy in inside
        ]
        if count_open(grid, x, y) == 1 and walls and not draws.chance(DEAD_ENDS_KEPT):
            grid[draws.pick(walls)] = True


def count_open(grid: np.ndarray, x: int, y: int) -> int:
    """Count the open neighbours of a cell inside the rim."""
    return sum(bool(grid[x + dx, y + dy]) for dx, dy in NEIGHBOURS)


def carve_with_labmaze(draws: Draws, size: int) -> np.ndarray:
    """Take the walls of a maze from DeepMind Lab's generator; return bool `[size, size]`."""
    try:
        import labmaze
    except ImportError as error:
        raise MissingPackageError('generator="labmaze" needs its package: pip install labmaze') from error
    text = labmaze.RandomMaze(
        height=size, width=size, max_rooms=max(2, size // 3), room_min_size=3, room_max_size=5,
        extra_connection_probability=EXTRA_DOOR_PROBABILITY, random_seed=draws.below(2**31),
    ).entity_layer  # fmt: skip
    rows = [[character != "*" for character in row] for row in str(text).strip().split("\n")]
    return np.array(rows[::-1]).T.copy()  # its first row is the north; ours is indexed [x, y]


# --- checks and distances --------------------------------------------------------------------------------


def measure_distances(grid: np.ndarray, origin: Cell) -> np.ndarray:
    """Return int `[size, size]`: steps to walk from `origin`, -1 where it cannot be reached."""
    distances = np.full(grid.shape, -1)
    distances[origin] = 0
    queue = deque([origin])
    while queue:
        x, y = queue.popleft()
        for dx, dy in NEIGHBOURS:
            if grid[x + dx, y + dy] and distances[x + dx, y + dy] < 0:
                distances[x + dx, y + dy] = distances[x, y] + 1
                queue.append((x + dx, y + dy))
    return distances


def find_respawns(maze: Maze) -> list[Cell]:
    """List the cells where the portal may put the agent: free, and not beside the portal if that can be."""
    distances = measure_distances(maze.open, maze.portal)
    free = [c for c in maze.cells if c != maze.portal and c not in maze.apples]
    far = [c for c in free if distances[c] >= RESPAWN_DISTANCE]
    return far or free


def check_maze(maze: Maze) -> None:
    """Raise `MazeError` unless the rim is closed, every open cell is reachable and all things have a place."""
    grid = maze.open
    if grid.ndim != 2 or grid.shape[0] != grid.shape[1] or grid.dtype != bool:
        raise MazeError(f"maze {maze.seed}: the grid must be a square of booleans")
    if grid[0].any() or grid[-1].any() or grid[:, 0].any() or grid[:, -1].any():
        raise MazeError(f"maze {maze.seed}: the rim has a hole")
    things = [maze.start, maze.portal, *maze.apples]
    if len(set(things)) != len(things) or not all(grid[c] for c in things):
        raise MazeError(f"maze {maze.seed}: two things share a cell, or one stands in a wall")
    if (measure_distances(grid, maze.start)[grid] < 0).any():
        raise MazeError(f"maze {maze.seed}: some cells cannot be reached")
