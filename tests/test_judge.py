"""`benchmarks/judge.py` and `time_to_score.py`: a peer's written policy plays as a network of ours, and when."""

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
for steps in itertools.count(1):
    pathlib.Path(sys.argv[1], f"{steps}.pt").touch()
    time.sleep(0.02)
"""


@pytest.fixture
def looks(from_benchmarks, monkeypatch, tmp_path):
    """Return what judges a writer of policies for 0.6 s, every 0.2 s, until a score; a look takes longer than that."""
    module = from_benchmarks("time_to_score")
    judged = []

    def judge(path, env, *, episodes, fires, seed):
        judged.append(int(path.stem))
        time.sleep(0.3)
        assert path.exists() and state_of(process) == "T"
        return {"score": float(len(judged)), "deviation": 0.0, "episodes": episodes}

    monkeypatch.setattr(module, "judge", judge)
    args = module.Arguments(cap=0.6, every=0.2, score=9.0)
    with module.running([sys.executable, "-c", WRITER, str(tmp_path)], {}) as process:

        def look(**changes):
            learner = module.LEARNERS["sb3-a2c"]
            now = module.Arguments(**{**vars(args), **changes})
            return judged, list(module.judged(process, tmp_path, learner, now, time.monotonic()))

        yield look


def state_of(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_peer_is_judged_at_every_look_however_long_judging_takes(looks):
    judged, evaluations = looks()
    assert [e["score"] for e in evaluations] == [1.0, 2.0, 3.0]  # at 0.2, 0.4 and 0.6 s of training
    assert [e["steps"] for e in evaluations] == judged == sorted(set(judged))
    seconds = [e["seconds"] for e in evaluations]
    assert seconds == sorted(seconds)


def test_a_peer_is_judged_until_it_reaches_the_score(looks):
    assert [e["score"] for e in looks(score=2.0)[1]] == [1.0, 2.0]
