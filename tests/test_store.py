"""The store: what a push does, what is shared between workers and processes and what is not, and what is counted."""

import dataclasses
import math
import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyncrl.config import Config
from asyncrl.flat import flat_gradient, flatten_parameters_
from asyncrl.rollout import Episode
from asyncrl.store import Counter, ParameterStore, StoreSpec
from asyncrl.worker import Update

P = 5
CONSTANT_RATE = Config(
    workers=2, optimizer="momentum-sgd", decay=0.0, learning_rate=1.0, final_learning_rate_fraction=1.0
)
SHARED = dataclasses.replace(CONSTANT_RATE, optimizer="shared-rmsprop", decay=0.9, optimizer_epsilon=0.1)


def make_store(config: Config, context: object = None, parameters: int = P) -> ParameterStore:
    return ParameterStore(StoreSpec.of(config, parameters), config, context)  # type: ignore[arg-type]


def push(
    store: ParameterStore, worker: int, gradient: float | torch.Tensor, frames: int = 4, pulled: int | None = None
) -> int:
    flat = gradient if isinstance(gradient, torch.Tensor) else torch.full((len(store.theta),), float(gradient))
    pulled = store.total(Counter.UPDATES) if pulled is None else pulled
    return store.apply(worker, Update(flat, frames // 4, frames, {}, []), pulled)


def test_gradients_1_2_3_4_move_theta_by_exactly_those() -> None:
    store = make_store(CONSTANT_RATE)
    moved = []
    for gradient in (1, 2, 3, 4):
        before = store.theta.clone()
        push(store, 0, gradient)
        moved.append((before - store.theta).tolist())
    assert moved == [[g] * P for g in (1, 2, 3, 4)]


def test_gradients_of_a_network_land_once_each() -> None:
    """The aliasing bug of other codes (gradients that accumulate, or repeat the first) would show here."""
    network = torch.nn.Linear(1, 1, bias=False)
    snapshot = flatten_parameters_(network)
    store = make_store(CONSTANT_RATE, parameters=1)
    for gradient in (1.0, 2.0, 3.0, 4.0):
        store.pull(snapshot)
        before = store.theta.item()
        push(store, 0, flat_gradient(network(torch.tensor([[gradient]])).sum(), network))
        assert before - store.theta.item() == gradient
    assert store.theta.item() == -10


def test_rmsprop_through_the_store_has_the_closed_form() -> None:
    store, g, theta = make_store(SHARED), 0.0, 0.0
    for gradient in (1.0, 2.0, 3.0, 4.0):
        push(store, 0, gradient)
        g = 0.9 * g + 0.1 * gradient**2
        theta -= gradient / math.sqrt(g + 0.1)
    np.testing.assert_allclose(store.theta, [theta] * P, rtol=1e-6)
    np.testing.assert_allclose(store.statistics[0, 0], [g] * P, rtol=1e-6)


def test_shared_rmsprop_remembers_the_other_workers_gradients_and_rmsprop_does_not() -> None:
    first, second = 3.0, 1.0
    step = {}
    for optimizer in ("shared-rmsprop", "rmsprop"):
        store = make_store(dataclasses.replace(SHARED, optimizer=optimizer))
        push(store, 0, first)
        before = store.theta.clone()
        push(store, 1, second)
        step[optimizer] = (before - store.theta)[0].item()
    assert step["shared-rmsprop"] == pytest.approx(second / math.sqrt(0.9 * 0.1 * first**2 + 0.1 * second**2 + 0.1))
    assert step["rmsprop"] == pytest.approx(second / math.sqrt(0.1 * second**2 + 0.1))


def test_momentum_and_adam_are_each_workers_own() -> None:
    for optimizer in ("momentum-sgd", "adam"):
        config = dataclasses.replace(CONSTANT_RATE, optimizer=optimizer, decay=0.9, optimizer_epsilon=1e-8)
        alone, together = make_store(config), make_store(config)
        push(together, 0, -7.0)
        before = together.theta.clone()
        push(alone, 1, 2.0)
        push(together, 1, 2.0)
        torch.testing.assert_close(together.theta - before, alone.theta)


@pytest.mark.parametrize(
    ("optimizer", "workers", "power"),
    [("adam", 1, 1), ("adam", 2, 1), ("adam", 4, 2), ("adam", 16, 8), ("shared-adam", 16, 1)],
)
def test_adam_through_the_store_is_torchs(optimizer: str, workers: int, power: int) -> None:
    """Each worker's moments have their own bias correction, and forget as fast with many workers, in updates of all."""
    settings = {
        "workers": workers,
        "optimizer": optimizer,
        "decay": 0.99,
        "optimizer_epsilon": 1e-5,
        "learning_rate": 0.1,
    }
    config = dataclasses.replace(CONSTANT_RATE, update="locked", **settings)
    store = make_store(config)
    owners = store.spec.owners
    theirs = [torch.nn.Parameter(torch.zeros(P)) for _ in range(owners)]
    optimizers = [torch.optim.Adam([p], lr=0.1, betas=(0.9**power, 0.99**power), eps=1e-5) for p in theirs]
    for step, worker in enumerate((0, 0, 0, workers - 1, workers - 1, 0)):
        owner = worker % owners
        gradient = torch.linspace(-1, 2, P) * (step + 1)
        before = store.theta.clone(), theirs[owner].data.clone()
        push(store, worker, gradient)
        theirs[owner].grad = gradient.clone()
        optimizers[owner].step()
        torch.testing.assert_close(store.theta - before[0], theirs[owner].data - before[1], rtol=1e-4, atol=1e-6)


def test_a_pull_copies_and_a_push_leaves_the_snapshot_alone() -> None:
    store, snapshot = make_store(CONSTANT_RATE), torch.empty(P)
    store.theta.copy_(torch.arange(P))
    store.pull(snapshot)
    push(store, 0, 1)
    assert snapshot.tolist() == [0, 1, 2, 3, 4]
    assert store.theta.tolist() == [-1, 0, 1, 2, 3]


def test_the_learning_rate_falls_linearly_to_its_last_over_all_frames() -> None:
    config = dataclasses.replace(CONSTANT_RATE, frames=1000, learning_rate=0.8, final_learning_rate_fraction=0.25)
    store, rates = make_store(config), []
    for worker in (0, 1, 0, 1, 0):
        rates.append(store.learning_rate())
        push(store, worker, 0, frames=400)
    assert rates == pytest.approx([0.8, 0.56, 0.32, 0.2, 0.2])


def test_a_push_uses_the_rate_at_the_frames_before_it() -> None:
    config = dataclasses.replace(CONSTANT_RATE, frames=1000, final_learning_rate_fraction=0.0)
    store = make_store(config)
    push(store, 0, 1, frames=500)
    assert store.theta[0].item() == -1
    push(store, 0, 1, frames=500)
    assert store.theta[0].item() == -1.5


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.01), ("sqrt", 0.04), ("linear", 0.16)])
def test_the_rates_scaling_with_the_batch(scaling: str, rate: float) -> None:
    config = Config(learning_rate=0.01, envs_per_worker=16, learning_rate_scaling=scaling)  # type: ignore[arg-type]
    assert make_store(config).learning_rate() == pytest.approx(rate)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 3)), max_size=20))
