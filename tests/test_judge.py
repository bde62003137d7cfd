"""`benchmarks/judge.py` and `time_to_score.py`: a peer's written policy plays as a network of ours, and when."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gymnasium import spaces


class Logits(torch.nn.Module):
    """Prefers the action that the first pixel says."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(observations[:, 0, 0, 0].long(), 6) * 9.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript, which peers of all versions can write
def test_a_written_policy_is_a_network_of_ours(from_benchmarks, tmp_path):
    torch.jit.script(Logits()).save(str(tmp_path / "policy.pt"))

    class Envs:
        action_space = spaces.Discrete(6)

    network = from_benchmarks("judge").Scripted(tmp_path / "policy.pt", Envs())
    observations = torch.zeros(3, 2, 4, 84, 84, dtype=torch.uint8)
    observations[1, 1] = 5
    outputs, state = network(observations, torch.zeros(3, 2, dtype=torch.bool), network.initial_state(2))
    assert outputs.policy.mode().tolist() == [[0, 0], [0, 5], [0, 0]]
    assert outputs.values.shape == (3, 2) and state == ()


WRITER = """
import itertools, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
for steps in itertools.count():
    time.sleep(0.01)
    if (folder / "wanted").exists():
        (folder / "wanted").unlink()
        (folder / f"{steps}.pt").touch()
    if steps == int(sys.argv[2]):
        break
"""


@pytest.fixture
def look(from_benchmarks, monkeypatch, tmp_path):
    """Return what looks three times at a writer of policies; each look takes longer than the time between two."""
    module = from_benchmarks("time_to_score")

    def look(last_step=-1, **changes):
        args = module.Arguments(**{"cap": 0.5, "every": 0.2, "score": 9.0, **changes})
        judged = []

        def judge(path, env, *, episodes, fires, seed):
            time.sleep(0.3)
            # Stopped, unless that was the last thing it did.
            assert path.exists() and state_of(process) in ("T" if last_step < 0 else "TZ")
            judged.append(int(path.stem))
            return {"score": float(len(judged)), "deviation": 0.0, "episodes": episodes}

        monkeypatch.setattr(module, "judge", judge)
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(last_step)]
        with module.running(command, {}) as process:
            found, ended = module.judged(process, tmp_path, module.LEARNERS["sb3-a2c"], args, time.monotonic())
        assert [e["steps"] for e in found] == judged == sorted(set(judged))
        assert all(0 <= e["foreign_load"] < math.inf for e in found)  # of a tenth of a second it may be anything
        return [e["score"] for e in found], ended

    return look


def state_of(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_peer_is_judged_at_every_look_however_long_judging_takes(look):
    assert look() == ([1.0, 2.0, 3.0], "cap")  # after 0.2, 0.4 and 0.5 s of training


def test_a_peer_is_judged_until_it_reaches_the_score(look):
    assert look(score=2.0) == ([1.0, 2.0], "score")


def test_of_a_training_that_ends_by_itself_what_was_seen_counts(look):
    scores, ended = look(last_step=200, every=0.1, cap=1000.0, score=1e9)  # thousands of looks were planned
    assert scores and ended == "exit code 0"


def test_foreign_load_is_what_others_use(from_benchmarks):
    """What a process in a session of its own uses is foreign to another such process, and not to itself."""
    module = from_benchmarks("meter")
    commands = ("while True: pass", "import time; time.sleep(600)")
    busy, idle = (subprocess.Popen([sys.executable, "-c", code], start_new_session=True) for code in commands)
    try:
        time.sleep(0.5)  # both have begun
        loads = [module.ForeignLoad(process.pid) for process in (busy, idle)]
        time.sleep(1)
        for load in loads:
            load.end()
        own, foreign = (load.take() for load in loads)
    finally:
        for process in (busy, idle):
            process.kill()
            process.wait()
    used = len(os.sched_getaffinity(0)) * (foreign - own)  # cores: one, unless others want it too
    assert 0.05 < used < 1.2
    assert loads[0].take() == 0.0  # nothing since
