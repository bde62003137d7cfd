"""How many cores are ours: the quotas of control groups, of both versions, in containers and nested."""

import os
from pathlib import Path

import pytest

from asyncrl import machine
from asyncrl.machine import available_cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that makes this process a member of groups with these files; there are 64 cores."""
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)

    def make(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = Path(tmp_path / "cgroup" / name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


V1 = "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # a container sees its own group as the top
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),  # more than there are
        ("0::/\n", {}, 64),
        ("0::/a.slice/b.scope\n", {"a.slice/b.scope/cpu.max": "300000 100000\n"}, 3),
        (
            "0::/a.slice/b.scope\n",
            {"a.slice/b.scope/cpu.max": "max 100000\n", "a.slice/cpu.max": "400000 100000\n"},
            4,  # of the group around
        ),
        ("0::/../other\n", {"cpu.max": "500000 100000\n"}, 5),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 64),
        (
            V1,
            {
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "700000\n",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            7,
        ),
        (
            V1.replace("cpu,cpuacct", "cpuacct,cpu"),
            {"cpu/docker/1/cpu.cfs_quota_us": "600000\n", "cpu/docker/1/cpu.cfs_period_us": "100000\n"},
            6,
        ),
        (V1, {"memory/docker/1/cpu.max": "100000 100000\n", "cpu.max": "100000 100000\n"}, 64),  # not of version 1
        ("what is this\n\n0::/\n", {"cpu.max": "twelve\n"}, 64),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 64),
    ],
)
def test_quotas_count(groups, membership, files, cores):
    groups(membership, files)
    assert available_cores() == cores


def test_without_control_groups_the_affinity_counts(groups):
    assert available_cores() == 64
