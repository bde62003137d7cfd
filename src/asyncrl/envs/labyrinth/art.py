"""Everything one sees in the labyrinth, drawn by code: palette, walls, floor, sky, apple and portal.

The engine paints with 256 colours. We bring our own: 16 hues in 16 shades each, so that walls keep their
hue as they darken with distance, and nothing but the apple is red and nothing but the portal is magenta.
"""

import struct
import zlib

import numpy as np

HUES = (  # RGB at full brightness
    (255, 255, 255), (238, 34, 34), (96, 208, 72), (40, 120, 60), (112, 184, 255), (200, 228, 255),
    (150, 104, 64), (226, 196, 140), (214, 124, 66), (52, 170, 164), (255, 60, 240), (120, 255, 255),
    (246, 212, 66), (104, 128, 176), (146, 112, 190), (168, 160, 148),
)  # fmt: skip
SHADES, DARKEST = 16, 0.06  # levels of each hue, and the brightness of the lowest
WALL_HUES = (8, 15, 3, 7, 6, 9, 14, 12)  # of bricks, blocks, hedge, sandstone, planks, tiles, columns, chevrons
WALLS = tuple(f"LABW{k}" for k in range(8))
FLOOR, SKY = "LABFLR", "LABSKY"
PORTAL_FRAMES = 4


def make_palette() -> np.ndarray:
    """Return uint8 `[256, 3]`: each hue from nearly black to full, the first entry black."""
    levels = np.linspace(DARKEST, 1, SHADES)[None, :, None]
    palette = (np.array(HUES)[:, None, :] * levels).round().astype(np.uint8).reshape(256, 3)
    palette[0] = 0
    return palette


def make_colormap(palette: np.ndarray) -> bytes:
    """Return Doom's light tables for a palette: 32 levels of darkness, then two that we never use."""
    colors = palette.astype(np.int32)
    tables = []
    for level in range(32):
        wanted = colors * (32 - level) // 32
        distance = ((wanted[:, None, :] - colors[None, :, :]) ** 2).sum(-1)
        tables.append(distance.argmin(1).astype(np.uint8).tobytes())
    return b"".join(tables) + bytes(range(256)) * 2


