"""`make worlds`: what is skipped is told with its reason, and what stays missing fails it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from asyncrl.worlds import World

SCRIPT = Path(__file__).parents[1] / "scripts" / "worlds.py"
TORCS = World("TORCS", ("asyncrl/Torcs-v0",), missing="not installed", install="touch installed # apt-get")
ELSEWHERE = World("TORCS", ("asyncrl/Torcs-v0",), missing="needs Linux on amd64")


@pytest.fixture
def script(monkeypatch, tmp_path) -> ModuleType:
    """The script, in a folder of its own, as if apt-get could be used."""
    spec = importlib.util.spec_from_file_location("install_worlds", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.delenv("CI", raising=False)
    return module


def look(*worlds: World):
    """Return a look at these worlds, of which TORCS is there once its command has run."""
    return lambda: [w for w in worlds if not (w is TORCS and Path("installed").exists())]


def test_the_command_that_is_told_is_run(script, monkeypatch):
    monkeypatch.setattr(script, "list_worlds", look(TORCS, ELSEWHERE))
    assert script.main() == 0 and Path("installed").exists()


def test_a_world_that_nothing_installs_fails_only_in_ci(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "list_worlds", look(ELSEWHERE))
    assert script.main() == 0
    monkeypatch.setenv("CI", "true")
    assert script.main() == 1
    assert "still missing: TORCS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("user", "apt", "reason"),
    [(1000, "/usr/bin/apt-get", "only root may use apt-get"), (0, None, "there is no apt-get here")],
)
def test_what_is_skipped_is_told_and_no_failure(script, monkeypatch, capsys, user, apt, reason):
    monkeypatch.setattr(script, "list_worlds", look(TORCS))
    monkeypatch.setattr(script.shutil, "which", lambda _: apt)
    monkeypatch.setattr(script.os, "geteuid", lambda: user)
    assert script.main() == 0 and not Path("installed").exists()
    assert f"skipped TORCS, because {reason}\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["false # apt-get", "pip install it"])
def test_what_stays_missing_fails(script, monkeypatch, capsys, command):
    world = World("Labyrinth", ("asyncrl/Labyrinth-v0",), missing="no vizdoom", install=command)
    monkeypatch.setattr(script, "list_worlds", look(world))
    assert script.main() == 1
    assert "still missing: Labyrinth" in capsys.readouterr().err