def test_every_worker_counts_in_its_own_row_and_totals_are_sums_with_the_base(pushes: list) -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, workers=3))
    base = {Counter.FRAMES: 400, Counter.STEPS: 100, Counter.UPDATES: 7, Counter.EPISODES: 3, Counter.STALENESS: 5}
    store.resume_counters(np.array([base.get(counter, 0) for counter in Counter]))
    rows = np.zeros((3, 5), int)
    for worker, steps, ended in pushes:
        episodes = [Episode(0, 1.0, 1, 0.0, False)] * ended
        others = int(rows[:, Counter.UPDATES].sum() + 7)
        store.apply(worker, Update(torch.zeros(P), steps, 4 * steps, {}, episodes), others)
        rows[worker] += [4 * steps, steps, 1, ended, 0]
    assert np.array_equal(store.counters[:3, :5], rows)
    for counter, value in base.items():
        assert store.total(counter) == rows[:, counter].sum() + value


def test_staleness_of_a_hand_made_interleaving() -> None:
    """0 pulls; 1 pulls and pushes twice; 2 pulls; 0 pushes (2 late); 1 pulls; 2 pushes (1 late); 1 pushes (1 late)."""
    store, into = make_store(dataclasses.replace(CONSTANT_RATE, workers=3)), torch.empty(P)
    pulled = {0: store.pull(into)}
    for _ in range(2):
        pulled[1] = store.pull(into)
        assert push(store, 1, 0, pulled=pulled[1]) == 0
    pulled[2] = store.pull(into)
    assert push(store, 0, 0, pulled=pulled[0]) == 2
    pulled[1] = store.pull(into)
    assert push(store, 2, 0, pulled=pulled[2]) == 1
    assert push(store, 1, 0, pulled=pulled[1]) == 1
    assert store.counters[:3, Counter.STALENESS].tolist() == [2, 1, 1]
    assert store.counters[:3, Counter.UPDATES].tolist() == [1, 3, 1]


