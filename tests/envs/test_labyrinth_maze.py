"""Mazes, levels and the level file: everything that needs no engine."""

import hashlib
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncrl.envs.labyrinth import art, level, wad
from asyncrl.envs.labyrinth import maze as maze_module
from asyncrl.envs.labyrinth.draws import Draws
from asyncrl.envs.labyrinth.maze import (
    MazeError,
    check_maze,
    find_respawns,
    make_maze,
    measure_distances,
)
from asyncrl.envs.options import OptionError

seeds = st.integers(0, 2**64 - 1)
sizes = st.integers(3, 12).map(lambda half: 2 * half + 1)


def write_whole_level(maze):
    return level.write_level(maze) + level.write_thing(level.PLAYER_TYPE, maze.start, maze.heading)


def test_draws_are_splitmix64():
    # The first values of the reference C program for the seed 1234567.
    draws = Draws(1234567)
    assert [draws.raw() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_spread_evenly():
    draws = Draws(1)
    counts = np.bincount([draws.below(5) for _ in range(5000)], minlength=5)
    assert counts.min() > 900
    assert 0.27 < np.mean([draws.chance(0.3) for _ in range(5000)]) < 0.33
    assert sorted(draws.shuffled(range(20))) == list(range(20))


@settings(max_examples=60, deadline=None)
@given(seeds, sizes, st.integers(0, 5))
def test_every_maze_is_sound(seed, size, apples):
    maze = make_maze(seed, size, apples)
    assert maze.open.shape == (size, size) and len(maze.apples) == apples
    assert maze.open[1::2, 1::2].all()  # what the limit on apples rests on
    assert (measure_distances(maze.open, maze.start)[maze.open] >= 0).all()
    assert not maze.open[[0, -1]].any() and not maze.open[:, [0, -1]].any()
    assert len({maze.start, maze.portal, *maze.apples}) == apples + 2


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, st.integers(0, 5))
def test_every_level_passes_its_own_reading(seed, size, apples):
    maze = make_maze(seed, size, apples)
    text = write_whole_level(maze)
    level.check_level(text, apples)
    assert len(text) <= wad.count_slot_bytes(size)
    assert text.count("linedef{") == text.count("sidedef{") >= 8


@settings(max_examples=40, deadline=None)
@given(seeds, sizes)
def test_walls_cover_exactly_the_faces_of_open_cells(seed, size):
    grid = make_maze(seed, size, 0).open
    faces = sum((grid & ~np.roll(grid, shift, axis)).sum() for axis in (0, 1) for shift in (1, -1))
    runs = level.find_wall_runs(grid)
    assert sum(abs(ax - bx) + abs(ay - by) for (ax, ay), (bx, by) in runs) == faces
    for (ax, ay), (bx, by) in runs:  # the cell to the right of a wall is open, the one to its left is not
        length = abs(ax - bx) + abs(ay - by)
        ux, uy = (bx - ax) // length, (by - ay) // length
        middle = np.array([ax + 0.5 * ux, ay + 0.5 * uy])
        right, left = middle + 0.5 * np.array([uy, -ux]), middle - 0.5 * np.array([uy, -ux])
        assert grid[tuple(right.astype(int))] and not grid[tuple(left.astype(int))]


def test_the_same_seed_is_the_same_maze_for_ever():
    # Changing the generator changes everybody's mazes: do it knowingly, and say so where results are kept.
    digest = hashlib.sha256()
    for seed in range(20):
        maze = make_maze(seed, 11, 10)
        digest.update(np.packbits(maze.open).tobytes())
        digest.update(repr((maze.start, maze.heading, maze.portal, maze.apples)).encode())
    assert digest.hexdigest()[:16] == "be321c121177db22"


def test_different_seeds_are_different_mazes():
    grids = {make_maze(seed, 11, 10).open.tobytes() for seed in range(100)}
    assert len(grids) == 100


