"""What all tests share."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from asyncrl.envs.registration import register_envs

register_envs()
torch.set_num_threads(1)  # as workers do; equal sums everywhere
settings.register_profile("asyncrl", deadline=None)  # a busy machine is no failure
settings.load_profile("asyncrl")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def from_benchmarks(monkeypatch):
    """Return what imports a module of benchmarks/, which is no package; after the test all of them are forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").is_relative_to(BENCHMARKS):
            del sys.modules[name]


@pytest.fixture
def single_threaded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
