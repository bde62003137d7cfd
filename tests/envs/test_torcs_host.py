"""The TORCS host as a process: what happens when it dies, hangs or leaks, and what is left behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from asyncrl.envs.torcs import HostError, TorcsEnv, build_host
from asyncrl.envs.torcs import build as build_module
from asyncrl.envs.torcs.process import Host
from asyncrl.errors import UserError
from asyncrl.machine import cache_folder

try:
    build_host()
    missing = ""
except UserError as error:
    missing = str(error)
pytestmark = [pytest.mark.torcs, pytest.mark.skipif(bool(missing), reason=missing or "TORCS is there")]

GO = 3
SOURCE = Path(build_module.__file__).parents[3]


@pytest.fixture
def env():
    env = TorcsEnv(observation="state")
    yield env
    env.close()


def gone(pid, seconds=5.0):
    """Return whether the process ends within the time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("blow", "words"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSTOP, "did not answer within 0.5 sec")]
)
def test_a_lost_host_truncates_and_the_next_episode_is_as_ever(env, blow, words):
    first, _ = env.reset(seed=7)
    env.step(GO)
    pid = env._host.pid
    os.kill(pid, blow)
    env._host.timeout_seconds = 0.5
    observation, reward, terminated, truncated, info = env.step(GO)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["host_restarted"] and info["ended_by"] == "host" and words in info["host_error"]
    assert env.observation_space.contains(observation) and gone(pid)
    again, info = env.reset(seed=7)
    assert np.array_equal(first, again) and "host_restarted" not in info
    assert not env.step(GO)[3]


def test_a_host_lost_at_the_reset_is_replaced_at_once(env):
    first, _ = env.reset(seed=7)
    os.kill(env._host.pid, signal.SIGKILL)
    assert np.array_equal(first, env.reset(seed=7)[0])


def test_a_host_lost_while_rendering_is_reported_by_the_next_step():
    env = TorcsEnv(render_mode="rgb_array")
    try:
        env.reset(seed=7)
        os.kill(env._host.pid, signal.SIGSTOP)
        env._host.timeout_seconds = 0.5
        assert not env.render().any()
        assert env.step(GO)[4]["host_restarted"]
        env.reset(seed=7)
        assert env.render().any()
    finally:
        env.close()


def test_a_lost_host_shows_black_until_the_next_reset():
    env = TorcsEnv(render_mode="rgb_array")
    try:
        env.reset(seed=7)
        os.kill(env._host.pid, signal.SIGKILL)
        assert env.step(GO)[4]["host_restarted"]
        assert env.render().shape == (336, 336, 3) and not env.render().any()
    finally:
        env.close()


def test_an_interrupted_step_never_shifts_the_replies(env):
    first, _ = env.reset(seed=7)

    def interrupt(*_):
        raise KeyboardInterrupt

    before, left = signal.signal(signal.SIGALRM, interrupt), signal.getitimer(signal.ITIMER_REAL)  # pytest-timeout's
    try:
        os.kill(env._host.pid, signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            env.step(GO)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)
    again, info = env.reset(seed=7)
    assert np.array_equal(first, again) and info["seconds"] == 0.0


def test_a_host_that_keeps_dying_is_given_up(env):
    with pytest.raises(HostError, match="gave up after 3 restarts of TORCS: the TORCS host was killed by SIGKILL"):
        for _ in range(5):
            env.reset(seed=1)
            os.kill(env._host.pid, signal.SIGKILL)
            env.step(GO)
    env.reset(seed=1)  # and can be tried again


def test_a_host_that_cannot_start_shows_its_last_words():
    with pytest.raises(
        HostError, match=r"ended with code 5; its last words:\n(.*\n)*.*track road/nowhere .* makes no sense"
    ):
        Host("road/nowhere", "p406", graphics=False)


def test_nothing_is_left_behind():
    gc.collect()  # of other tests
    before, files = open_files(), set(cache_folder("torcs").iterdir())
    pids = []
    for _ in range(3):
        env = TorcsEnv()
        env.reset(seed=0)
        pids.append(env._host.pid)
        env.close()
        env.close()
    assert all(gone(pid, 0.2) for pid in pids) and open_files() == before
    assert set(cache_folder("torcs").iterdir()) == files


def test_a_forgotten_environment_ends_its_host():
    env = TorcsEnv(observation="state")
    env.reset(seed=0)
    pid = env._host.pid
    del env
    assert gone(pid)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_host_does_not_outlive_a_killed_python(stopped):
    code = "from asyncrl.envs.torcs import TorcsEnv; e = TorcsEnv(); e.reset(); print(e._host.pid, flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as python:
        host = int(python.stdout.readline())
        if stopped:
            os.kill(host, signal.SIGSTOP)
        python.kill()
    assert gone(host)


def test_host_survives_the_thread_that_started_it():
    import threading

    env = TorcsEnv(observation="state")
    thread = threading.Thread(target=env.reset)
    thread.start()
    thread.join()
    time.sleep(0.2)
    try:
        assert not env.step(GO)[3]
    finally:
        env.close()


def test_several_at_once_do_not_meet():
    envs = [TorcsEnv(observation="state", track=track) for track in ("e-track-5", "g-track-1", "dirt-1")]
    try:
        for env in envs:
            env.reset(seed=0)
        ends = [[env.step(GO)[4]["distance"] for env in envs] for _ in range(20)][-1]
        assert len({env._host.pid for env in envs}) == 3 and len(set(ends)) == 3
    finally:
        for env in envs:
            env.close()


@pytest.mark.parametrize("options", [{}, {"opponents": 4, "observation": "state"}], ids=["pixels", "opponents"])
@pytest.mark.timeout(900)
def test_memory_stays_over_many_resets(options):
    env = TorcsEnv(**options)
    try:
        sizes = []
        for episode in range(300):
            env.reset(seed=episode)
            env.step(GO)
            sizes.append(env._host.resident_bytes() >> 20)
        assert sizes[-1] - sizes[20] < 12  # MB; four robots lose 6
    finally:
        env.close()


def test_a_grown_host_is_replaced_at_a_reset(env, monkeypatch):
    env.reset(seed=3)
    pid, first = env._host.pid, env.car
    monkeypatch.setattr("asyncrl.envs.torcs.env._HOST_GROWTH_BYTES", -1)
    env.reset(seed=3)
    assert env._host.pid != pid and env.car == first and gone(pid)


def test_the_host_writes_no_files(tmp_path):
    code = "from asyncrl.envs.torcs import TorcsEnv; e = TorcsEnv(); e.reset(seed=0); e.step(3); e.step(3); e.close()"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "HOME": str(tmp_path), "XDG_CACHE_HOME": cache}
    environment |= {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


def test_build_is_cached_and_forced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = build_host()
    stamp = path.stat().st_mtime_ns
    assert build_host() == path and path.stat().st_mtime_ns == stamp
    assert build_host(force=True) == path and path.stat().st_mtime_ns > stamp
    assert sorted(file.name for file in path.parent.iterdir()) == ["lock", path.name]
