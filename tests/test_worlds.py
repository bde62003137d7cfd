"""The list of worlds: what is there, what is not, and what would install it."""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as real_version
from pathlib import Path

import gymnasium
import pytest

from asyncrl import worlds
from asyncrl.cli import main
from asyncrl.envs.registration import our_worlds
from asyncrl.errors import UserError, install_command, python_command


def told(capsys) -> dict[str, dict]:
    assert main(["envs", "--json"]) == 0
    return {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}


@pytest.fixture
def packages(monkeypatch):
    """The Python packages that are there, with their versions, to be changed by the test; OpenGL works."""
    there = {"ale-py": "0.12.1", "vizdoom": "1.3.2", "mujoco": "3.17.0", "dm_control": "1.0.50"}

    def version(name):
        if name in ("numpy", "gymnasium"):
            return real_version(name)
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(worlds, "version", version)
    monkeypatch.setattr(worlds, "find_backend", lambda: "osmesa")
    return there


def test_each_missing_package_is_named_with_its_command(packages, capsys):
    packages.clear()
    rows = told(capsys)
    commands = {name: row["install"] for name, row in rows.items() if row["missing"] and name != "TORCS"}
    assert commands == {
        "Atari": install_command("atari"),
        "Labyrinth": install_command("labyrinth"),
        "MuJoCo": install_command("mujoco"),
        "dm_control": install_command("mujoco"),
        "MuJoCo pixels": install_command("mujoco"),
    }
    assert rows["Labyrinth"]["missing"] == "vizdoom is not installed" and not rows["Labyrinth"]["installed"]
    assert rows["diagnostic"]["installed"] and "asyncrl/Catch-v0" in rows["diagnostic"]["ids"]


def test_what_is_there_is_told_with_its_version(packages, capsys):
    rows = told(capsys)
    assert rows["Labyrinth"]["found"] == "vizdoom 1.3.2"
    assert rows["MuJoCo pixels"]["found"] == "mujoco 3.17.0, drawn by osmesa"
    assert rows["Atari"]["ids"][0] == "ALE/Pong-v5" and "ALE/Breakout-v5" in rows["Atari"]["ids"]
    assert rows["dm_control"]["ids"][0] == "dm_control/cartpole-swingup-v0"
    assert "dm_control/walker-walk-pixels-v0" in rows["MuJoCo pixels"]["ids"]
    assert not any("-pixels-" in name for name in rows["dm_control"]["ids"])