def test_mazes_have_rooms_corridors_and_loops():
    mazes = [make_maze(seed, 15, 10).open for seed in range(30)]
    rooms = [any(g[x : x + 3, y : y + 3].all() for x in range(1, 12) for y in range(1, 12)) for g in mazes]
    corridors = [(g[1:-1, 1:-1] & ~g[:-2, 1:-1] & ~g[2:, 1:-1]).any() for g in mazes]
    assert np.mean(rooms) > 0.95 and all(corridors)
    passages = [g[1:-1, 1:-1].sum() - g[1::2, 1::2].sum() for g in mazes]
    assert min(passages) > 7 * 7 - 1  # a tree of 7 x 7 junctions has 48 passages; more means loops


def test_respawns_are_free_and_away_from_the_portal():
    for seed in range(30):
        maze = make_maze(seed, 11, 10)
        distances = measure_distances(maze.open, maze.portal)
        cells = find_respawns(maze)
        assert len(cells) > 5 and not set(cells) & {maze.portal, *maze.apples}
        assert min(distances[c] for c in cells) >= 3


def test_labmaze_walls_stand_as_its_text_says():
    pytest.importorskip("labmaze", reason="labmaze is not installed")
    maze = make_maze(3, 15, 8, generator="labmaze")
    check_maze(maze)
    assert not np.array_equal(maze.open, make_maze(3, 15, 8).open)
    assert np.array_equal(maze.open, make_maze(3, 15, 8, generator="labmaze").open)


def test_another_labmaze_is_drawn_where_one_has_no_room():
    pytest.importorskip("labmaze", reason="labmaze is not installed")
    # Seven of the first 500 seeds have nine open cells at first, 24 among them.
    assert len(make_maze(24, 9, 8, generator="labmaze").cells) >= 10


def test_a_generator_that_never_leaves_room_is_told(monkeypatch):
    def carve_a_cell(draws, size):
        grid = np.zeros((size, size), bool)
        grid[1, 1] = True
        return grid

    monkeypatch.setattr(maze_module, "carve_with_labmaze", carve_a_cell)
    with pytest.raises(OptionError, match="labmaze makes no maze of size 9 with 5 open cells: ask for fewer apples"):
        make_maze(0, 9, 3, generator="labmaze")


def test_labmaze_missing_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "labmaze", None)
    with pytest.raises(ImportError, match="pip install labmaze"):
        make_maze(0, generator="labmaze")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 10}, "odd"),
        ({"size": 5}, "size"),
        ({"size": 9.0}, "size"),
        ({"size": 53}, "size"),
        ({"apples": -1}, "apples"),
        ({"size": 7, "apples": 6}, "0 to 5"),
        ({"generator": "other"}, "generator"),
    ],
)
def test_options_out_of_range_are_refused(options, word):
    with pytest.raises(OptionError, match=word):
        make_maze(0, **options)


# --- the checks themselves: each must refuse what it is there to refuse -----------------------------------


def test_check_maze_refuses_what_cannot_be_played():
    maze = make_maze(0, 11, 3)
    walled = maze.open.copy()
    x, y = maze.apples[0]
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        walled[x + dx, y + dy] = False
    holed = maze.open.copy()
    holed[0, 3] = True
    broken = [
        replace(maze, open=walled, portal=maze.apples[1], apples=(maze.apples[0],)),
        replace(maze, open=holed),
        replace(maze, portal=maze.start),
        replace(maze, start=(0, 0)),
        replace(maze, open=maze.open.astype(int)),
    ]
    for bad in broken:
        with pytest.raises(MazeError):
            check_maze(bad)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sidefront=3;", "sidefront=30000;"),
        ("linedef{v1=0;", "linedef{v1=99999;"),
        ("linedef{v1=0;", "linedef{v1=1;"),
        ('texturemiddle="LABW', 'texturemiddle="LABWALLS'),
        ('texturefloor="LABFLR"', 'texturefloor="FLAT1"'),
        ("type=20002;", "type=3004;"),
        ("type=1;", "type=2;"),
        ('namespace="zdoom";', 'namespace="doom";'),
        ("sector{", "sector{{"),
        ("vertex{", "vertex "),
    ],
)
def test_check_level_refuses_a_damaged_text(old, new):
    text = write_whole_level(make_maze(0, 11, 3))
    assert text.count(old) >= 1
    with pytest.raises(MazeError):
        level.check_level(text.replace(old, new, 1), 3)


