"""Statistics of observations: exact sums, no half of a change, frozen between pulls, kept by checkpoints."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from worlds import Picture

from asyncrl.checkpoint import input_statistics, load_checkpoint, restore_network, save_checkpoint
from asyncrl.config import Config
from asyncrl.envs.vector import GymnasiumEnvironments
from asyncrl.errors import UserError
from asyncrl.flat import flatten_parameters_
from asyncrl.inputs import InputStatistics, SharedSums, statistics_of, sums_of
from asyncrl.networks import make_network, set_input_statistics_
from asyncrl.spaces_json import encode_space
from asyncrl.start import ENOUGH_STEPS, RANDOM_STEPS, fresh_start, measure_inputs, restored_start
from asyncrl.store import ParameterStore, StoreSpec
from asyncrl.worker import Learner, compute_update

T, B, D, W = 5, 4, 3, 3
CARTPOLE = Config(env="CartPole-v1", workers=2, envs_per_worker=2, t_max=7, standardize_inputs=True)


def shared(width: int = D) -> SharedSums:
    return SharedSums(np.zeros((W + 1, 2, 1 + 2 * width)), np.zeros((W + 1, 8), np.int64))


def draw(seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(7.0, scale, (T, B, D))


def test_merging_is_exact_whoever_saw_what() -> None:
    """Whole numbers, so that sums in float64 have no error at all."""
    seen = [np.rint(draw(i, 50.0)) for i in range(10)]
    sums = shared()
    sums.start_from(sums_of(seen[0]))
    for i, observations in enumerate(seen[1:]):
        sums.add(i % W, sums_of(observations))
    together = np.concatenate(seen).reshape(-1, D)
    wanted = np.concatenate([[len(together)], together.sum(0), (together**2).sum(0)])
    np.testing.assert_array_equal(sums.merged(), wanted)
    statistics = statistics_of(sums.merged())
    np.testing.assert_allclose(statistics.mean, together.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.deviation, together.std(0), rtol=1e-6)


def test_nothing_seen_and_nothing_changed() -> None:
    nothing = statistics_of(shared().merged())
    assert (nothing.mean == 0).all() and (nothing.deviation == 1).all()
    constant = statistics_of(sums_of(np.full((T, B, D), 1e3)))
    assert (constant.mean == 1e3).all() and (constant.deviation > 0).all() and (constant.deviation < 0.01).all()


def test_half_of_a_change_is_never_read() -> None:
    sums = shared()
    sums.add(0, sums_of(draw(0)))
    before = sums.merged()
    sums._rows[0, (sums._counters[0, 0] + 1) % 2, : 1 + D] = 999.0  # its worker was killed while writing
    np.testing.assert_array_equal(sums.merged(), before)
    sums.add(0, sums_of(draw(1)))
    np.testing.assert_allclose(sums.merged(), before + sums_of(draw(1)))


def test_a_reader_overtaken_by_a_writer_reads_again() -> None:
    writer = shared()
    writer.add(1, np.ones(1 + 2 * D))

    class Overtaking:
        """Lets the writer go on twice within the first read of row 1, so that what is read gets overwritten."""

        left = 1

        def __len__(self) -> int:
            return W + 1

        def __getitem__(self, key: tuple) -> np.ndarray:
            torn = writer._rows[key].copy()
            if key[0] == 1 and self.left:
                self.left = 0
                for _ in range(2):
                    writer.add(1, np.ones(1 + 2 * D))
                torn[:D] = -5.0
            return torn

    reader = SharedSums(Overtaking(), writer._counters)  # type: ignore[arg-type]
    assert (reader.merged() == 3).all()


def test_random_play_measures_each_number_of_a_vector() -> None:
    start = fresh_start(CARTPOLE)
    assert start.statistics is not None and start.sums is not None
    assert start.sums[0] == RANDOM_STEPS
    assert start.statistics.mean.shape == start.statistics.deviation.shape == (4,)
    np.testing.assert_array_equal(start.network.trunk.inputs.mean.numpy(), start.statistics.mean)


class Black(Picture):
    """All black."""

    def _observe(self):
        return np.zeros(self.observation_space.shape, np.uint8)


def test_images_are_measured_once_with_one_deviation_for_all() -> None:
    envs = GymnasiumEnvironments(lambda: Picture((1, 12, 12)), 2)
    statistics, sums = measure_inputs(envs, seed=0, steps=RANDOM_STEPS)
    assert sums is None
    assert statistics.mean.shape == (1, 12, 12) and statistics.deviation.shape == ()
    # Bytes drawn uniformly: mean 127.5, deviation 73.9.
    assert statistics.mean.mean() == pytest.approx(127.5, abs=2)
    assert float(statistics.deviation) == pytest.approx(73.9, abs=1)


def test_no_more_environments_are_built_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[None] = []

    def make() -> Picture:
        built.append(None)
        return Picture((1, 12, 12))

    config = dataclasses.replace(CARTPOLE, env=make, workers=1, envs_per_worker=1)  # type: ignore[arg-type]
    fresh_start(config)
    assert len(built) == 1
    monkeypatch.setattr("asyncrl.start.PATIENCE_SECONDS", 0.0)
    start = fresh_start(dataclasses.replace(CARTPOLE, envs_per_worker=1))
    assert start.sums is not None and start.sums[0] == ENOUGH_STEPS  # a slow world is not played for longer


def test_what_is_black_in_random_play_is_not_blown_up() -> None:
    envs = GymnasiumEnvironments(lambda: Black((1, 12, 12)), 2)
    assert measure_inputs(envs, seed=0, steps=10)[0].deviation == 1.0


def make_store(config: Config, learner: Learner, num_inputs: int = 4) -> ParameterStore:
    store = ParameterStore(StoreSpec.of(config, learner.snapshot.numel(), num_inputs), config)
    store.theta.copy_(learner.snapshot)
    return store


@pytest.mark.parametrize("algo", ["a3c", "one-step-q"])
def test_statistics_change_at_a_pull_and_nowhere_else(algo: str) -> None:
    config = dataclasses.replace(CARTPOLE, algo=algo)
    start = fresh_start(config)
    learners = [Learner(config, worker, statistics=start.statistics) for worker in range(2)]
    store = make_store(config, learners[0])
    assert store.inputs is not None and start.sums is not None
    store.inputs.start_from(start.sums)
    seen, total = [], start.sums.copy()
    for worker in (0, 1, 0):
        learner = learners[worker]
        pulled = learner.pull(store)
        frozen = learner.network.trunk.inputs.mean.clone()
        np.testing.assert_array_equal(frozen.numpy(), statistics_of(total).mean)
        if learner.target is not None:
            assert torch.equal(learner.target.trunk.inputs.mean, frozen)
        update = compute_update(learner)
        store.apply(1 - worker, dataclasses.replace(update, inputs=None), pulled)  # another's push in between
        assert torch.equal(learner.network.trunk.inputs.mean, frozen)
        store.apply(worker, update, pulled)
        assert update.inputs is not None and update.inputs[0] == update.steps
        total = total + update.inputs
        seen.append(frozen)
        np.testing.assert_allclose(store.inputs.merged(), total, rtol=1e-12)
    assert not torch.equal(seen[0], seen[1])
    for learner in learners:
        learner.close()


def test_inputs_are_centred_scaled_and_clipped() -> None:
    config = Config(standardize_inputs=True)
    space = spaces.Box(-np.inf, np.inf, (D,), np.float64)
    statistics = statistics_of(sums_of(draw(0)))
    network = make_network(config, space, spaces.Discrete(2), statistics)
    observations = torch.from_numpy(draw(1).reshape(-1, D))
    observations[0, 0] = 1e9
    inputs = network.trunk.inputs(observations).numpy()
    assert inputs[0, 0] == 10
    wanted = (observations.numpy() - statistics.mean) / statistics.deviation
    np.testing.assert_allclose(inputs.ravel()[1:], wanted.ravel()[1:], rtol=1e-3, atol=1e-5)


def test_a_checkpoint_carries_statistics_and_sums(tmp_path: Path) -> None:
    start = fresh_start(CARTPOLE)
    learner = Learner(CARTPOLE, 0, statistics=start.statistics)
    store = make_store(CARTPOLE, learner)
    assert store.inputs is not None
    store.inputs.add(0, sums_of(np.random.default_rng(0).normal(3, 2, (9, 2, 4))))
    store.inputs.add(1, sums_of(np.random.default_rng(1).normal(3, 2, (9, 2, 4))))
    network = start.network
    flatten_parameters_(network)
    set_input_statistics_(network, statistics_of(store.inputs.merged()))
    described = {name: encode_space(s) for name, s in zip(("observation", "action"), start.spaces, strict=True)}
    state = {"frames": 5, "seconds": 1.0, "env": CARTPOLE.env, "spaces": described, "generation": 0}
    state |= {"counters": store.counters.tolist(), "best_score": None, "evaluation": None}
    path = save_checkpoint(tmp_path, store, network, state)
    checkpoint = load_checkpoint(path)
    np.testing.assert_array_equal(checkpoint.optimizer["input_sums"].numpy(), store.inputs.merged())
    restored = restore_network(CARTPOLE, checkpoint)
    observations = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    no_resets = torch.zeros(3, 2, dtype=torch.bool)
    torch.testing.assert_close(restored(observations, no_resets, ())[0], network(observations, no_resets, ())[0])
    learner.close()


def saved(tmp_path: Path, config: Config, space: spaces.Box, statistics: InputStatistics | None) -> tuple:
    """Return a network, and the checkpoint that a training of it would leave."""
    network = make_network(config, space, spaces.Discrete(2), statistics)
    store = ParameterStore(StoreSpec.of(config, flatten_parameters_(network).numel()), config)
    described = {"observation": encode_space(space), "action": encode_space(spaces.Discrete(2))}
    state = {"frames": 5, "seconds": 1.0, "env": config.env, "spaces": described, "generation": 0}
    state |= {"counters": store.counters.tolist(), "best_score": None, "evaluation": None}
    return network, load_checkpoint(save_checkpoint(tmp_path, store, network, state))


@pytest.mark.parametrize(
    "sums",
    [torch.zeros(7), torch.tensor(1.0), torch.zeros(9), torch.zeros(8).double(), -torch.ones(9).double()],
    ids=str,
)
def test_sums_of_other_observations_are_refused(tmp_path: Path, sums: torch.Tensor) -> None:
    start = fresh_start(CARTPOLE)
    space = start.spaces[0]
    assert isinstance(space, spaces.Box)
    _, checkpoint = saved(tmp_path, CARTPOLE, space, start.statistics)
    checkpoint.optimizer["input_sums"] = sums
    with pytest.raises(UserError, match="its input_sums are not those of its observations"):
        restored_start(CARTPOLE, checkpoint)
    checkpoint.parameters["trunk.inputs.mean"] = torch.zeros(7)
    with pytest.raises(UserError, match="its inputs are not those of its observations"):
        restore_network(CARTPOLE, checkpoint)


def test_a_resumed_worker_has_the_saved_network_to_the_last_bit(tmp_path: Path) -> None:
    config, space = Config(standardize_inputs=True), spaces.Box(0, 255, (1, 12, 12), np.uint8)
    for deviation in np.random.default_rng(0).uniform(1e-3, 100, 200).astype(np.float32):
        statistics = InputStatistics(np.float32(7) + np.zeros(space.shape, np.float32), np.array(deviation))
        network, checkpoint = saved(tmp_path, config, space, statistics)
        resumed = make_network(config, space, spaces.Discrete(2), input_statistics(config, checkpoint))
        assert torch.equal(resumed.trunk.inputs.mean, network.trunk.inputs.mean)
        assert torch.equal(resumed.trunk.inputs.scale, network.trunk.inputs.scale)


def test_inputs_that_are_left_alone_stay_so_after_a_resume(tmp_path: Path) -> None:
    config, space = Config(standardize_inputs=False), spaces.Box(-np.inf, np.inf, (D,), np.float32)
    network, checkpoint = saved(tmp_path, config, space, None)
    observations = 1e3 * torch.ones(1, 1, D)  # beyond what standardised vectors are clipped to
    no_resets = torch.zeros(1, 1, dtype=torch.bool)
    for resumed in (
        restore_network(config, checkpoint),
        make_network(config, space, spaces.Discrete(2), input_statistics(config, checkpoint)),
    ):
        resumed.load_state_dict(network.state_dict())
        ours, theirs = (net(observations, no_resets, ())[0].values for net in (resumed, network))
        assert torch.equal(ours, theirs)
