"""Whole updates of every method against the oracle: real acting, losses and gradients in a scripted world."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import (
    GO,
    LIFE_LOST,
    NUM_ACTIONS,
    Script,
    ScriptedEnvironments,
    State,
    Window,
    features_of,
    finite_difference,
    linear,
    log_softmax,
    one_step_y,
    paper_returns,
    random_script,
    rollout_loss,
    split_theta,
    state_value,
    tiny_network,
    unroll,
    zero_state,
)

from asyncrl.algorithms import ALGORITHMS, actor_critic_loss, n_step_q_loss, sample_policy
from asyncrl.config import Config
from asyncrl.networks import PolicyValue
from asyncrl.policies import Categorical
from asyncrl.rollout import collect_rollout
from asyncrl.worker import Learner, Update, compute_update

T_MAX, ROLLOUTS = 5, 4
BASE = Config(envs_per_worker=4, t_max=T_MAX, gamma=0.9, entropy_cost=0.3, value_cost=0.7)
A3C, N_STEP_Q, ONE_STEP_Q, SARSA = "a3c", "n-step-q", "one-step-q", "one-step-sarsa"


def make_learner(
    config: Config, script: Script, monkeypatch: pytest.MonkeyPatch, actions: spaces.Space | None = None
) -> Learner:
    monkeypatch.setattr("asyncrl.worker.make_envs", lambda *_: ScriptedEnvironments(script, actions))
    monkeypatch.setattr("asyncrl.worker.make_network", tiny_network)
    return Learner(config, worker=0)


class Run:
    """Several updates of a learner, each under parameters and target parameters of its own, and the oracle's."""

    def __init__(
        self,
        config: Config,
        script: Script,
        monkeypatch: pytest.MonkeyPatch,
        actions: spaces.Space | None = None,
    ) -> None:
        self.config, self.script = config, script
        learner = make_learner(config, script, monkeypatch, actions)
        self.network, count = learner.network, learner.snapshot.numel()
        generator = torch.Generator().manual_seed(1)
        self.thetas = [0.8 * torch.randn(count, generator=generator) for _ in range(ROLLOUTS)]
        self.targets = [0.8 * torch.randn(count, generator=generator) for _ in range(ROLLOUTS)]
        self.updates: list[Update] = []
        for theta, target in zip(self.thetas, self.targets, strict=True):
            learner.snapshot.copy_(theta)
            if learner.target is not None:
                learner.target_snapshot.copy_(target)
            self.updates.append(compute_update(learner))
        envs = learner.state.envs
        assert isinstance(envs, ScriptedEnvironments)
        if learner.state.chosen is not None:  # Sarsa has chosen one action more than it has taken
            envs.actions.append(learner.state.chosen[0].numpy())
        self.actions = np.array(envs.actions)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each rollout starts and stops: after t_max steps, or where the only environment's episode ends."""
        start = 0
        for _ in range(ROLLOUTS):
            stop = start
            while self.config.t_max is None or stop < start + self.config.t_max:
                stop += 1
                if self.script.rewards.shape[1] == 1 and self.ends(self.script.events[stop - 1, 0]):
                    break
            yield start, stop
            start = stop

    def ends(self, event: int) -> bool:
        return event != GO and (event != LIFE_LOST or self.config.life_loss_ends)

    def acting_states(self, b: int) -> list[State]:
        """The state after each observation, under the parameters that chose its action."""
        states: list[State] = []
        peeks = self.config.algo == SARSA
        for theta, (_, stop) in zip(self.thetas, self.spans(), strict=True):
            p = split_theta(theta.numpy(), self.network)
            for s in range(len(states), stop + peeks):
                before = states[s - 1] if s else zero_state()
                states.append(features_of(p, self.script.observations[s, b], self.script.begins(s, b), before)[1])
        return states

    def oracle_gradients(self) -> list[np.ndarray]:
        """The gradient [P] of every rollout: a sum over time, divided by the number of environments."""
        batch = self.script.rewards.shape[1]
        total = [np.zeros(len(self.thetas[0])) for _ in range(ROLLOUTS)]
        for b in range(batch):
            states = self.acting_states(b)
            for k, (start, stop) in enumerate(self.spans()):
                carried = states[start - 1] if start else zero_state()
                window = Window(self.script, self.actions, b, start, stop, carried)
                total[k] += self.window_gradient(k, window, states) / batch
        return total

    def window_gradient(self, k: int, window: Window, states: list[State]) -> np.ndarray:
        theta = self.thetas[k].numpy().astype(np.float64)
        p = split_theta(theta, self.network)
        target_p = p if self.config.algo == A3C else split_theta(self.targets[k].numpy(), self.network)
        make_targets = paper_returns if self.config.algo in (A3C, N_STEP_Q) else one_step_y
        targets = make_targets(self.config, window, target_p, states)
        values = [state_value(p, x) for x in unroll(p, window)[0][:-1]]
        return finite_difference(
            lambda x: rollout_loss(self.config, window, split_theta(x, self.network), targets, values), theta
        )

    def assert_gradients_are_the_oracles(self) -> None:
        for update, wanted, (start, stop) in zip(self.updates, self.oracle_gradients(), self.spans(), strict=True):
            assert update.steps == (stop - start) * self.script.rewards.shape[1]
            assert update.frames == 4 * update.steps
            scale = np.abs(wanted).max()
            assert scale > 1e-3
            np.testing.assert_allclose(update.gradient, wanted, rtol=1e-4, atol=2e-5 * max(scale, 1))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("core", ["ff", "lstm"])
