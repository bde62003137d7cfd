"""Update disciplines: who may write when, and that nobody waits for the dead."""

import os
import threading
import time
from multiprocessing.context import SpawnContext

import numpy as np
import pytest
import torch

from asyncrl.config import Config
from asyncrl.disciplines import Locked, Synchronous
from asyncrl.errors import UserError
from asyncrl.store import Counter, ParameterStore, StoreSpec
from asyncrl.worker import Update

CONTEXT = SpawnContext()
PLAIN = {"optimizer": "momentum-sgd", "decay": 0.0, "learning_rate": 1.0, "final_learning_rate_fraction": 1.0}


def push(store: ParameterStore, worker: int, gradient: float, pulled: int) -> int | None:
    return store.apply(worker, Update(torch.full((3,), gradient), 1, 1, {}, []), pulled)


def make_store(**settings) -> ParameterStore:
    config = Config(**{**PLAIN, "workers": 3, **settings})
    return ParameterStore(StoreSpec.of(config, 3), config, CONTEXT)


def in_threads(target, workers: int) -> None:
    threads = [threading.Thread(target=target, args=(worker,), daemon=True) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("update", ["locked", "synchronous"])
def test_shared_adam_has_one_set_of_statistics(update: str) -> None:
    store = make_store(optimizer="shared-adam", update=update)
    assert store.statistics.shape == (1, 2, 3)
    assert make_store(optimizer="adam", update=update).statistics.shape == (3, 2, 3)


def test_shared_adam_without_a_lock_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="--update locked or --update synchronous, or choose --optimizer adam") as error:
        Config(optimizer="shared-adam")
    assert "\n" not in str(error.value)


def hold(lock, ready) -> None:
    lock.acquire()
    ready.set()
    time.sleep(60)


def test_a_killed_holder_of_the_lock_costs_one_wait() -> None:
    lock, ready = CONTEXT.Lock(), CONTEXT.Event()
    holder = CONTEXT.Process(target=hold, args=(lock, ready), daemon=True)
    holder.start()
    assert ready.wait(60)
    holder.kill()
    holder.join()
    timeouts = np.zeros(3, np.int64)
    discipline = Locked(lock, timeouts, seconds=0.3)
    for _ in range(20):
        with discipline.pulling(0):
            pass
        with discipline.applying(1) as in_time:
            assert in_time
    assert timeouts.tolist() == [1, 0, 0]


def test_locked_lets_one_in_at_a_time() -> None:
    """The control, the same without the lock, does meet somebody."""

    def meetings(lock) -> int:
        inside, met = [], []

        def work(worker: int) -> None:
            for _ in range(30):
                with Locked(lock, np.zeros(4, np.int64)).applying(worker):
                    inside.append(worker)
                    time.sleep(1e-4)
                    met.append(len(inside) > 1)
                    inside.remove(worker)

        in_threads(work, 3)
        return sum(met)

    assert meetings(CONTEXT.Lock()) == 0
    assert meetings(CONTEXT.Semaphore(3)) > 0


def test_rounds_pull_the_same_theta_and_push_in_the_order_of_workers() -> None:
    store, rounds, order, seen = make_store(update="synchronous"), 20, [], []

    def work(worker: int) -> None:
        random = np.random.default_rng(worker)
        into = torch.empty(3)
        store.discipline.join(worker)
        for i in range(rounds):
            with store.discipline.pulling(worker):
                pulled = store.pull(into)
            seen.append((i, into[0].item()))
            time.sleep(random.uniform(0, 2e-3))
            staleness = push(store, worker, 1.0, pulled)
            assert staleness == worker
            order.append(worker)  # after its own turn: in order within a round, whoever is waiting
        store.discipline.leave(worker)

    in_threads(work, 3)
    assert sorted(seen) == [(i, -3.0 * i) for i in range(rounds) for _ in range(3)]
    assert store.total(Counter.UPDATES) == 3 * rounds and store.total(Counter.TIMEOUTS) == 0
    assert store.counters[:3, Counter.STALENESS].tolist() == [0, rounds, 2 * rounds]


def test_a_dead_worker_is_waited_for_once_and_a_restarted_one_joins_again() -> None:
    timeouts, rounds = np.zeros(3, np.int64), np.zeros((2, 8), np.int64)
    discipline = Synchronous(rounds, timeouts, seconds=2.0)

    def rounds_of(worker: int, count: int) -> None:
        discipline.join(worker)
        for _ in range(count):
            with discipline.pulling(worker):
                pass
            with discipline.applying(worker) as in_time:
                assert in_time

    rounds_of(0, 50)  # worker 1 never comes
    assert timeouts.tolist() == [1, 0, 0]

    def go_on(worker: int) -> None:
        while worker == 0 and rounds[1, 2]:
            time.sleep(1e-3)  # until worker 1 has joined
        rounds_of(worker, 60 - 9 * worker)  # which ends first

    in_threads(go_on, 2)
    assert rounds[1].tolist()[:2] == [104, 104]  # its 51 rounds, after those 50 and 3 that it left to the other
    assert rounds[0].tolist()[:2] == [110, 110]
    assert timeouts[0] == 2  # it did not say that it left