def test_check_level_refuses_things_in_walls_missing_walls_and_trailing_words():
    maze = make_maze(0, 11, 3)
    text = write_whole_level(maze)
    in_wall = level.write_level(maze) + level.write_thing(level.PLAYER_TYPE, (0, 0), 0)
    lines = text.split("\n")
    first = next(k for k, line in enumerate(lines) if line.startswith("linedef"))
    for bad in (in_wall, "\n".join(lines[:first] + lines[first + 2 :]), text + "garbage"):
        with pytest.raises(MazeError):
            level.check_level(bad, 3)


# --- the file --------------------------------------------------------------------------------------------


def read_directory(data):
    count, offset = struct.unpack("<ii", data[4:12])
    for k in range(count):
        start, length, name = struct.unpack("<ii8s", data[offset + 16 * k : offset + 16 * k + 16])
        yield name.rstrip(b"\0").decode(), start, length


def test_the_file_is_what_it_says():
    data, slots = wad.make_wad(1 << 16)
    lumps = list(read_directory(data))
    lengths = {name: length for name, _, length in lumps}
    assert data[:4] == b"PWAD" and lengths["PLAYPAL"] == 768 and lengths["COLORMAP"] == 34 * 256
    assert [start for name, start, _ in lumps if name == "TEXTMAP"] == list(slots)
    assert all(start + length <= len(data) for _, start, length in lumps)
    names = [name for name, _, _ in lumps]
    assert set(art.WALLS) < set(names) and all(slot in names for slot in wad.SLOTS)


def test_the_file_has_the_same_bytes_in_another_process():
    program = "import hashlib; from asyncrl.envs.labyrinth import wad; "
    program += "print(hashlib.sha256(wad.make_wad(1 << 16)[0]).hexdigest())"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(wad.make_wad(1 << 16)[0]).hexdigest()


def test_the_text_that_can_crash_the_engine_has_not_changed_unnoticed():
    # An error in it is a segmentation fault. Run the engine tests before you write a new digest here.
    assert hashlib.sha256(wad.DECORATE + wad.make_mapinfo()).hexdigest()[:16] == "05eb73f830e458f0"


def test_a_level_too_long_for_its_slot_is_refused():
    with pytest.raises(MazeError, match="slot"):
        wad.pad_level("x" * 11, 10)


def test_reading_the_art_of_a_wall_changes_neither_maze_nor_things():
    maze = make_maze(5, 11, 10)
    varied, plain = level.write_level(maze, "varied"), level.write_level(maze, "plain")
    assert {w for w in art.WALLS if w in varied} >= set(art.WALLS[:3]) and art.WALLS[0] not in plain
    assert [x for x in varied.split("\n") if "thing" in x] == [x for x in plain.split("\n") if "thing" in x]


def test_only_the_apple_is_red_and_only_the_portal_magenta():
    def find(pixels, color):
        return (abs(pixels[..., :3].astype(int) - color).max(-1) < 40).any()

    red, magenta = (238, 34, 34), (255, 60, 240)
    scenery = [*art.draw_walls(), art.draw_floor(), art.draw_sky()]
    assert not any(find(p, red) or find(p, magenta) for p in scenery)
    assert find(art.draw_apple(), red) and find(art.draw_portal(0), magenta)


def test_importing_the_labyrinth_loads_neither_vizdoom_nor_torch():
    program = "import sys, asyncrl.envs.labyrinth; print([m for m in ('torch', 'vizdoom') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