@pytest.mark.parametrize("algo", [A3C, N_STEP_Q, ONE_STEP_Q, SARSA])
def test_gradients_equal_finite_differences_of_the_pseudocode(
    algo: str, core: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(BASE, algo=algo, core=core, envs_per_worker=batch)
    for seed in range(2):
        script = random_script(ROLLOUTS * T_MAX, batch, seed)
        assert len(set(script.events[:T_MAX].ravel())) > 1
        Run(config, script, monkeypatch).assert_gradients_are_the_oracles()


@pytest.mark.parametrize("core", ["ff", "lstm"])
def test_gradients_with_a_lambda(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(BASE, core=core, gae_lambda=0.6)
    run = Run(config, random_script(ROLLOUTS * T_MAX, 4, seed=2), monkeypatch)
    run.assert_gradients_are_the_oracles()
    run.config = BASE  # the control: they are not those of n-step returns
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        run.assert_gradients_are_the_oracles()


@pytest.mark.parametrize("setting", ["bootstrap_on_truncation", "life_loss_ends"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("algo", [A3C, N_STEP_Q, ONE_STEP_Q, SARSA])
def test_gradients_without_bootstrap_or_life_loss(
    algo: str, batch: int, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(BASE, algo=algo, core="lstm", envs_per_worker=batch, **{setting: False})
    Run(config, random_script(ROLLOUTS * T_MAX, batch, seed=3), monkeypatch).assert_gradients_are_the_oracles()


def test_the_oracle_tells_a_truncation_from_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the same rollouts judged by the other rule do not pass."""
    run = Run(dataclasses.replace(BASE, algo=N_STEP_Q), random_script(ROLLOUTS * T_MAX, 4, seed=0), monkeypatch)
    run.config = dataclasses.replace(run.config, bootstrap_on_truncation=False)
    with pytest.raises(AssertionError, match="Not equal"):
        run.assert_gradients_are_the_oracles()


def test_each_method_has_its_own_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same script the three Q methods differ, so that the oracle's tests cannot pass by mixing them up."""
    script = random_script(ROLLOUTS * T_MAX, 1, seed=5)
    runs = [
        Run(dataclasses.replace(BASE, algo=algo, envs_per_worker=1), script, monkeypatch)
        for algo in (N_STEP_Q, ONE_STEP_Q, SARSA)
    ]
    gradients = [torch.cat([u.gradient for u in run.updates]) for run in runs]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(gradients[i], gradients[j], rtol=0.01)


def test_sarsa_takes_first_the_action_it_has_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(dataclasses.replace(BASE, algo=SARSA), random_script(2 * T_MAX, 4, seed=2), monkeypatch)
    compute_update(learner)
    assert learner.state.chosen is not None
    kept = learner.state.chosen[0].numpy().copy()
    with torch.no_grad():
        learner.snapshot.zero_()
        learner.network.q.bias[(int(kept[0]) + 1) % NUM_ACTIONS] = 1  # would choose otherwise now
    learner.epsilons.zero_()
    compute_update(learner)
    actions = learner.state.envs.actions
    assert np.array_equal(actions[T_MAX], kept)
    assert actions[T_MAX + 1][0] == (kept[0] + 1) % NUM_ACTIONS


@pytest.mark.parametrize("core", ["ff", "lstm"])
def test_n_step_q_unrolls_its_target_only_where_it_remembers(monkeypatch: pytest.MonkeyPatch, core: str) -> None:
    config = dataclasses.replace(BASE, algo=N_STEP_Q, core=core)
    learner = make_learner(config, random_script(T_MAX, 4, seed=0), monkeypatch)
    assert learner.target is not None
    rollouts: list[tuple] = []
    algorithm = dataclasses.replace(learner.algorithm, loss=lambda *args: rollouts.append(args) or n_step_q_loss(*args))
    learner.algorithm, lengths = algorithm, []
    learner.target.register_forward_pre_hook(lambda _, inputs: lengths.append(len(inputs[0])))
    compute_update(learner)
    assert (T_MAX in lengths) is (core == "lstm")
    network, target, rollout, _, done = rollouts[0]
    loss, _ = n_step_q_loss(network, target, rollout, config, done)
    unrolled, _ = n_step_q_loss(network, target, rollout, dataclasses.replace(config, core="lstm"), done)
    assert torch.equal(loss, unrolled)


def test_generalised_advantages_reduce_to_the_papers_at_lambda_one(monkeypatch: pytest.MonkeyPatch) -> None:
    script = random_script(ROLLOUTS * T_MAX, 4, seed=4)
    plain = Run(BASE, script, monkeypatch).updates
    nearly = Run(dataclasses.replace(BASE, gae_lambda=1 - 1e-9), script, monkeypatch).updates
    short = Run(dataclasses.replace(BASE, gae_lambda=0.5), script, monkeypatch).updates
    torch.testing.assert_close(plain[0].gradient, nearly[0].gradient)
    assert not torch.allclose(plain[0].gradient, short[0].gradient, rtol=0.01)


def test_the_entropy_cost_falls_until_its_share_of_the_run_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(BASE, random_script(T_MAX, 4, seed=3), monkeypatch)
    rollout = collect_rollout(BASE, learner.state, learner.act, learner.value, False)
    annealed = dataclasses.replace(BASE, entropy_cost=0.3, final_entropy_fraction=0.2, entropy_share=0.5)
    for progress, cost in ((0.0, 0.3), (0.25, 0.18), (0.5, 0.06), (1.0, 0.06)):
        loss, _ = actor_critic_loss(learner.network, None, rollout, annealed, progress)
        constant = dataclasses.replace(BASE, entropy_cost=cost)
        torch.testing.assert_close(loss, actor_critic_loss(learner.network, None, rollout, constant, 0.0)[0])
    assert not torch.allclose(loss, actor_critic_loss(learner.network, None, rollout, annealed, 0.0)[0])


def test_logged_numbers_are_the_parts_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    script = random_script(ROLLOUTS * T_MAX, 4, seed=7)
    run = Run(BASE, script, monkeypatch)
    p = split_theta(run.thetas[0].numpy(), run.network)
    value_loss, entropies, values = 0.0, [], []
    for b in range(4):
        window = Window(script, run.actions, b, 0, T_MAX, zero_state())
        features, states = unroll(p, window)
        for x, big_r in zip(features, paper_returns(BASE, window, p, states), strict=False):
            log_pi = log_softmax(linear(p, "policy", x))
            values.append(state_value(p, x))
            entropies.append(-(np.exp(log_pi) * log_pi).sum())
            value_loss += 0.5 * (big_r - values[-1]) ** 2
    stats = run.updates[0].stats
    assert stats["value_loss"] == pytest.approx(value_loss / 4 / T_MAX, rel=1e-4)
    assert stats["entropy"] == pytest.approx(np.mean(entropies), rel=1e-4)
    assert stats["value"] == pytest.approx(np.mean(values), rel=1e-3)
    assert stats["gradient_norm"] == pytest.approx(run.updates[0].gradient.norm().item(), rel=1e-5)


def test_actions_are_drawn_from_the_policy() -> None:
    policy = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    outputs = PolicyValue(Categorical(policy.log()[None]), torch.zeros(1, 2))
    generator, n = torch.Generator().manual_seed(0), 4000
    drawn = np.array([sample_policy(outputs, None, generator).tolist() for _ in range(n)])
    for b in range(2):
        frequencies = np.bincount(drawn[:, b], minlength=3) / n
        for frequency, p in zip(frequencies, policy[b].tolist(), strict=True):
            assert frequency == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / n) + 1e-9)


def test_only_q_methods_use_target_parameters_and_only_sarsa_keeps_an_action() -> None:
    assert [name for name, row in ALGORITHMS.items() if not row.uses_target] == [A3C, "a2c"]
    assert [name for name, row in ALGORITHMS.items() if row.keeps_next_action] == [SARSA]