def encode_png(pixels: np.ndarray, offset: tuple[int, int] | None = None) -> bytes:
    """Return uint8 `[H, W, 4]` pixels as a PNG file; `offset` is the pixel that stands on the thing's spot."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    if offset:
        png += chunk(b"grAb", struct.pack(">ii", *offset))  # ZDoom's own chunk for sprite offsets
    return png + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


# --- walls, floor, sky -----------------------------------------------------------------------------------


def paint(hue: int, shade: np.ndarray) -> np.ndarray:
    """Return uint8 `[H, W, 4]`: one of `HUES` at a brightness `[H, W]` from 0 to 1, in colours of the palette."""
    levels = np.clip(np.rint((shade - DARKEST) / (1 - DARKEST) * (SHADES - 1)), 1, SHADES - 1).astype(int)
    pixels = np.full((*shade.shape, 4), 255, np.uint8)
    pixels[..., :3] = make_palette().reshape(len(HUES), SHADES, 3)[hue][levels]
    return pixels


def grain(size: int, seed: int, step: int, depth: float) -> np.ndarray:
    """Return brightness noise `[size, size]`, 1 - depth to 1, in squares of `step` pixels (finer noise flickers)."""
    cells = np.random.Generator(np.random.PCG64(seed)).random((size // step, size // step))
    return 1 - depth * np.kron(cells, np.ones((step, step)))


def draw_walls() -> list[np.ndarray]:
    """Draw the eight wall textures, 128 x 128 pixels each: one texture pixel is one map unit."""
    y, x = np.mgrid[0:128, 0:128]
    bricks = ((x + 32 * (y // 32 % 2)) // 64 + 2 * (y // 32)) % 3  # 0, 1 or 2: neighbours differ
    brick = np.where((y % 32 < 4) | ((x + 32 * (y // 32 % 2)) % 64 < 4), 0.5, 0.86 + 0.06 * bricks)
    block = np.where((y % 64 < 4) | ((x + 32 * (y // 64)) % 64 < 4), 0.6, 0.92) * grain(128, 1, 8, 0.12)
    leaves = grain(128, 5, 8, 0.55)
    diamond = np.where(abs(abs(x - 64) + abs(y - 64) - 40) < 7, 0.55, 0.92)
    planks = np.where(x % 32 < 3, 0.5, 0.75 + 0.13 * (x // 32 % 3))
    tiles = np.where((x % 32 < 3) | (y % 32 < 3), 0.35, 0.72 + 0.25 * ((x // 32 + y // 32) % 2))
    columns = 0.6 + 0.4 * np.sin(x * np.pi / 32) ** 2
    chevron = np.where((y + abs(x - 64)) % 64 < 14, 0.55, 0.92)
    shades = [brick, block, leaves, diamond, planks, tiles, columns, chevron]
    return [paint(hue, shade) for hue, shade in zip(WALL_HUES, shades, strict=True)]


def draw_floor() -> np.ndarray:
    """Draw flagstones, 64 x 64 pixels."""
    y, x = np.mgrid[0:64, 0:64]
    return paint(15, np.where((x % 32 < 2) | (y % 32 < 2), 0.36, 0.5 + 0.05 * ((x // 32 + y // 32) % 2)))


def draw_sky() -> np.ndarray:
    """Draw a sky with hills all round and one sun, 1024 x 128 pixels: a compass for those who look up."""
    y, x = np.mgrid[0:128, 0:1024]
    turn = 2 * np.pi * x / 1024
    mist = np.clip(y / 110, 0, 1)[..., None]
    rgb = (1 - mist) * np.array((112, 184, 255)) + mist * np.array((200, 228, 255))
    hills = 100 - 10 * np.sin(2 * turn + 1) - 6 * np.sin(5 * turn) - 3 * np.sin(11 * turn + 2)
    rgb[y > hills] = (104, 128, 176)
    rgb[np.hypot(x - 300, y - 50) < 14] = (246, 212, 66)
    return np.dstack([rgb, np.full(x.shape, 255)]).astype(np.uint8)


# --- things ----------------------------------------------------------------------------------------------


def draw_apple() -> np.ndarray:
    """Draw a red apple with a stalk and a leaf, 64 x 64 pixels."""
    y, x = np.mgrid[0:64, 0:64] - 31.5
    pixels = np.zeros((64, 64, 4), np.uint8)
    body = np.minimum(np.hypot(x - 9, y - 6), np.hypot(x + 9, y - 6)) < 21
    pixels[body] = (238, 34, 34, 255)
    pixels[body & (np.hypot(x + 4, y - 2) > 24)] = (166, 24, 24, 255)
    pixels[np.hypot(x + 11, y + 3) < 5] = (255, 255, 255, 255)
    pixels[(abs(x - 1) < 2.5) & (y > -28) & (y < -9)] = (80, 56, 34, 255)
    pixels[(((x - 11) / 9) ** 2 + ((y + 21) / 5) ** 2) < 1] = (96, 208, 72, 255)
    return pixels


def draw_portal(frame: int) -> np.ndarray:
    """Draw one of the frames of the turning portal, 64 x 96 pixels."""
    y, x = np.mgrid[0:96, 0:64] - np.array([47.5, 31.5])[:, None, None]
    radius, angle = np.hypot(x / 31, y / 47), np.arctan2(y / 47, x / 31)
    swirl = np.sin(3 * angle + 9 * radius - 2 * np.pi * frame / PORTAL_FRAMES)
    pixels = np.zeros((96, 64, 4), np.uint8)
    pixels[radius < 1] = (255, 60, 240, 255)
    pixels[(radius < 0.78) & (swirl > 0)] = (120, 255, 255, 255)
    pixels[(radius < 0.3) | ((radius > 0.78) & (radius < 0.86))] = (255, 255, 255, 255)
    return pixels
