"""What the labyrinth leaves behind, and what it says when something fails: on the real engine."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("vizdoom", reason="ViZDoom is not installed: pip install 'asyncrl[labyrinth]'")

from asyncrl.envs.labyrinth import EngineError, LabyrinthEnv, MazeError, engine, launch, wad
from asyncrl.machine import descendants, end_at_once

FORWARD = 0
SOURCE = Path(launch.__file__).parents[3]


def list_traces():
    """List the engines of this process, the folders of engines, and what they share in memory."""
    shared = Path("/dev/shm")
    mine = list(shared.glob("ViZDoom*")) if shared.exists() else []
    return {*find_engines(os.getpid()), *mine, *Path(tempfile.gettempdir()).glob("asyncrl-labyrinth-*")}


def find_engines(pid):
    """Return the processes named vizdoom below `pid`."""
    found, parents = set(), {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        parents[int(stat.parent.name)] = (int(rest[1]), name, rest[0])
    for child, (parent, name, state) in parents.items():
        while parent in parents and parent != pid:
            parent = parents[parent][0]
        if parent == pid and name.startswith("vizdoom") and state != "Z":
            found.add(child)
    return found


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_closing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list_traces()
    env = LabyrinthEnv(size=7, apples=1)
    env.reset(seed=0)
    env.step(FORWARD)
    assert list_traces() - before
    env.close()
    env.close()
    assert wait_until(lambda: not list_traces() - before)
    assert list(tmp_path.iterdir()) == []
    env.reset(seed=0)  # a closed environment can be opened again
    env.close()


@pytest.mark.parametrize("ending", ["exit", "kill", "kill all"])
def test_the_end_of_python_leaves_nothing(ending, tmp_path):
    before = list_traces()
    program = (
        "import os, sys\nfrom asyncrl.envs.labyrinth import LabyrinthEnv\n"
        "env = LabyrinthEnv(size=7, apples=1)\nenv.reset(seed=0)\nprint('ready', flush=True)\nsys.stdin.read(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"ready\n"
        assert find_engines(child.pid) and list_traces() - before
        engines = find_engines(child.pid)
        if ending == "kill":
            child.kill()
        elif ending == "kill all":  # as the trainer does
            end_at_once(lambda: [child.pid, *descendants(child.pid)])
        else:
            child.stdin.close()
        child.wait(30)
    assert wait_until(lambda: not list_traces() - before)
    assert wait_until(lambda: not any(is_running(pid) for pid in engines))
    assert list(tmp_path.iterdir()) == []


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_engine_is_reported_and_replaced():
    env = LabyrinthEnv(size=7, apples=1)
    before = find_engines(os.getpid())
    env.reset(seed=0)
    (pid,) = find_engines(os.getpid()) - before
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="exit code 137"):
        for _ in range(5):
            env.step(FORWARD)
    observation, _ = env.reset(seed=0)
    assert observation.std() > 0
    env.close()


def test_ctrl_c_is_left_to_python():
    env = LabyrinthEnv(size=7, apples=1)
    before = find_engines(os.getpid())
    env.reset(seed=0)
    (pid,) = find_engines(os.getpid()) - before
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    for _ in range(5):
        env.step(FORWARD)
    assert find_engines(os.getpid()) - before == {pid} and is_running(pid)  # the same engine plays on
    env.close()


def test_a_faulty_file_is_an_exception_that_quotes_the_engine(monkeypatch):
    monkeypatch.setattr(wad, "DECORATE", wad.DECORATE.replace(b"LAPL A -1 Bright\n", b"LAPL A -1 Bright Stop\n"))
    launch.rehearse.cache_clear()
    env = LabyrinthEnv(size=7, apples=1)
    try:
        with pytest.raises(EngineError, match="Invalid state parameter"):
            env.reset(seed=0)
    finally:
        launch.rehearse.cache_clear()


def test_a_faulty_level_never_reaches_the_engine(monkeypatch):
    env = LabyrinthEnv(size=7, apples=1)
    before = find_engines(os.getpid())
    monkeypatch.setattr(engine, "write_level", lambda maze, textures: "garbage {{{")
    with pytest.raises(MazeError, match="not understood"):
        env.reset(seed=0)
    assert find_engines(os.getpid()) == before
    monkeypatch.undo()
    env.reset(seed=0)
    env.close()


def test_vizdoom_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(ImportError, match=r"pip install 'asyncrl\[labyrinth\]'"):
        LabyrinthEnv().reset(seed=0)


def test_a_folder_where_nothing_may_run_is_named(monkeypatch):
    monkeypatch.setattr(launch.os, "access", lambda path, mode: False)
    with pytest.raises(EngineError, match="TMPDIR"):
        LabyrinthEnv(size=7, apples=1).reset(seed=0)


def test_a_hundred_resets_leak_no_files_or_descriptors():
    gc.collect()  # environments of other tests
    env = LabyrinthEnv(size=7, apples=1)
    env.reset(seed=0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        env.reset()
    assert len(os.listdir("/proc/self/fd")) == before
    env.close()
