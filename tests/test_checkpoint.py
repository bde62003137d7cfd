"""Checkpoints: whole or not there, refused when damaged, and never a way to run code."""

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import asyncrl
from asyncrl import checkpoint as files
from asyncrl.checkpoint import load_checkpoint, restore_network, restore_store, save_checkpoint
from asyncrl.cli import main
from asyncrl.config import Config
from asyncrl.config_file import write_config
from asyncrl.errors import UserError
from asyncrl.flat import flatten_parameters_
from asyncrl.networks import make_network
from asyncrl.pointers import find_checkpoint, point_to, prune
from asyncrl.saving import Saving
from asyncrl.spaces_json import decode_space, encode_space, plain_space
from asyncrl.store import Counter, ParameterStore, StoreSpec, adam_decays
from asyncrl.worker import Update

CONFIG = Config(env="CartPole-v1", workers=2, optimizer="rmsprop", standardize_inputs=False)
BOX, DISCRETE = spaces.Box(-1.0, 1.0, (4,), np.float32), spaces.Discrete(2)


class Run:
    """A run's folder as the trainer leaves it, without having trained."""

    def __init__(self, folder: Path, config: Config = CONFIG) -> None:
        self.path, self.config = folder, config
        self.checkpoints = folder / "checkpoints"
        self.network = make_network(config, BOX, DISCRETE)
        theta = flatten_parameters_(self.network)
        self.store = ParameterStore(StoreSpec.of(config, theta.numel()), config)
        self.store.theta.copy_(theta)
        self.store.statistics.copy_(torch.rand(self.store.statistics.shape))
        self.store.ages[:2, 0] = [5, 7]
        self.checkpoints.mkdir(parents=True)
        write_config(folder / "config.toml", config, {})

    def save(self, frames: int, name: str | None = "latest") -> Path:
        self.store.counters[0, Counter.FRAMES] = frames
        state = {
            "env": self.config.env,
            "algo": self.config.algo,
            "spaces": {"observation": encode_space(BOX), "action": encode_space(DISCRETE)},
            "frames": frames,
            "seconds": 1.5,
            "counters": self.store.counters.tolist(),
            "best_score": None,
            "generation": 0,
            "evaluation": None,
        }
        path = save_checkpoint(self.checkpoints, self.store, self.network, state)
        if name is not None:
            point_to(self.checkpoints, name, path)
        return path


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def change_state(path: Path, **changes) -> None:
    state = json.loads((path / "state.json").read_text())
    state.update(changes)
    (path / "state.json").write_text(json.dumps(state))


def sign(path: Path) -> None:
    """Make the sums fit again, as whoever means harm would."""
    names = ("parameters.safetensors", "optimizer.safetensors")
    change_state(path, sha256={name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names})


