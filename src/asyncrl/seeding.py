"""The generators that environments draw from without asking: Python's, NumPy's and torch's global ones."""

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

alone = threading.RLock()  # held while they are seeded, put back, or drawn from for weights: several threads may train


def seed_everything(seed: np.random.SeedSequence) -> None:
    """Seed them: forked processes would all draw the same, and processes of their own something else each time."""
    first, second, third = (int(number) for number in seed.generate_state(3))
    with alone:
        random.seed(first)
        np.random.seed(second)  # noqa: NPY002, the global one is what environments use
        if (torch := _torch()) is not None:
            torch.default_generator.manual_seed(third)


def keep_generators() -> Callable[[], None]:
    """Return what puts them back to where they are now, for whoever called us draws from them too.

    Threads that do this at once put each other's back: there is but one of each.
    """
    with alone:
        torch = _torch()
        ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
        torchs = None if torch is None else torch.default_generator.get_state()

    def put_back() -> None:
        with alone:
            random.setstate(ours)
            np.random.set_state(numpys)  # noqa: NPY002
            if torch is not None:
                torch.default_generator.set_state(torchs)

    return put_back


def _torch() -> Any:
    """Return torch if it has been imported: nobody draws from it before, and commands load it as late as they can."""
    return sys.modules.get("torch")


@contextlib.contextmanager
def seeded(seed: np.random.SeedSequence) -> Iterator[None]:
    """Seed them meanwhile."""
    with put_back_after():
        seed_everything(seed)
        yield


@contextlib.contextmanager
def put_back_after() -> Iterator[None]:
    """Put them back after what may draw from them."""
    put_back = keep_generators()
    try:
        yield
    finally:
        put_back()
