"""Epsilon-greedy: who explores, how much, until when."""

import numpy as np
import pytest
import torch

from asyncrl.config import Config
from asyncrl.exploration import annealed_epsilons, draw_final_epsilons, epsilon_greedy

Q = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 1.0]])


def test_final_epsilons_have_the_papers_values_and_frequencies() -> None:
    n, config = 20_000, Config()
    drawn = draw_final_epsilons(n, config.final_epsilons, config.final_epsilon_probabilities, np.random.default_rng(0))
    frequencies = {value: (drawn == value).mean() for value in (0.1, 0.01, 0.5)}
    assert set(drawn) == set(frequencies)
    for value, p in ((0.1, 0.4), (0.01, 0.3), (0.5, 0.3)):
        assert abs(frequencies[value] - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_epsilon_falls_linearly_from_one_and_stays() -> None:
    final = np.array([0.1, 0.5])
    table = {0: (1, 1), 1_000_000: (0.775, 0.875), 4_000_000: (0.1, 0.5), 9_000_000: (0.1, 0.5)}
    for frames, wanted in table.items():
        np.testing.assert_allclose(annealed_epsilons(final, frames, 4_000_000), wanted)


def test_without_frames_to_fall_in_epsilon_is_at_its_end() -> None:
    np.testing.assert_allclose(annealed_epsilons(np.array([0.1]), 0, 0), [0.1])


def test_without_exploration_actions_are_greedy() -> None:
    for seed in range(20):
        assert epsilon_greedy(Q, torch.zeros(2), torch.Generator().manual_seed(seed)).tolist() == [1, 0]


def test_each_environment_explores_by_its_own_epsilon_uniformly() -> None:
    n, generator = 4000, torch.Generator().manual_seed(0)
    drawn = np.array([epsilon_greedy(Q, torch.tensor([0.6, 0.0]), generator).tolist() for _ in range(n)])
    assert (drawn[:, 1] == 0).all()
    frequencies = np.bincount(drawn[:, 0], minlength=3) / n
    for frequency, p in zip(frequencies, (0.2, 0.4 + 0.2, 0.2), strict=True):
        assert frequency == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / n))


def test_the_generator_decides() -> None:
    def actions(seed: int) -> list:
        generator = torch.Generator().manual_seed(seed)
        return [epsilon_greedy(Q, torch.ones(2), generator).tolist() for _ in range(20)]

    assert actions(1) == actions(1) != actions(2)