def test_the_target_is_copied_at_crossings_only() -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, algo="n-step-q", target_frames=100))
    copied_at, target = [], store.target.clone()
    for worker in (0, 1) * 6:
        push(store, worker, 1, frames=28)
        if not torch.equal(store.target, target):
            assert torch.equal(store.target, store.theta)
            copied_at.append(store.total(Counter.FRAMES))
            target = store.target.clone()
    assert copied_at == [112, 224, 308]


def test_one_long_rollout_over_several_crossings_copies_once() -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, algo="one-step-q", target_frames=100))
    push(store, 0, 1, frames=350)
    assert store.target[0].item() == -1
    push(store, 0, 1, frames=40)
    assert store.target[0].item() == -1
    push(store, 0, 1, frames=40)
    assert store.target[0].item() == -3


def test_a_resumed_store_waits_for_the_next_crossing() -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, algo="n-step-q", target_frames=100))
    store.resume_counters(np.array([350, 0, 0, 0, 0]))
    push(store, 0, 1, frames=40)
    assert store.target[0].item() == 0
    push(store, 0, 1, frames=40)
    assert store.target[0].item() == -2


def test_a_copy_to_the_target_that_was_cut_off_is_made_by_the_next_push() -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, algo="n-step-q", target_frames=100))
    target = store.target

    class Killed:
        def copy_(self, theta: torch.Tensor) -> None:
            raise KeyboardInterrupt

    store.target = Killed()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        push(store, 0, 1, frames=100)
    store.target = target
    push(store, 1, 1, frames=1)
    assert target[0].item() == -2


def test_two_copies_at_one_crossing_are_told_apart() -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, algo="n-step-q", target_frames=100))
    target, seen = store.target, [store.target_copy()]

    class Late:
        """The copy of worker 0, which begins after worker 1's is over."""

        def copy_(self, theta: torch.Tensor) -> None:
            store.target = target
            push(store, 1, 1, frames=1)
            seen.append(store.target_copy())
            target.copy_(theta)

    store.target = Late()  # type: ignore[assignment]
    push(store, 0, 1, frames=100)
    seen.append(store.target_copy())
    assert len(set(seen)) == 3
    push(store, 0, 1, frames=1)
    assert store.target_copy() == seen[-1]


def test_a3c_has_no_target() -> None:
    store = make_store(CONSTANT_RATE)
    push(store, 0, 1, frames=10**6)
    assert len(store.target) == 0


def test_arrays_do_not_overlap_and_counters_lie_in_lines_of_their_own() -> None:
    store = make_store(dataclasses.replace(CONSTANT_RATE, algo="n-step-q", workers=3))
    arrays = [store.theta.numpy(), store.target.numpy(), store.statistics.numpy(), store.ages, store.counters]
    arrays += [store.heartbeats, store._flags]
    for i, array in enumerate(arrays):
        assert array.ctypes.data % 64 == 0
        array.fill(i + 1)
    for i, array in enumerate(arrays):
        assert (array == i + 1).all()
    assert store.counters.strides[0] == store.heartbeats.strides[0] == 64


def write_and_wait(store: ParameterStore, go: object) -> None:
    """Push as worker 1 in a process of its own, stop the store, then wait for the parent's word and push again."""
    push(store, 1, 2)
    store.beat(1)
    store.stop()
    go.wait(60)  # type: ignore[attr-defined]
    push(store, 1, float(store.theta[0]))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_processes_share_one_store(method: str) -> None:
    context = multiprocessing.get_context(method)
    config = dataclasses.replace(CONSTANT_RATE, algo="n-step-q", target_frames=4)
    store, go = make_store(config, context), context.Event()
    store.theta.fill_(10)
    process = context.Process(target=write_and_wait, args=(store, go))
    process.start()
    try:
        while not store.stopped and process.exitcode is None:
            process.join(0.05)
        assert store.theta.tolist() == store.target.tolist() == [8] * P
        assert store.counters[:, Counter.UPDATES].tolist() == [0, 1, 0]
        assert store.statistics[1, 0].tolist() == [2] * P
        assert store.statistics[0, 0].tolist() == [0] * P
        assert store.heartbeats[1, 0] > 0
        store.theta.fill_(5)
        go.set()
        process.join(60)
        assert process.exitcode == 0
        assert store.theta.tolist() == [0] * P
        assert store.stopped
    finally:
        process.kill()
        process.join()


def test_without_a_context_a_store_is_private_to_its_process() -> None:
    one, other = make_store(CONSTANT_RATE), make_store(CONSTANT_RATE)
    push(one, 0, 1)
    one.stop()
    assert other.theta.tolist() == [0] * P
    assert not other.stopped
