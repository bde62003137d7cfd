"""A maze as a level text for the engine (UDMF), and an independent reading of that text that checks it.

A fault in a level can end the engine, and at its start Python with it, by a segmentation fault. So no
level reaches the engine before `check_level` has read it back.
"""

import re

import numpy as np

from asyncrl.envs.labyrinth.art import FLOOR, WALLS
from asyncrl.envs.labyrinth.draws import Draws
from asyncrl.envs.labyrinth.maze import Cell, Maze, MazeError

CELL_UNITS = 128  # map units along a cell; walking speed is about 440 units/s = 3.4 cells/s
WALL_UNITS = 112
PLAYER_TYPE, APPLE_TYPE, PORTAL_TYPE = 1, 20001, 20002
TEXTURES = ("varied", "plain")
_BLOCK = re.compile(r"([a-z]+)\{([^{}]*)\}\n")
_FIELD = re.compile(r'([a-z0-9]+)=("[^"]*"|[^;"]+);')
_PRESENT = "".join(f"{when}=true;" for when in ("skill1", "skill2", "skill3", "skill4", "skill5", "single", "class1"))
Point = tuple[int, int]


def find_center(cell: Cell) -> tuple[float, float]:
    """Return the map position, in units, of the middle of a cell."""
    return (cell[0] + 0.5) * CELL_UNITS, (cell[1] + 0.5) * CELL_UNITS


def find_wall_runs(grid: np.ndarray) -> list[tuple[Point, Point]]:
    """List the straight walls between open and solid cells, as grid corners with the open side on the right."""
    runs = []
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        solid = ~np.roll(grid, (-dx, -dy), (0, 1))  # the rim is solid, so what roll wraps round is solid too
        face = grid & solid
        lanes = face if dx else face.T  # [fixed coordinate, running coordinate]
        for fixed, lane in enumerate(lanes):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], lane.astype(np.int8), [0]])))
            for first, last in edges.reshape(-1, 2).tolist():
                side = fixed + (dx + dy > 0)
                if dx:
                    ends = ((side, first), (side, last))
                else:
                    ends = ((first, side), (last, side))
                runs.append(ends if dx < 0 or dy > 0 else ends[::-1])
    return runs


def write_walls(maze: Maze, textures: str) -> str:
    """Return the vertices, lines and sides of a maze, and its one sector."""
    draws = Draws(maze.seed ^ 0x7E87)  # a stream of its own: the look never changes the maze
    corners: dict[Point, int] = {}
    lines = []
    for side, ends in enumerate(find_wall_runs(maze.open)):
        a, b = (corners.setdefault(corner, len(corners)) for corner in ends)
        texture = draws.pick(WALLS) if textures == "varied" else WALLS[1]
        lines.append(f"linedef{{v1={a};v2={b};sidefront={side};blocking=true;}}\n")
        lines.append(f'sidedef{{sector=0;texturemiddle="{texture}";}}\n')
    vertices = [f"vertex{{x={x * CELL_UNITS};y={y * CELL_UNITS};}}\n" for x, y in corners]
    sector = (
        f"sector{{heightfloor=0;heightceiling={WALL_UNITS};"
        f'texturefloor="{FLOOR}";textureceiling="F_SKY1";lightlevel=216;}}\n'
    )
    return "".join([*vertices, *lines, sector])


def write_thing(kind: int, cell: Cell, heading: int = 0) -> str:
    """Return a thing standing in the middle of a cell; heading in degrees."""
    x, y = find_center(cell)
    return f"thing{{x={x};y={y};type={kind};angle={heading};{_PRESENT}}}\n"


def write_level(maze: Maze, textures: str = "varied") -> str:
    """Return the level text of a maze without its player, who comes last (`write_thing`)."""
    things = [write_thing(PORTAL_TYPE, maze.portal), *(write_thing(APPLE_TYPE, cell) for cell in maze.apples)]
    return 'namespace="zdoom";\n' + write_walls(maze, textures) + "".join(things)


