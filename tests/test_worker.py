"""One worker, and two in one process: what repeats, what is shared, when parameters are read, what is learned."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import (
    GO,
    ScriptedEnvironments,
    Window,
    finite_difference,
    linear,
    one_step_y,
    random_script,
    rollout_loss,
    split_theta,
    tiny_network,
    unroll,
    zero_state,
)

from asyncrl.config import Config
from asyncrl.envs import Step
from asyncrl.presets import PRESETS
from asyncrl.store import Counter, ParameterStore, StoreSpec
from asyncrl.worker import Learner, Update, compute_update, learn

CARTPOLE = Config(env="CartPole-v1", workers=1, envs_per_worker=2, t_max=5)
PONG = dataclasses.replace(CARTPOLE, env="ALE/Pong-v5")
SGD = Config(workers=2, optimizer="momentum-sgd", decay=0.0, learning_rate=0.05, final_learning_rate_fraction=1.0)

Open = Callable[..., Learner]


@pytest.fixture
def open_learner() -> Iterator[Open]:
    opened: list[Learner] = []

    def make(config: Config, worker: int = 0, generation: int = 0) -> Learner:
        opened.append(Learner(config, worker, generation))
        return opened[-1]

    yield make
    for learner in opened:
        learner.close()


def make_store(config: Config, learner: Learner) -> ParameterStore:
    store = ParameterStore(StoreSpec.of(config, learner.snapshot.numel()), config)
    store.theta.copy_(learner.snapshot)
    store.target.copy_(learner.snapshot[: len(store.target)])
    return store


def one_update(learner: Learner, store: ParameterStore, worker: int = 0) -> Update:
    pulled = learner.pull(store)
    update = compute_update(learner)
    store.apply(worker, update, pulled)
    return update


def test_the_share_of_the_run_that_has_passed_is_that_of_the_pull(open_learner: Open) -> None:
    """What anneals the entropy cost."""
    learner = open_learner(dataclasses.replace(CARTPOLE, frames=1_000))
    store = make_store(learner.config, learner)
    store.counters[0, Counter.FRAMES] = 250
    learner.pull(store)
    store.counters[0, Counter.FRAMES] = 500
    seen: list[float] = []
    loss = learner.algorithm.loss
    learner.algorithm = dataclasses.replace(learner.algorithm, loss=lambda *args: seen.append(args[-1]) or loss(*args))
    compute_update(learner)
    assert seen == [0.25]


def test_environments_are_closed_where_a_learner_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []

    class Envs:
        @property
        def observation_space(self) -> spaces.Space:
            raise RuntimeError("broken")

        def close(self) -> None:
            closed.append(1)

    monkeypatch.setattr("asyncrl.worker.make_envs", lambda *_: Envs())
    with pytest.raises(RuntimeError, match="broken"):
        Learner(CARTPOLE, 0)
    assert closed == [1]


# What repeats


def train(make: Open, config: Config, updates: int = 20) -> tuple[torch.Tensor, list]:
    learner = make(config)
    store = make_store(config, learner)
    episodes = [e._replace(seconds=0.0) for _ in range(updates) for e in one_update(learner, store).episodes]
    assert not torch.equal(store.theta, make(config).snapshot)
    return store.theta, episodes


@pytest.mark.parametrize(
    "config",
    [
        CARTPOLE,
        dataclasses.replace(CARTPOLE, core="lstm", lstm_size=8),
        dataclasses.replace(CARTPOLE, algo="n-step-q"),
        dataclasses.replace(CARTPOLE, algo="one-step-q"),
        dataclasses.replace(CARTPOLE, algo="one-step-sarsa", core="lstm", lstm_size=8),
        PONG,
        dataclasses.replace(PONG, sticky=True),
    ],
    ids=lambda c: f"{c.algo}-{c.core}-{c.env}{'-sticky' * c.sticky}",
)
def test_a_fixed_seed_gives_bit_identical_parameters_and_another_does_not(config: Config, open_learner: Open) -> None:
    first, first_episodes = train(open_learner, config)
    again, again_episodes = train(open_learner, config)
    other, _ = train(open_learner, dataclasses.replace(config, seed=1))
    assert torch.equal(first, again)
    assert first_episodes == again_episodes
    assert not torch.equal(first, other)


def test_the_global_generators_play_no_part(open_learner: Open) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first, _ = train(open_learner, CARTPOLE)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    state = torch.get_rng_state()
    again, _ = train(open_learner, CARTPOLE)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("worker", "generation"), [(1, 0), (0, 1)])
def test_workers_and_restarts_see_other_episodes_under_equal_weights(
    worker: int, generation: int, open_learner: Open
) -> None:
    first, same, other = open_learner(CARTPOLE), open_learner(CARTPOLE), open_learner(CARTPOLE, worker, generation)
    assert torch.equal(first.snapshot, other.snapshot)
    assert np.array_equal(first.state.observations, same.state.observations)
    assert not np.array_equal(first.state.observations, other.state.observations)
    draws = [torch.rand(4, generator=x.state.generator) for x in (first, same, other)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


# What is shared


def test_two_learners_share_nothing_but_the_store(open_learner: Open) -> None:
    config = dataclasses.replace(CARTPOLE, workers=2, algo="one-step-sarsa", core="lstm", lstm_size=8)
    one, other = open_learner(config, 0), open_learner(config, 1)
    store = make_store(config, one)
    one_update(one, store, 0)
    before = other.snapshot.clone(), other.target_snapshot.clone(), other.state.observations.copy()
    generator = other.state.generator.get_state()
    for _ in range(5):
        one_update(one, store, 0)
    assert torch.equal(other.snapshot, before[0])
    assert torch.equal(other.target_snapshot, before[1])
    assert np.array_equal(other.state.observations, before[2])
    assert torch.equal(other.state.generator.get_state(), generator)
    assert one.state.envs is not other.state.envs
    for mine, theirs in zip(arrays(one), arrays(other), strict=True):
        assert not np.shares_memory(mine, theirs)
        assert not np.shares_memory(mine, store.theta.numpy())
    other.pull(store)
    assert torch.equal(other.snapshot, store.theta)


def arrays(learner: Learner) -> list[np.ndarray]:
    tensors = [learner.snapshot, learner.target_snapshot, learner.epsilons, *learner.state.core_state]
    tensors += [p.detach() for p in learner.network.parameters()]
    buffers = [x for x in vars(learner.state.buffers).values() if isinstance(x, np.ndarray)]
    carried = [learner.state.observations, learner.state.resets, learner.state.scores, learner.state.steps]
    return [t.numpy() for t in tensors] + buffers + carried + [learner.final_epsilons]


def test_a_learner_has_a_target_of_its_own_for_the_q_methods_only(open_learner: Open) -> None:
    assert open_learner(CARTPOLE).target is None
    learner = open_learner(dataclasses.replace(CARTPOLE, algo="n-step-q"))
    store = make_store(learner.config, learner)
    store.target.fill_(0.5)
    learner.pull(store)
    assert learner.target is not None
    assert all((p == 0.5).all() for p in learner.target.parameters())
    assert not any((p == 0.5).all() for p in learner.network.parameters())


def test_two_learners_with_one_network_follow_every_copy_to_the_target(open_learner: Open) -> None:
    config = dataclasses.replace(CARTPOLE, workers=2, algo="n-step-q", envs_per_worker=1, t_max=5, target_frames=17)
    one = open_learner(config)
    other = Learner(config, 1, shared=one)
    try:
        store, copies = make_store(config, one), [one.snapshot.clone()]
        for turn in range(24):
            learner = (one, other)[turn // 3 % 2]  # neither pulls at each crossing
            pulled = learner.pull(store)
            assert torch.equal(learner.target_snapshot, store.target)
            store.apply(learner.worker, compute_update(learner), pulled)
            if not torch.equal(store.target, copies[-1]):
                copies.append(store.target.clone())
        assert len(copies) > 4
    finally:
        other.close()


def test_epsilons_follow_the_global_frames_to_each_environments_final(open_learner: Open) -> None:
    config = dataclasses.replace(CARTPOLE, algo="n-step-q", epsilon_frames=1000, envs_per_worker=8)
    learner = open_learner(config)
    store = make_store(config, learner)
    assert len(set(learner.final_epsilons)) > 1
    for frames, fraction in ((0, 0), (250, 0.25), (1000, 1), (5000, 1)):
        store.counters[-1, Counter.FRAMES] = frames
        learner.pull(store)
        np.testing.assert_allclose(learner.epsilons, 1 + fraction * (learner.final_epsilons - 1), rtol=1e-6)


@pytest.mark.parametrize("algo", ["n-step-q", "a3c"])
def test_episodes_of_q_methods_know_their_final_epsilon(open_learner: Open, algo: str) -> None:
    config = dataclasses.replace(CARTPOLE, algo=algo, epsilon_frames=1000, envs_per_worker=8)
    learner = open_learner(config)
    learner.pull(make_store(config, learner))
    episodes = [episode for _ in range(40) for episode in compute_update(learner).episodes]
    assert len({episode.environment for episode in episodes}) == 8
    for episode in episodes:
        final = learner.final_epsilons[episode.environment] if algo == "n-step-q" else None
        assert episode.final_epsilon == final


def test_final_epsilons_are_drawn_once_for_all_sittings(open_learner: Open) -> None:
    config = dataclasses.replace(CARTPOLE, algo="n-step-q", envs_per_worker=16)
    first, later = Learner(config, 0, 0), Learner(config, 0, 1)
    try:
        assert first.final_epsilons.tolist() == later.final_epsilons.tolist()
        assert not np.array_equal(first.state.observations, later.state.observations)  # episodes are new
    finally:
        first.close()
        later.close()


def test_final_epsilons_are_those_of_the_settings(open_learner: Open) -> None:
    settings = {"final_epsilons": (0.25, 0.75), "final_epsilon_probabilities": (0.0, 1.0)}
    learner = open_learner(dataclasses.replace(CARTPOLE, algo="n-step-q", envs_per_worker=8, **settings))
    assert set(learner.final_epsilons) == {0.75}


def test_the_carried_state_is_detached(open_learner: Open) -> None:
    learner = open_learner(dataclasses.replace(CARTPOLE, core="lstm", lstm_size=8))
    for _ in range(3):
        compute_update(learner)
        assert not any(x.requires_grad or x.grad_fn for x in learner.state.core_state)
        assert all((x != 0).any() for x in learner.state.core_state)


# When parameters are read


class Interrupted(ScriptedEnvironments):
    """Another worker pushes while this one steps."""

    store: ParameterStore
    gradient: torch.Tensor

    def step(self, actions: np.ndarray) -> Step:
        self.store.apply(1, Update(self.gradient, 1, 4, {}, []), self.store.total(Counter.UPDATES))
        return super().step(actions)


@pytest.mark.parametrize("algo", ["a3c", "one-step-q", "n-step-q", "one-step-sarsa"])
def test_pushes_of_others_during_a_rollout_change_neither_acts_nor_gradient(
    algo: str, monkeypatch: pytest.MonkeyPatch, open_learner: Open
) -> None:
    config = dataclasses.replace(SGD, algo=algo, core="lstm", envs_per_worker=4, target_frames=4)
    script, results = random_script(5, 4, seed=0), []
    monkeypatch.setattr("asyncrl.worker.make_network", tiny_network)
    for size in (0.0, 10.0):
        envs = Interrupted(script)
        monkeypatch.setattr("asyncrl.worker.make_envs", lambda *_, envs=envs: envs)
        learner = open_learner(config)
        envs.store = make_store(config, learner)
        envs.gradient = torch.full_like(learner.snapshot, size)
        update = one_update(learner, envs.store)
        results.append((np.array(envs.actions), update.gradient.clone()))
        assert envs.store.counters[0, Counter.STALENESS] == 5
    assert np.array_equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_pull_after_the_update_leaves_the_gradient_alone(open_learner: Open) -> None:
    learner = open_learner(CARTPOLE)
    update = compute_update(learner)
    kept = update.gradient.clone()
    learner.snapshot.fill_(3)
    compute_update(learner)
    assert torch.equal(update.gradient, kept)
    assert not np.shares_memory(update.gradient.numpy(), learner.snapshot.numpy())


@pytest.mark.parametrize("window", [1, 2])
def test_only_a_window_of_one_acts_on_the_shared_parameters_at_every_step(
    window: int, monkeypatch: pytest.MonkeyPatch, open_learner: Open
) -> None:
    """Algorithm 1 has no theta'. While another worker pushes, the second step of a snapshot is behind."""
    config = dataclasses.replace(SGD, algo="one-step-q", envs_per_worker=1, t_max=window)
    script = random_script(40, 1, seed=0)
    envs = Interrupted(dataclasses.replace(script, events=np.full_like(script.events, GO)))
    monkeypatch.setattr("asyncrl.worker.make_envs", lambda *_: envs)
    monkeypatch.setattr("asyncrl.worker.make_network", tiny_network)
    learner, same = open_learner(config), []
    envs.store = make_store(config, learner)
    envs.gradient = torch.full_like(learner.snapshot, 0.1)
    act = learner.act

    def watched(*args: object) -> object:
        same.append(torch.equal(learner.snapshot, envs.store.theta))
        return act(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(learner, "act", watched)
    while len(same) < 40:
        one_update(learner, envs.store)
    assert same == ([True] * 40 if window == 1 else [True, False] * 20)


def test_a_window_of_one_is_algorithm_1_line_by_line(monkeypatch: pytest.MonkeyPatch, open_learner: Open) -> None:
    steps, frames = 40, 4
    config = dataclasses.replace(SGD, algo="one-step-q", envs_per_worker=1, t_max=1, target_frames=24, epsilon_frames=1)
    script = random_script(steps, 1, seed=1)
    envs = ScriptedEnvironments(script)
    monkeypatch.setattr("asyncrl.worker.make_envs", lambda *_: envs)
    monkeypatch.setattr("asyncrl.worker.make_network", tiny_network)
    learner = open_learner(config)
    learner.final_epsilons[:] = 0
    store = make_store(config, learner)
    network, theta = learner.network, learner.snapshot.numpy().astype(np.float64)
    for _ in range(steps):
        one_update(learner, store)
    actions = np.array([*envs.actions, [0]])
    theta_minus, total = theta.copy(), 0
    for s in range(steps):
        window = Window(script, actions, 0, s, s + 1, zero_state())
        features, states = unroll(split_theta(theta, network), window)
        if s > 0:  # epsilon is 0 after the first frame
            assert actions[s, 0] == linear(split_theta(theta, network), "q", features[0]).argmax()
        y = one_step_y(config, window, split_theta(theta_minus, network), [*[zero_state()] * s, *states])
        gradient = finite_difference(
            lambda x, window=window, y=y: rollout_loss(config, window, split_theta(x, network), y, [0.0]), theta
        )
        theta, total = theta - 0.05 * gradient, total + frames
        if total % 24 == 0:
            theta_minus = theta.copy()
    np.testing.assert_allclose(store.theta, theta, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(store.target, theta_minus, rtol=1e-3, atol=1e-4)


# The loop


def test_learning_stops_at_the_frames_and_tells_of_every_update(open_learner: Open) -> None:
    config = dataclasses.replace(CARTPOLE, frames=95)
    learner, told = open_learner(config), []
    store = make_store(config, learner)
    learn(learner, store, lambda update, staleness: told.append((update.frames, staleness)))
    assert told == [(10, 0)] * 10
    assert store.total(Counter.FRAMES) == 100
    assert store.total(Counter.UPDATES) == 10


def test_learning_stops_when_told_to(open_learner: Open) -> None:
    learner, told = open_learner(CARTPOLE), []
    store = make_store(CARTPOLE, learner)

    def report(update: Update, _: int) -> None:
        told.append(update)
        if len(told) == 3:
            store.stop()

    learn(learner, store, report)
    assert len(told) == 3


def test_the_gradient_is_clipped_to_the_configured_norm(open_learner: Open) -> None:
    free = compute_update(open_learner(CARTPOLE))
    clipped = compute_update(open_learner(dataclasses.replace(CARTPOLE, max_grad_norm=0.01)))
    assert free.stats["gradient_norm"] == clipped.stats["gradient_norm"] > 0.01
    torch.testing.assert_close(clipped.gradient, free.gradient * 0.01 / free.gradient.norm())


# Presets


@pytest.mark.parametrize(
    ("algo", "core"),
    [
        ("a3c", "ff"),
        ("a3c", "lstm"),
        ("n-step-q", "ff"),
        ("n-step-q", "lstm"),
        ("one-step-q", "ff"),
        ("one-step-sarsa", "ff"),
    ],
)
@pytest.mark.parametrize("preset", ["fast", "paper", "paper57"])
def test_every_preset_computes_an_update_of_every_method(preset: str, algo: str, core: str, open_learner: Open) -> None:
    config = dataclasses.replace(PRESETS[preset](), algo=algo, core=core)  # type: ignore[index]
    learner = open_learner(config)
    store = make_store(config, learner)
    theta = store.theta.clone()
    update = one_update(learner, store)
    assert (update.steps, update.frames) == (config.t_max * config.envs_per_worker, 4 * update.steps)
    assert torch.isfinite(update.gradient).all()
    assert not torch.equal(store.theta, theta)
    assert torch.isfinite(store.theta).all()


PAPER = {
    "workers": 16,
    "envs_per_worker": 1,
    "t_max": 5,
    "gamma": 0.99,
    "gae_lambda": 1.0,
    "entropy_cost": 0.01,
    "value_cost": 0.5,
    "network": "conv2013",
    "initialization": "torch",
    "standardize_inputs": False,
    "lstm_size": 256,
    "optimizer": "shared-rmsprop",
    "initial_learning_rate": 7e-4,
    "final_learning_rate_fraction": 0.0,
    "decay": 0.99,
    "optimizer_epsilon": 0.1,
    "max_grad_norm": None,
    "epsilon_frames": 4_000_000,
    "target_frames": 40_000,
    "sticky": False,
}


@pytest.mark.parametrize(
    ("preset", "differences"),
    [("paper", {}), ("paper57", {"network": "conv2015", "t_max": 20, "max_grad_norm": 40.0})],
)
def test_the_papers_presets_are_the_papers(preset: str, differences: dict) -> None:
    config = PRESETS[preset]()  # type: ignore[index]
    assert {name: getattr(config, name) for name in PAPER} == PAPER | differences


# A time limit is no death


def learned_values(config: Config, make: Open) -> np.ndarray:
    """Return what the learner believes each state of the ring to be worth."""
    learner = make(config)
    store = make_store(config, learner)
    learn(learner, store, lambda *_: None)
    learner.pull(store)
    states = torch.eye(5)[None]
    with torch.no_grad():
        outputs, _ = learner.network(states, torch.zeros(1, 5, dtype=torch.bool), ())
        return learner.algorithm.value(outputs)[0].numpy()


@pytest.mark.parametrize("algo", ["a3c", "one-step-q"])
def test_values_under_a_time_limit_are_those_of_the_endless_world(algo: str, open_learner: Open) -> None:
    """Reward 1 for ever is worth 1 / (1 - gamma) = 5. Truncation treated as death (the control) believes far less."""
    config = Config(
        env="asyncrl/TimeLimitChain-v0",
        algo=algo,  # type: ignore[arg-type]
        workers=1,
        envs_per_worker=8,
        frames=20_000,
        gamma=0.8,
        optimizer="adam",
        learning_rate=0.01,
        optimizer_epsilon=1e-5,
        value_cost=0.5,
        target_frames=200,
        epsilon_frames=1,
    )
    right = learned_values(config, open_learner)
    wrong = learned_values(dataclasses.replace(config, bootstrap_on_truncation=False), open_learner)
    np.testing.assert_allclose(right, 5.0, rtol=0.03)
    assert (wrong < 4.25).all()
