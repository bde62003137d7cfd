"""The synchronous twin: its gradient is the mean of what synchronous workers would compute on the same data."""

import dataclasses

import pytest
import torch

from asyncrl.a2c import batched
from asyncrl.algorithms import ALGORITHMS
from asyncrl.config import Config
from asyncrl.errors import UserError
from asyncrl.flat import flat_gradient
from asyncrl.rollout import Rollout, collect_rollout
from asyncrl.worker import Learner, compute_update


@pytest.mark.parametrize("core", ["ff", "lstm"])
def test_its_gradient_is_the_mean_of_those_of_synchronous_workers(core: str) -> None:
    config = Config(env="asyncrl/Catch-v0", core=core, workers=3, envs_per_worker=2, t_max=12, algo="a3c")  # type: ignore[arg-type]
    gradients, rollouts = [], []
    for worker in range(3):
        acting, learning = Learner(config, worker), Learner(config, worker)  # twins: the same seeds, the same data
        rollouts.append(collect_rollout(config, acting.state, acting.act, acting.value, False))
        gradients.append(compute_update(learning).gradient)
    whole = batched(dataclasses.replace(config, algo="a2c"))
    assert (whole.workers, whole.envs_per_worker) == (1, 6)
    loss, _ = ALGORITHMS["a2c"].loss(acting.network, None, joined(rollouts), whole, 0.0)
    expected = torch.stack(gradients).mean(0)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(flat_gradient(loss, acting.network), expected, atol=1e-5, rtol=1e-5)


def joined(rollouts: list[Rollout]) -> Rollout:
    names = ("observations", "actions", "rewards", "discounts", "cut_values", "resets")
    tensors = {name: torch.cat([getattr(rollout, name) for rollout in rollouts], 1) for name in names}
    state = tuple(torch.cat(parts) for parts in zip(*(rollout.core_state for rollout in rollouts), strict=True))
    return Rollout(**tensors, core_state=state, next_actions=None)


def test_a_missing_gpu_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no GPU here"):
        batched(Config(algo="a2c", device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("core", ["ff", "lstm"])
def test_the_gradient_on_a_gpu_is_that_on_the_cpu(core: str) -> None:
    settings = {"env": "asyncrl/Catch-v0", "core": core, "algo": "a2c", "t_max": 1}
    cpu, gpu = (Learner(Config(**settings, device=device), 0) for device in ("cpu", "cuda"))
    torch.testing.assert_close(compute_update(cpu).gradient, compute_update(gpu).gradient, atol=1e-5, rtol=1e-4)