# --- checks ----------------------------------------------------------------------------------------------


def parse_level(text: str) -> dict[str, list[dict[str, str]]]:
    """Read a level text back into its blocks.

    Raises:
        MazeError: for any character that belongs to no block.
    """
    head, body = text[: text.find("\n") + 1], text[text.find("\n") + 1 :]
    blocks: dict[str, list[dict[str, str]]] = {kind: [] for kind in ("vertex", "linedef", "sidedef", "sector", "thing")}
    end = 0
    for match in _BLOCK.finditer(body):
        kind, fields = match.groups()
        if match.start() != end or kind not in blocks or _FIELD.sub("", fields):
            raise MazeError(f"level text not understood near {body[end : match.end()]!r}")
        blocks[kind].append({name: value.strip('"') for name, value in _FIELD.findall(fields)})
        end = match.end()
    if head != 'namespace="zdoom";\n' or body[end:].strip():
        raise MazeError(f"level text not understood near {(head if not end else body[end:])[:80]!r}")
    return blocks


def check_level(text: str, apples: int) -> None:
    """Raise `MazeError` unless the walls close, every reference exists and everything stands inside."""
    blocks = parse_level(text)
    points = np.array([(float(v["x"]), float(v["y"])) for v in blocks["vertex"]])
    lines = np.array([(int(d["v1"]), int(d["v2"]), int(d["sidefront"])) for d in blocks["linedef"]])
    if len(blocks["sector"]) != 1 or len(lines) < 4 or len(points) < 4:
        raise MazeError("level: needs one sector and at least four walls")
    check_walls(points, lines, blocks["sidedef"])
    check_names(blocks)
    check_things(points[lines[:, 0]], points[lines[:, 1]], blocks["thing"], apples)


def check_walls(points: np.ndarray, lines: np.ndarray, sides: list[dict[str, str]]) -> None:
    """Raise `MazeError` unless each vertex ends as many lines as it starts, and each line has its own side."""
    if lines.min() < 0 or lines[:, :2].max() >= len(points) or any(s["sector"] != "0" for s in sides):
        raise MazeError("level: a line or side refers to something that does not exist")
    if sorted(lines[:, 2].tolist()) != list(range(len(sides))):
        raise MazeError("level: lines and sides do not match one to one")
    starts, ends = (np.bincount(lines[:, k], minlength=len(points)) for k in (0, 1))
    if (starts != ends).any() or (starts == 0).any() or len(np.unique(points, axis=0)) != len(points):
        raise MazeError("level: the walls are not closed")
    if (points[lines[:, 0]] == points[lines[:, 1]]).all(1).any():
        raise MazeError("level: a wall has no length")


def check_names(blocks: dict[str, list[dict[str, str]]]) -> None:
    """Raise `MazeError` for a texture that we do not bring, or a name over the engine's 8 characters."""
    used = {s["texturemiddle"] for s in blocks["sidedef"]}
    used |= {s[key] for s in blocks["sector"] for key in ("texturefloor", "textureceiling")}
    unknown = used - {*WALLS, FLOOR, "F_SKY1"}
    if unknown or any(len(name) > 8 for name in used):
        raise MazeError(f"level: unknown textures {sorted(unknown)}")


def check_things(starts: np.ndarray, ends: np.ndarray, things: list[dict[str, str]], apples: int) -> None:
    """Raise `MazeError` unless there are one player, one portal and all apples, each within the walls."""
    kinds = sorted(int(t["type"]) for t in things)
    if kinds != sorted([PLAYER_TYPE, PORTAL_TYPE, *[APPLE_TYPE] * apples]):
        raise MazeError("level: needs one player, one portal and the right number of apples")
    for thing in things:
        x, y = float(thing["x"]), float(thing["y"])
        crosses = (starts[:, 1] > y) != (ends[:, 1] > y)  # walls met by a ray to the east, which are vertical
        if (crosses & (starts[:, 0] > x)).sum() % 2 == 0:
            raise MazeError(f"level: a thing of type {thing['type']} stands outside the walls")
