"""Which observations are images, and how they lie. No torch here: presets need this before a command has been read."""

import numpy as np
from gymnasium import spaces

MIN_PICTURE = 36  # pixels along its shorter side that the paper's convolutions need


def is_image(space: spaces.Space) -> bool:
    """Return whether observations are pictures: numbers in three dimensions, or bytes in two."""
    if not isinstance(space, spaces.Box):
        return False
    return len(space.shape) == 3 or (len(space.shape) == 2 and space.dtype == np.uint8)


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether an image of `shape` is HWC: square ones tell, of others whether the last dimension is no longer.

    Board games have more channels than rows: of 8 x 8 x 111 the last is the channels, of 17 x 8 x 8 the first.
    """
    if len(shape) != 3:
        return False
    is_square_first, is_square_last = shape[0] == shape[1], shape[1] == shape[2]
    return is_square_first if is_square_first != is_square_last else shape[2] <= shape[0]


def torso_shape(space: spaces.Box) -> tuple[int, ...]:
    """Return the shape in which a torso gets one observation: images as (C, H, W), the rest as it is."""
    shape = space.shape
    if not is_image(space):
        return shape
    if len(shape) == 2:
        return (1, *shape)
    return (shape[2], *shape[:2]) if has_channels_last(shape) else shape