def test_who_joins_waits_for_slow_rounds_and_takes_nobody_for_late() -> None:
    """Three rounds of a second each are longer than the patience with one."""
    timeouts, rounds, beats = np.zeros(3, np.int64), np.zeros((2, 8), np.int64), []
    discipline = Synchronous(rounds, timeouts, seconds=2.0, beat=beats.append)
    discipline.leave(1)

    def work(worker: int) -> None:
        discipline.join(worker)
        while worker == 0 and rounds[1, 2]:
            time.sleep(1e-3)  # until the other joins
        for _ in range(4 if worker == 0 else 1):
            with discipline.pulling(worker):
                time.sleep(1.0 if worker == 0 else 0.0)
            with discipline.applying(worker) as in_time:
                assert in_time
        discipline.leave(worker)

    in_threads(work, 2)
    assert timeouts.tolist() == [0, 0, 0]
    assert rounds[:, :2].tolist() == [[4, 4], [4, 4]]
    assert beats.count(1) > 20  # or it were taken for hung


def test_those_who_join_together_do_not_queue_up() -> None:
    timeouts, rounds = np.zeros(17, np.int64), np.zeros((16, 8), np.int64)
    rounds[:, :2], rounds[1:, 2] = 7, 1  # all but the first have been given up
    discipline = Synchronous(rounds, timeouts, is_stopping=lambda: True)
    for worker in range(1, 16):
        discipline.join(worker)
    assert set(rounds[1:, 1].tolist()) == {10}


def test_one_that_hangs_does_not_cost_others_their_place() -> None:
    timeouts, rounds = np.zeros(5, np.int64), np.zeros((4, 8), np.int64)
    discipline = Synchronous(rounds, timeouts, seconds=3.0)

    def work(worker: int) -> None:
        if worker == 0:
            return  # it pulled once and was never heard of again
        for _ in range(3):
            with discipline.pulling(worker):
                pass
            with discipline.applying(worker) as in_time:
                assert in_time
                time.sleep(0.3)  # while others wait for it

    with discipline.pulling(0):
        pass
    in_threads(work, 4)
    assert rounds[:, 2].tolist() == [1, 0, 0, 0]
    assert rounds[1:, 1].tolist() == [3, 3, 3]


def test_nobody_waits_long_for_a_straggler_when_all_are_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncrl.disciplines.LAST_ROUND_SECONDS", 0.1)
    store = make_store(update="synchronous", workers=2)
    store.stop()
    pulled = store.pull(torch.empty(3))
    with store.discipline.pulling(0):
        pass
    began = time.monotonic()
    push(store, 0, 1.0, pulled)  # worker 1 never comes
    assert time.monotonic() - began < 15  # not the 30 s of a round
    assert store.theta.tolist() == [-1.0] * 3
    assert store.heartbeats[0, 0] > 0


def test_a_stragglers_update_is_dropped_and_its_frames_count() -> None:
    store = make_store(update="synchronous", workers=2)
    discipline = store.discipline
    assert isinstance(discipline, Synchronous)
    discipline.seconds = 0.1
    into = torch.empty(3)
    pulled = []
    for worker in (0, 1):
        with discipline.pulling(worker):
            pulled.append(store.pull(into))
    push(store, 0, 1.0, pulled[0])  # waits for worker 1 in vain
    discipline.leave(0)  # or worker 1 would wait for it in turn, before it joins again
    assert push(store, 1, 100.0, pulled[1]) is None
    assert store.counters[:2, Counter.STALENESS].tolist() == [0, 0]
    assert store.theta.tolist() == [-1.0] * 3
    assert store.total(Counter.UPDATES) == 1 and store.total(Counter.FRAMES) == 2
    assert store.counters[:2, Counter.TIMEOUTS].tolist() == [1, 1]


def crash_holding(store: ParameterStore) -> None:
    with store.discipline.applying(0):
        os._exit(9)


def test_training_outlives_a_worker_that_died_with_the_lock() -> None:
    store = make_store(update="locked")
    assert isinstance(store.discipline, Locked)
    process = CONTEXT.Process(target=crash_holding, args=(store,))
    process.start()
    process.join()
    store.discipline.seconds = 0.2
    push(store, 1, 1.0, 0)
    push(store, 2, 1.0, 0)
    assert store.theta.tolist() == [-2.0] * 3
    assert store.total(Counter.TIMEOUTS) == 1


def test_one_process_needs_no_discipline() -> None:
    config = Config(update="synchronous", workers=2)
    store = ParameterStore(StoreSpec.of(config, 3), config)
    push(store, 1, 1.0, 0)
    assert store.total(Counter.UPDATES) == 1