def test_an_ale_py_that_cannot_be_imported_is_missing(packages, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    world = told(capsys)["Atari"]
    assert not world["installed"] and world["missing"].startswith("ale-py 0.12.1 cannot be imported: ")


def test_a_mujoco_that_breaks_dm_control_is_told(packages, capsys):
    packages["mujoco"] = "4.0.0"
    rows = told(capsys)
    assert rows["dm_control"]["missing"] == "mujoco 4.0.0 is too new for dm_control"
    assert rows["MuJoCo"]["installed"]


def test_without_dm_control_its_pictures_are_not_there(packages, capsys):
    del packages["dm_control"]
    row = told(capsys)["MuJoCo pixels"]
    assert row["installed"] and row["ids"][0] == "asyncrl/HalfCheetah-pixels-v5"
    assert not any(name.startswith("dm_control/") for name in row["ids"])


def test_where_nothing_draws_the_cure_is_told(packages, capsys, monkeypatch):
    def fail():
        raise UserError(f"no OpenGL (egl: none); on Debian, as root: {worlds.OPENGL_COMMAND} (or libosmesa6)")

    monkeypatch.setattr(worlds, "find_backend", fail)
    row = told(capsys)["MuJoCo pixels"]
    assert (row["missing"], row["install"]) == ("no OpenGL (egl: none)", worlds.OPENGL_COMMAND)

    def forbidden():
        raise UserError("MUJOCO_GL=disable draws no pictures")

    monkeypatch.setattr(worlds, "find_backend", forbidden)
    assert told(capsys)["MuJoCo pixels"]["install"] == "unset MUJOCO_GL"


def test_a_mujoco_gl_that_dm_control_dies_of_is_told(packages, capsys, monkeypatch):
    monkeypatch.delenv("ASYNCRL_MUJOCO_GL", raising=False)
    for wanted, missing in (("foo", "MUJOCO_GL=foo is set, which dm_control does not know"), ("off", ""), ("glfw", "")):
        monkeypatch.setenv("MUJOCO_GL", wanted)
        row = told(capsys)["dm_control"]
        assert row["missing"] == missing
        assert row["installed"] or row["install"] == "unset MUJOCO_GL"


@pytest.mark.parametrize(
    ("complaint", "built", "compiler", "headers", "missing", "install"),
    [
        ("", True, None, False, "", None),
        ("", False, "g++", True, "", None),
        (
            "",
            False,
            None,
            True,
            "there is no g++ to build its host with",
            "apt-get .* torcs .* && .*python.* -m asyncrl",
        ),
        ("", False, "g++", False, "there is no EGL/egl.h to build its host with", "apt-get .* libegl-dev"),
        ("", False, None, False, "there is no g++ and no EGL/egl.h to build its host with", "apt-get .* libegl-dev"),
        (
            "TORCS is not installed: APT",
            False,
            "g++",
            True,
            "Debian's package torcs is not installed",
            "apt-get .* torcs",
        ),
        ("needs Linux on amd64", False, "g++", True, "needs Linux on amd64", "^$"),
    ],
)
def test_torcs(packages, capsys, monkeypatch, tmp_path, complaint, built, compiler, headers, missing, install):
    def check():
        if complaint:
            raise UserError(complaint.replace("APT", worlds.TORCS_COMMAND))
        return "1.3.7+dfsg-5"

    monkeypatch.setattr(worlds, "check_installed", check)
    monkeypatch.setattr(worlds, "host_path", lambda: tmp_path if built else tmp_path / "none")
    monkeypatch.setattr(worlds.shutil, "which", lambda _: compiler)
    monkeypatch.setattr(worlds, "INCLUDE", tmp_path)
    (tmp_path / "GL").mkdir()
    (tmp_path / "GL" / "gl.h").touch()
    if headers:
        (tmp_path / "EGL").mkdir()
        (tmp_path / "EGL" / "egl.h").touch()
    row = told(capsys)["TORCS"]
    assert row["missing"] == missing and row["installed"] == (not missing)
    if install is not None:
        assert re.search(install, row["install"])
    elif not built:
        assert f"{python_command()} -m asyncrl.envs.torcs" in row["found"]


def test_people_get_a_line_a_world_and_the_command_below(packages, capsys):
    del packages["vizdoom"]
    assert main(["envs"]) == 0
    text = capsys.readouterr().out
    assert "MuJoCo        installed  HalfCheetah-v5 and 10 more (mujoco 3.17.0)\n" in text
    missing = text[text.index("Labyrinth") :].splitlines()[:3]
    assert missing[0] == "Labyrinth     missing    asyncrl/Labyrinth-v0"
    assert [line.strip() for line in missing[1:]] == ["vizdoom is not installed", install_command("labyrinth")]


@pytest.mark.parametrize("page", ["README.md", "docs/continuous.md", "docs/labyrinth.md", "docs/torcs.md"])
def test_every_id_in_the_documents_exists(page):
    text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    ids = set(re.findall(r"\b(?:asyncrl|dm_control)/[\w-]+-v\d+", text)) | set(re.findall(r"`(\w+-v5)`", text))
    assert ids and ids <= {*our_worlds(), *gymnasium.registry}


def test_packages_are_installed_beside_the_python_that_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert install_command("all") == f"{tmp_path}/python -m pip install 'asyncrl[all]'"
    (tmp_path / "pip").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_command("all") == "pip install 'asyncrl[all]'"
