"""The file that the engine reads: our art, our two kinds of things, and two places for levels.

The engine reads the list of lumps once, at its start, and a level each time that level is entered. So the
file holds two level slots of fixed size and each new level is written over the slot that is not in use:
a new maze costs about 2 ms, where a restart of the engine would cost 300.
"""

import functools
import struct

from asyncrl.envs.labyrinth import art
from asyncrl.envs.labyrinth.maze import MazeError

SLOTS = ("LABA", "LABB")
# Alternating slots larger than any read-ahead buffer make it impossible that the engine sees an old page.
MIN_SLOT_BYTES = 1 << 16
BYTES_PER_WALL = 160  # a line, a side and at most two vertices, generously

DECORATE = b"""actor LabApple : Inventory 20001
{
  Radius 32
  Height 40
  Scale 0.6
  +COUNTITEM
  +INVENTORY.QUIET
  Inventory.Amount 1
  Inventory.MaxAmount 1000000
  Inventory.PickupMessage ""
  Inventory.PickupSound ""
  States
  {
  Spawn:
    LAPL A -1 Bright
    Stop
  }
}
actor LabPortal : BasicArmorBonus 20002
{
  Radius 32
  Height 64
  +INVENTORY.QUIET
  +INVENTORY.ALWAYSPICKUP
  Armor.SavePercent 1
  Armor.SaveAmount 1
  Armor.MaxSaveAmount 1000000
  Inventory.PickupMessage ""
  Inventory.PickupSound ""
  States
  {
  Spawn:
    LPTL ABCD 5 Bright
    Loop
  }
}
actor LabPlayer : DoomPlayer
{
  Player.ForwardMove 1.0
  Player.SideMove 1.0
  Player.StartItem "Fist"
}
"""


def make_mapinfo() -> bytes:
    """Return the list of levels and the class of the player."""
    levels = "".join(f'map {s} "{s}" {{ sky1 = "{art.SKY}" nointermission noinfighting }}\n' for s in SLOTS)
    return f'gameinfo {{ playerclasses = "LabPlayer" }}\n{levels}'.encode()


def count_slot_bytes(size: int) -> int:
    """Return how many bytes a level of `size` x `size` cells may take at most."""
    return max(MIN_SLOT_BYTES, 2 * size * (size + 1) * BYTES_PER_WALL)


@functools.cache
def make_art_lumps() -> tuple[tuple[str, bytes], ...]:
    """Return palette, textures and sprites as lumps, drawn once per process."""
    palette = art.make_palette()
    textures = [(name, art.encode_png(pixels)) for name, pixels in zip(art.WALLS, art.draw_walls(), strict=True)]
    textures += [(art.FLOOR, art.encode_png(art.draw_floor())), (art.SKY, art.encode_png(art.draw_sky()))]
    sprites = [("LAPLA0", art.encode_png(art.draw_apple(), (32, 70)))]  # floats 4 units above the floor
    for k in range(art.PORTAL_FRAMES):
        sprites.append((f"LPTL{'ABCD'[k]}0", art.encode_png(art.draw_portal(k), (32, 98))))
    colors = [("PLAYPAL", palette.tobytes()), ("COLORMAP", art.make_colormap(palette))]
    return (*colors, ("TX_START", b""), *textures, ("TX_END", b""), ("S_START", b""), *sprites, ("S_END", b""))


def make_lumps(slot_bytes: int) -> list[tuple[str, bytes]]:
    """Return all lumps in order, the level slots empty."""
    lumps = [("DECORATE", DECORATE), ("MAPINFO", make_mapinfo()), *make_art_lumps()]
    for slot in SLOTS:
        lumps += [(slot, b""), ("TEXTMAP", b" " * slot_bytes), ("ENDMAP", b"")]
    return lumps


def make_wad(slot_bytes: int) -> tuple[bytes, tuple[int, ...]]:
    """Return the file, and the offset in bytes of each level slot."""
    lumps = make_lumps(slot_bytes)
    body, directory, offset, slots = [], [], 12, []
    for name, data in lumps:
        if not 0 < len(name) <= 8:
            raise MazeError(f"the engine allows lump names of 1 to 8 characters, not {name!r}")
        if name == "TEXTMAP":
            slots.append(offset)
        directory.append(struct.pack("<ii8s", offset, len(data), name.encode("ascii")))
        body.append(data)
        offset += len(data)
    header = struct.pack("<4sii", b"PWAD", len(lumps), offset)
    return header + b"".join(body) + b"".join(directory), tuple(slots)


def pad_level(text: str, slot_bytes: int) -> bytes:
    """Return a level text filled up with spaces to the size of a slot."""
    data = text.encode("ascii")
    if len(data) > slot_bytes:
        raise MazeError(f"the level takes {len(data)} bytes, its slot has {slot_bytes}")
    return data.ljust(slot_bytes)
