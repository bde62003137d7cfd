"""`benchmarks/judge.py`: a peer's written policy plays as a network of ours."""

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
