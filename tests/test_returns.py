"""Returns against forward-view loops, over random terminals, truncations and lives lost."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import GO, TRUNCATED, lambda_return, n_step_return

from asyncrl.returns import lambda_returns, n_step_returns, one_step_targets

GAMMA = 0.9


class Case:
    """Random rewards, events and values, and the discounts and cut values that follow from them."""

    def __init__(self, batch: int, steps: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rewards, self.finals = rng.normal(size=(2, steps, batch))
        self.values = rng.normal(size=(steps + 1, batch))
        self.events = rng.choice(4, p=[0.6, 0.15, 0.15, 0.1], size=(steps, batch))
        self.discounts = np.where(self.events == GO, GAMMA, 0.0)
        self.cut_values = np.where(self.events == TRUNCATED, GAMMA * self.finals, 0.0)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [torch.from_numpy(x) for x in (self.rewards, self.discounts, self.cut_values)]

    def each(self, value: object) -> np.ndarray:
        """Return value(t, b) for all t and b."""
        steps, batch = self.rewards.shape
        return np.array([[value(t, b) for b in range(batch)] for t in range(steps)])  # type: ignore[operator]

    def until_the_end(self, t: int, b: int) -> float:
        """Walk from t to what ended the episode, as a reader of the paper would, knowing nothing of cut values."""
        total, weight = 0.0, 1.0
        for i in range(t, len(self.rewards)):
            total += weight * self.rewards[i, b]
            weight *= GAMMA
            if self.events[i, b] == TRUNCATED:
                return total + weight * self.finals[i, b]
            if self.events[i, b] != GO:
                return total
        return total + weight * self.values[-1, b]


cases = st.builds(Case, st.sampled_from([1, 4]), st.integers(1, 12), st.integers(0, 2**32 - 1))


@given(cases)
def test_n_step_returns_are_discounted_sums_up_to_what_ended_the_episode(case: Case) -> None:
    returns = n_step_returns(*case.tensors, torch.from_numpy(case.values[-1]))
    np.testing.assert_allclose(returns, case.each(case.until_the_end), rtol=1e-12, atol=1e-12)


@given(cases, st.floats(0, 1))
def test_lambda_returns_are_mixtures_of_n_step_returns(case: Case, lambda_: float) -> None:
    values = torch.from_numpy(case.values)
    returns = lambda_returns(*case.tensors, values[:-1], values[-1], lambda_)
    slow = case.each(
        lambda t, b: lambda_return(case.rewards, case.discounts, case.cut_values, case.values, lambda_, t, b)
    )
    np.testing.assert_allclose(returns, slow, rtol=1e-10, atol=1e-10)


@given(cases)
def test_lambda_one_is_n_step_and_lambda_zero_is_one_step(case: Case) -> None:
    values = torch.from_numpy(case.values)
    full = lambda_returns(*case.tensors, values[:-1], values[-1], 1.0)
    short = lambda_returns(*case.tensors, values[:-1], values[-1], 0.0)
    torch.testing.assert_close(full, n_step_returns(*case.tensors, values[-1]))
    torch.testing.assert_close(short, one_step_targets(*case.tensors, values[1:]))


@given(cases)
def test_one_step_targets_are_one_step_returns(case: Case) -> None:
    targets = one_step_targets(*case.tensors, torch.from_numpy(case.values[1:]))
    slow = case.each(
        lambda t, b: n_step_return(case.rewards[: t + 1], case.discounts, case.cut_values, case.values[t + 1], t, b)
    )
    np.testing.assert_allclose(targets, slow, rtol=1e-12, atol=1e-12)


@given(cases)
def test_nothing_leaks_over_the_end_of_an_episode(case: Case) -> None:
    ends = np.argwhere(case.events != GO)
    if len(ends) == 0:
        return
    t, b = ends[0]
    before = n_step_returns(*case.tensors, torch.from_numpy(case.values[-1]))
    case.rewards[t + 1 :, b] += 100
    case.values[-1, b] += 100
    after = n_step_returns(*case.tensors, torch.from_numpy(case.values[-1]))
    assert torch.equal(before[: t + 1, b], after[: t + 1, b])


def test_a_hand_made_table() -> None:
    """Steps: go, terminal, go, truncated (worth 10), go; bootstrap 100; gamma 1/2."""
    rewards = torch.tensor([1.0, 2, 3, 4, 5])[:, None]
    discounts = torch.tensor([0.5, 0, 0.5, 0, 0.5])[:, None]
    cut_values = torch.tensor([0.0, 0, 0, 5, 0])[:, None]
    returns = n_step_returns(rewards, discounts, cut_values, torch.tensor([100.0]))
    assert returns.squeeze(1).tolist() == [2, 2, 7.5, 9, 55]


def test_a_batch_axis_mistaken_for_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \[T, B\]"):
        n_step_returns(torch.zeros(5, 2), torch.zeros(5, 2), torch.zeros(5, 2), torch.zeros(5))
    with pytest.raises(ValueError, match=r"must be \[T, B\]"):
        n_step_returns(torch.zeros(5, 2), torch.zeros(2, 5), torch.zeros(5, 2), torch.zeros(2))
