"""From the engine's picture to the agent's, and a larger one for people."""

import functools

import numpy as np

from asyncrl.envs.labyrinth.art import make_palette
from asyncrl.envs.labyrinth.engine import HEIGHT, VIEW, WIDTH

SIDE = VIEW // 2  # pixels along one side of an observation
TOP, LEFT = (HEIGHT - VIEW) // 2, (WIDTH - VIEW) // 2
_LOW_BITS_OFF = np.uint32(0xFEFEFEFE)


@functools.cache
def make_pair_colors() -> np.ndarray:
    """Return uint32 `[65536]`: the mean colour, 0x00BBGGRR, of two neighbouring pixels read as one 16-bit word."""
    palette = make_palette().astype(np.uint32)
    mean = (palette[:, None] + palette[None, :] + 1) >> 1  # the order of the two does not matter
    return (mean[..., 0] | mean[..., 1] << 8 | mean[..., 2] << 16).reshape(-1)


def make_observation(screen: np.ndarray) -> np.ndarray:
    """Average the middle square of the screen 2 x 2; return uint8 `[84, 84, 3]`.

    The engine hands over palette entries, so a table look-up averages across. Then four bytes of two rows
    are averaged at once inside one 32-bit word: (a & b) + (a ^ b) / 2, which rounds down as the table rounded up.
    """
    pairs = screen.view(np.uint16)[TOP : TOP + VIEW, LEFT // 2 : (LEFT + VIEW) // 2]
    words = make_pair_colors().take(pairs)
    a, b = words[0::2], words[1::2]
    pixels = (a & b) + (((a ^ b) & _LOW_BITS_OFF) >> 1)
    channels = pixels.view(np.uint8).reshape(SIDE, SIDE, 4)
    observation = np.empty((SIDE, SIDE, 3), np.uint8)
    for k in range(3):  # four times as fast as one copy of [..., :3], which moves three bytes at a time
        observation[..., k] = channels[..., k]
    return observation


def crop_view(screen: np.ndarray, side: int) -> np.ndarray:
    """Return the view at the engine's own resolution, enlarged to uint8 `[side, side, 3]`; 168 divides `side`."""
    pixels = make_palette()[screen[TOP : TOP + VIEW, LEFT : LEFT + VIEW]]
    return pixels.repeat(side // VIEW, 0).repeat(side // VIEW, 1)
