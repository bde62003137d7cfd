"""The generators that environments draw from without asking: Python's, NumPy's and torch's global ones."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator

import numpy as np
import torch

alone = threading.RLock()  # held while they are seeded, put back, or drawn from for weights: several threads may train


def seed_everything(seed: np.random.SeedSequence) -> None:
    """Seed them: forked processes would all draw the same, and processes of their own something else each time."""
    first, second, third = (int(number) for number in seed.generate_state(3))
    with alone:
        random.seed(first)
        np.random.seed(second)  # noqa: NPY002, the global one is what environments use
        torch.default_generator.manual_seed(third)


def keep_generators() -> Callable[[], None]:
    """Return what puts them back to where they are now, for whoever called us draws from them too.

    Threads that do this at once put each other's back: there is but one of each.
    """
    with alone:
        ours, numpys, torchs = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002

    def put_back() -> None:
        with alone:
            random.setstate(ours)
            np.random.set_state(numpys)  # noqa: NPY002
            torch.default_generator.set_state(torchs)

    return put_back


@contextlib.contextmanager
def seeded(seed: np.random.SeedSequence) -> Iterator[None]:
    """Seed them meanwhile."""
    put_back = keep_generators()
    seed_everything(seed)
    try:
        yield
    finally:
        put_back()