def assert_refused(path: Path, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        asyncrl.load(path)
    assert "\n" not in str(caught.value)


def test_what_is_saved_comes_back(run):
    path = run.save(1_000)
    found = load_checkpoint(path)
    assert sorted(p.name for p in path.iterdir()) == ["optimizer.safetensors", "parameters.safetensors", "state.json"]
    network = restore_network(CONFIG, found)
    assert torch.equal(flatten_parameters_(network), run.store.theta)
    store = ParameterStore(run.store.spec, CONFIG)
    restore_store(store, found)
    assert torch.equal(store.statistics, run.store.statistics)
    assert store.ages[:, 0].tolist() == [5, 7]
    assert store.total(Counter.FRAMES) == 1_000


def test_a_run_that_was_moved_away_does_not_come_back_without_its_configuration(run, tmp_path):
    run.path.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        run.save(1_000)
    assert not run.path.exists()


def test_what_a_killed_process_left_half_written_goes_with_the_next_checkpoint(run):
    left = run.checkpoints / ".writing-500"
    left.mkdir()
    (left / "parameters.safetensors").write_bytes(b"half")
    kept = run.save(1_000)
    prune(run.checkpoints)
    assert not left.exists() and kept.exists()


def test_where_folders_cannot_be_synced_checkpoints_are_kept_all_the_same(run, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(is_folder)
        if is_folder:
            raise OSError(errno.EINVAL, "no such thing here")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    load_checkpoint(run.save(1_000))
    assert set(synced) == {True, False}
    monkeypatch.setattr(os, "fsync", lambda descriptor: _raise_no_space())
    with pytest.raises(OSError, match="full"):
        run.save(2_000)


def _raise_no_space() -> None:
    raise OSError(errno.ENOSPC, "full")


def test_a_loaded_agent_acts_as_the_network(run):
    run.save(1_000)
    agent = asyncrl.load(run.path)
    observation = np.array([0.1, -0.2, 0.3, 0.4], np.float32)
    with torch.no_grad():
        outputs, _ = run.network(torch.from_numpy(observation)[None, None], torch.zeros(1, 1, dtype=torch.bool), ())
    assert agent.act(observation, mode="greedy") == int(outputs.policy.log_policy[0, 0].argmax())
    draws = [agent.act(observation) for _ in range(400)]
    assert np.mean(draws) == pytest.approx(float(outputs.policy.log_policy[0, 0, 1].exp()), abs=0.1)
    assert [episode.steps for episode in agent.evaluate(3)] == [int(e.score) for e in agent.evaluate(3)]  # as seeded


def test_nothing_is_pickled(run):
    run.save(1_000)
    for file in run.path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not content.startswith((b"\x80", b"PK")), file  # pickle, or the zip that torch.save writes
            assert b"torch\n_" not in content
            with pytest.raises(Exception):  # noqa: B017  # no pickle by another beginning either
                pickle.loads(content)


@pytest.mark.parametrize("name", ["parameters.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["truncated", "emptied", "bit flipped", "deleted", "a folder"])
def test_damage_is_told_in_one_line(run, name, harm):
    file = run.save(1_000) / name
    content = bytearray(file.read_bytes())
    if harm in ("deleted", "a folder"):
        file.unlink()
    if harm == "a folder":
        file.mkdir()
    if harm == "truncated":
        file.write_bytes(content[: len(content) // 2])
    if harm == "emptied":
        file.write_bytes(b"")
    if harm == "bit flipped":
        content[len(content) // 2] ^= 0x80
        file.write_bytes(content)
    # Without its state.json the folder is no checkpoint at all: then the run's link leads there.
    assert_refused(run.path, "damaged|no readable checkpoint")


@pytest.mark.parametrize(
    "change",
    [
        {"frames": -1},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"generation": -1},
        {"generation": 10**30},
        {"order_position": "three"},
        {"order_position": 1.5},
        {"best_score": 10**400},
        {"best_score": float("nan")},
        {"evaluation": {"evaluated_score": float("inf")}},
        {"evaluation": {"score": 3}},
        {"evaluation": {"evaluated_score": "high"}},
    ],
    ids=str,
)
def test_numbers_that_no_training_would_write_are_refused(run, change):
    path = run.save(1_000)
    change_state(path, **change)
    assert_refused(path, f"is damaged: state.json has no proper {next(iter(change))}")


def test_damage_with_fitting_sums_is_told_in_one_line(run):
    path = run.save(1_000)
    (path / "parameters.safetensors").write_bytes(b"\xff" * 100)
    sign(path)
    assert_refused(path, "parameters.safetensors is damaged")
    run.save(2_000)
    shutil.copy(run.checkpoints / "2000/optimizer.safetensors", path / "parameters.safetensors")
    sign(path)
    assert_refused(path, "another network or game")


def tamper(path: Path, file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change tensors of a checkpoint, and sign them."""
    save_file(change(load_file(path / file)), path / file)
    sign(path)


def test_numbers_of_another_kind_are_refused(run):
    path = run.save(1_000)
    tamper(path, "parameters.safetensors", lambda tensors: {name: x.bfloat16() for name, x in tensors.items()})
    assert_refused(path, "another network or game")


def test_numbers_that_torch_can_only_store_are_refused(run):
    path = run.save(1_000)
    kind = torch.float8_e4m3fn
    tamper(path, "parameters.safetensors", lambda tensors: {name: x.to(kind) for name, x in tensors.items()})
    assert_refused(path, "damaged|another network")


@pytest.mark.parametrize(("name", "value"), [("counters", -1), ("ages", -5.0)])
def test_counts_below_zero_are_refused(run, name, value):
    path = run.save(1_000)
    if name == "ages":
        tamper(path, "optimizer.safetensors", lambda tensors: {**tensors, "ages": torch.full((2, 8), value)})
    else:
        change_state(path, counters=[[value] * 8] * 3)
    with pytest.raises(UserError, match="is damaged: counters below 0"):
        restore_store(ParameterStore(run.store.spec, CONFIG), load_checkpoint(path))


@pytest.mark.parametrize("space", ["observation", "action"])
def test_a_space_that_no_memory_holds_is_told_in_one_line(run, space):
    path = run.save(1_000)
    huge = {
        "observation": {**encode_space(BOX), "shape": [10**7, 10**7]},
        "action": {"type": "Discrete", "n": 10**13, "start": 0},
    }
    change_state(path, spaces={"observation": encode_space(BOX), "action": encode_space(DISCRETE), space: huge[space]})
    assert_refused(path, "spaces cannot be read|cannot make a network of these settings")


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_KEYS = ["schema", "env", "algo", "spaces", "frames", "seconds", "counters", "best_score", "generation", "evaluation"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*_KEYS, "sha256"]), junk=_JUNK)
def test_no_state_brings_a_traceback(run, key, junk):
    path = run.save(1_000)
    change_state(path, **{key: junk})
    try:
        found = load_checkpoint(path)
        restore_network(CONFIG, found)
        restore_store(ParameterStore(run.store.spec, CONFIG), found)
    except UserError as error:
        assert "\n" not in str(error)


def test_another_schema_game_or_network_is_refused(run):
    path = run.save(1_000)
    change_state(path, schema=99)
    assert_refused(path, "was written by another version of asyncrl: this one reads schema 1")
    change_state(path, schema=1, env="Acrobot-v1")
    assert_refused(path, "is a checkpoint of Acrobot-v1 with another network or game .*CartPole-v1, a3c, ff")
    change_state(path, env="CartPole-v1")
    write_config(run.path / "config.toml", dataclasses.replace(CONFIG, core="lstm"), {})
    assert_refused(path, "another network or game")


def with_first(tensor: torch.Tensor, junk: float) -> torch.Tensor:
    """Return `tensor` with `junk` for its first number, if it can hold that."""
    if tensor.is_floating_point():
        tensor.view(-1)[:1] = junk
    return tensor


@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["parameters.safetensors", "optimizer.safetensors"])
def test_what_is_no_finite_number_is_refused(run, name, junk):
    path = run.save(1_000)
    tamper(path, name, lambda tensors: tensors)
    load_checkpoint(path)
    tamper(path, name, lambda tensors: {key: with_first(x, junk) for key, x in tensors.items()})
    assert_refused(path, f"{name} is damaged: it holds what is no finite number")


def test_squares_below_zero_are_refused(run):
    path = run.save(1_000)
    tamper(path, "optimizer.safetensors", lambda tensors: {**tensors, "statistics": -tensors["statistics"]})
    with pytest.raises(UserError, match="is damaged: mean squares below 0"):
        restore_store(run.store, load_checkpoint(path))


def test_another_optimiser_is_refused(run):
    found = load_checkpoint(run.save(1_000))
    config = dataclasses.replace(CONFIG, optimizer="adam")
    store = ParameterStore(StoreSpec.of(config, len(run.store.theta)), config)
    with pytest.raises(UserError, match="was trained with another optimiser"):
        restore_store(store, found)


@pytest.mark.parametrize(("before", "after"), [(2, 16), (16, 2), (4, 4)])
def test_adams_moments_mean_the_same_with_another_number_of_workers(run, before, after):
    """Equal gradients have a mean and a root of squares equal to themselves, whatever the decays."""
    settings = {
        "optimizer": "adam",
        "decay": 0.99,
        "optimizer_epsilon": 1e-12,
        "learning_rate": 0.5,
        "final_learning_rate_fraction": 1.0,
    }
    old, new = (dataclasses.replace(CONFIG, workers=workers, **settings) for workers in (before, after))
    stores = [ParameterStore(StoreSpec.of(c, len(run.store.theta)), c) for c in (old, new)]
    update = Update(torch.linspace(1, 3, len(run.store.theta)), 1, 1, {}, [])
    for _ in range(3):
        stores[0].apply(1, update, 0)
    found = load_checkpoint(run.save(1_000))
    state = {**found.state, "counters": stores[0].counters.tolist()}
    optimizer = {"statistics": stores[0].statistics, "ages": torch.from_numpy(stores[0].ages), "target": torch.empty(0)}
    restore_store(stores[1], dataclasses.replace(found, state=state, optimizer=optimizer))
    stores[1].apply(1, update, 0)
    torch.testing.assert_close(stores[1].theta, torch.full_like(stores[1].theta, -0.5))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_of_many_workers_own_statistics_the_mean_is_kept(tmp_path, optimizer):
    settings = {"optimizer": optimizer, "adam_beta1": 0.9, "decay": 0.99}
    many, few = (dataclasses.replace(CONFIG, workers=workers, **settings) for workers in (20, 3))
    run = Run(tmp_path / "run", many)
    run.store.statistics.zero_()
    run.store.ages[:] = 0
    gradient = torch.linspace(1, 3, len(run.store.theta))
    for worker in range(20):  # the first has not begun, the last has made most updates
        for _ in range(2 * worker):
            run.store.apply(worker, Update(gradient, 1, 1, {}, []), 0)
    found = load_checkpoint(run.save(1_000))
    assert len(found.optimizer["statistics"]) == 1 and found.optimizer["ages"][0, 0] == 38
    store = ParameterStore(StoreSpec.of(few, len(gradient)), few)
    restore_store(store, found)
    for owner in range(3):
        assert store.ages[owner, 0] == 38
        if optimizer == "adam":
            beta1, beta2 = adam_decays(few, 3)
            mean, square = store.statistics[owner]
            torch.testing.assert_close(mean / (1 - beta1**38), gradient)
            torch.testing.assert_close(square / (1 - beta2**38), gradient**2)
        else:
            torch.testing.assert_close(store.statistics[owner, 0], run.store.statistics[1:, 0].mean(0))
    simulated = Run(tmp_path / "simulated", dataclasses.replace(many, schedule="simulated"))
    assert torch.equal(load_checkpoint(simulated.save(1)).optimizer["statistics"], simulated.store.statistics)


def test_what_is_not_there(run, tmp_path):
    assert_refused(
        run.path, "holds no latest checkpoint: if nothing trains there any more, train anew with --config .*.toml"
    )
    assert_refused(tmp_path / "nowhere", "there is no run or checkpoint at")
    run.save(1_000)
    with pytest.raises(UserError, match="holds no best checkpoint: there is one after 100 training episodes"):
        find_checkpoint(run.path, "best")
    (run.checkpoints / "latest").unlink()
    assert_refused(run.path, r"holds no latest checkpoint link, .*: name a checkpoint itself, .*/checkpoints/1000$")
    assert asyncrl.load(run.checkpoints / "1000").checkpoint.state["frames"] == 1_000
    point_to(run.checkpoints, "latest", run.checkpoints / "1000")
    (run.path / "config.toml").unlink()
    assert_refused(run.path, "cannot read .*config.toml: No such file")


@pytest.mark.parametrize("again", [False, True])
def test_a_crash_while_writing_leaves_the_older_one_whole(run, monkeypatch, again):
    run.save(1_000)
    before = {p.name: p.read_bytes() for p in (run.checkpoints / "1000").iterdir()}
    calls = []

    def save_half(tensors, path):
        calls.append(path)
        Path(path).write_bytes(b"half")
        if len(calls) == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(files, "_write", save_half)
    with pytest.raises(OSError, match="no space"):
        run.save(1_000 if again else 2_000)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["1000", "latest"]
    assert {p.name: p.read_bytes() for p in (run.checkpoints / "latest").iterdir()} == before
    assert all(path.parent.name.startswith(".writing-") for path in calls)
    monkeypatch.undo()
    run.save(2_000)
    assert load_checkpoint(find_checkpoint(run.path)).state["frames"] == 2_000


def test_the_newer_of_two_at_the_same_frame_wins_and_rests_of_the_killed_go(run):
    run.save(1_000)
    (run.checkpoints / ".writing-1000").mkdir()
    run.store.theta.add_(1.0)
    flatten = flatten_parameters_(run.network)
    flatten.copy_(run.store.theta)
    run.save(1_000)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["1000", "latest"]
    assert torch.equal(flatten_parameters_(restore_network(CONFIG, load_checkpoint(run.checkpoints / "1000"))), flatten)


def test_killed_as_a_newer_one_takes_the_place_of_the_same_frame_count(run):
    path = run.save(1_000)
    aside = path.rename(path.with_name(".replaced-1000"))  # and .writing-1000 has not become 1000
    assert find_checkpoint(run.path) == aside.resolve() and load_checkpoint(aside).state["frames"] == 1_000
    prune(run.checkpoints)
    assert aside.is_dir()
    run.save(1_000)
    assert find_checkpoint(run.path) == path.resolve() and not aside.exists()
    shutil.copytree(path, aside)  # of an older one
    prune(run.checkpoints)
    assert not aside.exists()
    shutil.copytree(path, aside)
    run.save(1_000)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["1000", "latest"]


def test_one_checkpoint_is_not_another(run):
    path = run.save(1_000)
    assert find_checkpoint(path) == path.absolute()
    with pytest.raises(UserError, match="1000 is one checkpoint: name its run to have the best one"):
        find_checkpoint(path, "best")


def test_pruning_keeps_the_newest_three_and_the_best(run):
    for frames in (900, 1_000, 1_100, 10_000, 20_000):  # not by name
        run.save(frames, "best" if frames == 900 else "latest")
    (run.checkpoints / "notes.txt").touch()
    (run.checkpoints / "²").touch()  # a digit, but no number
    prune(run.checkpoints)
    left = sorted(p.name for p in run.checkpoints.iterdir())
    assert left == ["10000", "1100", "20000", "900", "best", "latest", "notes.txt", "²"]
    assert find_checkpoint(run.path, "best").name == "900"
    assert find_checkpoint(run.path).name == "20000"


def test_a_latest_that_leads_out_of_the_run_is_none(run, tmp_path):
    path = run.save(1_000)
    shutil.copytree(path, tmp_path / "elsewhere" / "1000")
    (run.checkpoints / "latest").unlink()
    (run.checkpoints / "latest").symlink_to(tmp_path / "elsewhere" / "1000")
    with pytest.raises(UserError, match="holds no latest checkpoint"):
        find_checkpoint(run.path)


def test_only_checkpoints_are_pruned(run):
    for name in ("10", "20", "30"):
        (run.checkpoints / name).mkdir(parents=True)
    for frames in (1_000, 2_000, 3_000, 4_000):
        run.save(frames)
    prune(run.checkpoints)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["10", "20", "2000", "30", "3000", "4000", "latest"]


def test_who_goes_on_from_an_older_checkpoint_keeps_what_came_of_it(run):
    for frames in (1_000, 3_000, 4_000, 5_000):
        run.save(frames)
    saving, left = Saving(run.checkpoints, print), []
    state = load_checkpoint(run.checkpoints / "1000").state
    for frames in (1_500, 1_600, 1_700, 1_800):
        assert saving.save(run.store, run.network, {**state, "frames": frames}, is_best=False, is_last=False)
        left.append(sorted(int(p.name) for p in run.checkpoints.iterdir() if p.name.isdecimal()))
    assert left == [
        [1_500, 4_000, 5_000],
        [1_500, 1_600, 5_000],
        [1_500, 1_600, 1_700],
        [1_600, 1_700, 1_800],
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_between_two_renames_costs_nothing(run, monkeypatch, error):
    run.save(1_000)
    before = {p.name: p.read_bytes() for p in (run.checkpoints / "latest").iterdir()}
    rename, names = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        names.append(self.name)
        if self.name.startswith(".writing-"):
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(error):
        run.save(1_000)
    assert names == ["1000", ".writing-1000", ".replaced-1000"]
    assert {p.name: p.read_bytes() for p in (run.checkpoints / "latest").iterdir()} == before
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["1000", "latest"]


@pytest.mark.parametrize(
    ("best", "score", "expected"),
    [("3.5", 2.0, 3.5), ("3.5", 4.0, 4.0), ("3.5", None, 3.5), ("null", 2.0, 2.0), ("null", None, None)]
    + [(text, 2.0, 2.0) for text in ("NaN", "Infinity", "[]", "1" + 400 * "0", "}")],
)
def test_a_run_that_goes_on_from_an_older_checkpoint_keeps_its_best(run, best, score, expected):
    saving = Saving(run.checkpoints, print)
    assert saving.best_score(score) == score  # nothing is there
    path = run.save(4_000, "best")
    state = json.loads((path / "state.json").read_text()) | {"best_score": "HERE"}
    (path / "state.json").write_text(json.dumps(state).replace('"HERE"', best))
    assert saving.best_score(score) == expected


def test_a_run_that_was_copied_without_its_links_goes_on(run, tmp_path):
    """`scp -r` and archives for other systems make folders of `latest` and `best`."""
    run.save(1_000)
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, symlinks=False)
    assert not (copy / "checkpoints/latest").is_symlink()
    run.checkpoints, run.path = copy / "checkpoints", copy
    run.save(2_000)
    assert find_checkpoint(copy).name == "2000"
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["1000", "2000", "latest"]


def test_a_file_system_without_links_has_files_with_names(run, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", fail)
    for frames in (1_000, 2_000, 3_000, 4_000, 5_000):
        run.save(frames, "best" if frames == 1_000 else "latest")
    prune(run.checkpoints)
    assert (find_checkpoint(run.path).name, find_checkpoint(run.path, "best").name) == ("5000", "1000")
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["1000", "3000", "4000", "5000", "best", "latest"]
    monkeypatch.undo()
    run.save(6_000)  # on another disk: a link again
    assert (run.checkpoints / "latest").is_symlink() and find_checkpoint(run.path).name == "6000"
    for text in ("../../elsewhere", "", "7000", "\xff"):
        (run.checkpoints / "latest").unlink()
        (run.checkpoints / "latest").write_text(text)
        with pytest.raises(UserError, match="holds no latest checkpoint"):
            find_checkpoint(run.path)


@pytest.mark.parametrize(
    ("where", "path"), [(".", "run"), ("run/checkpoints", "1000"), ("run/checkpoints/1000", "."), ("run", ".")]
)
def test_a_path_from_within_the_run_finds_all_of_it(run, monkeypatch, where, path):
    run.save(1_000)
    monkeypatch.chdir(run.path.parent / where)
    assert asyncrl.load(path).config.env == "CartPole-v1"


def test_a_moved_run_still_loads(run, tmp_path):
    run.save(1_000)
    shutil.move(run.path, tmp_path / "elsewhere")
    assert asyncrl.load(tmp_path / "elsewhere").checkpoint.state["frames"] == 1_000


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(6),
        spaces.Discrete(3, start=-1),
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
        spaces.Box(0, 1, (10, 10, 4), bool),
        spaces.MultiDiscrete([3, 2]),
        spaces.Box(0, np.iinfo(np.int64).max, (3,), np.int64),
        spaces.Box(np.array([0, 1], np.uint64), np.array([2**64 - 1, 5], np.uint64), dtype=np.uint64),
        spaces.Box(np.array([[0, 1], [2, 3]]), np.array([[4, 5], [6, 2**53 + 1]]), dtype=np.int64),
        spaces.Box(np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)),
    ],
    ids=str,
)
def test_spaces_come_back_through_json(space):
    text = json.dumps(encode_space(space), allow_nan=False)
    assert decode_space(json.loads(text)) == space


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A run whose environment is code of a stranger, importable from here, that leaves a mark when it is imported."""
    marks = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"open({str(marks)!r}, 'w').close()\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "def make(**how):\n    return CartPoleEnv(**how)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    run = Run(tmp_path / "run", dataclasses.replace(CONFIG, env="evil:make", frames=5_000))
    run.save(1_000)
    return run, marks


@pytest.mark.parametrize(
    "args",
    [
        ("eval", "run"),
        ("record", "run", "out.mp4"),
        ("resume", "run"),
        ("train", "--config", "run/config.toml"),
        ("train", "--config", "run/config.toml", "--frames", "10k"),
        ("eval", "run", "--env", "CartPole-v1"),
        ("resume", "run", "--env", "other:make"),
    ],
)
def test_opening_a_strangers_run_imports_nothing(stranger, capsys, args):
    _, marks = stranger
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "evil:make" in captured.err
    assert not marks.exists()


def test_a_strangers_agent_acts_but_imports_nothing(stranger):
    run, marks = stranger
    agent = asyncrl.load(run.path)
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)
    with pytest.raises(UserError, match="repeat it with --env evil:make if you trust it"):
        agent.evaluate(1)
    with pytest.raises(UserError, match="repeat it with --env evil:make"):
        asyncrl.resume(run.path)
    assert not marks.exists()


def test_who_repeats_the_environment_trusts_it(stranger, capsys):
    _, marks = stranger
    assert main(("eval", "run", "--env", "evil:make", "--episodes", "2")) == 0
    assert marks.exists()
    assert "evil:make after 1,000 frames" in capsys.readouterr().out


def test_a_space_of_a_users_class_becomes_one_that_other_processes_know():
    class Court(spaces.Box):
        pass

    plain = plain_space(Court(-1.0, 1.0, (3,), np.float32))
    assert type(plain) is spaces.Box and plain == spaces.Box(-1.0, 1.0, (3,), np.float32)
