"""Random draws that are the same on every machine and in every version of NumPy."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_MASK = (1 << 64) - 1


class Draws:
    """A SplitMix64 stream (Steele et al., 2014).

    NumPy promises stable streams for its bit generators but not for `Generator.integers`, `choice` or
    `shuffle`; "a seed means one maze everywhere" needs those too, so they are spelled out here.
    """

    def __init__(self, seed: int):
        self._state = seed & _MASK

    def raw(self) -> int:
        """Return the next 64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, n: int) -> int:
        """Return an integer in [0, n); the bias is under n / 2**64."""
        return (self.raw() * n) >> 64

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.raw() < probability * 2.0**64

    def pick(self, items: Sequence[T]) -> T:
        """Return one item, all equally likely."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items in random order (a partial Fisher-Yates shuffle)."""
        pool = list(items)
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return all items in random order."""
        return self.sample(items, len(items))
