"""One's own environments and networks: functions handed over, pictures of any shape, spaces refused in one line."""

import dataclasses
import pickle
import random
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from worlds import Picture, Tiny, observes_dict

import asyncrl
from asyncrl.config import Config
from asyncrl.config_file import read_config, write_config
from asyncrl.envs import make_envs
from asyncrl.envs.make import make_filmed_env
from asyncrl.errors import UserError
from asyncrl.handed import Handed
from asyncrl.images import torso_shape
from asyncrl.networks import make_network
from asyncrl.start import fresh_start
from asyncrl.torsos import Convolutions, OwnTorso, Perceptron, Standardize
from asyncrl.trust import repeat, require_repeated

DISCRETE = spaces.Discrete(3)
DOCS = Path(__file__).parent.parent / "docs"


def make_env() -> gymnasium.Env:
    return gymnasium.wrappers.TimeLimit(Tiny(), 3)


def make_torso(space: spaces.Box) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(space.shape)), 7))


def bytes_box(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


# Functions


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a script would run it: its functions belong to no module that workers could import."""
    (code,) = [part.partition("```")[0] for part in (DOCS / "own.md").read_text().split("```python\n")[1:]]
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    exec(code, names)
    run = names["run"]
    assert run.outcome.reason == "frames"
    assert all(row["steps"] <= 100 for row in run.episodes())
    for without, given in (("env", {"network": names["make_torso"]}), ("network", {"env": names["make_env"]})):
        with pytest.raises(UserError, match=f"hand it over again, as {without}=make_"):
            asyncrl.resume(run.path, frames=9_000, **given)
    with pytest.raises(UserError, match="not python-lambda"):
        asyncrl.load(run.path, env=lambda: None, network=names["make_torso"])  # type: ignore[arg-type]


def test_a_function_is_its_name_in_files_and_itself_in_memory(tmp_path: Path) -> None:
    config = Config(env=make_env, network=make_torso)  # type: ignore[arg-type]
    assert (config.env, config.network) == ("python-make_env", "python-make_torso")
    travelled = pickle.loads(pickle.dumps(dataclasses.replace(config, frames=5)))
    assert isinstance(travelled.env, Handed)
    envs = make_envs(travelled, 2)
    envs.reset(seed=0)
    assert [envs.step(np.zeros(2, int)).truncated.all() for _ in range(3)] == [False, False, True]
    write_config(tmp_path / "config.toml", config, {})
    read = read_config(tmp_path / "config.toml")
    assert read == config and not isinstance(read.env, Handed)
    for complaint, act in (
        (
            "env is the Python function make_env: hand it over again, as env=make_env",
            lambda: make_envs(read, 1),
        ),
        ("as network=make_torso", lambda: make_network(read, spaces.Box(-1, 1, (3,)), DISCRETE)),
        ("as env=make_env", lambda: require_repeated(read, None)),
        ("not python-lambda", lambda: repeat(read, lambda: None, None)),
    ):
        with pytest.raises(UserError, match=complaint):
            act()
    again = repeat(read, make_env, make_torso)
    assert isinstance(again.env, Handed) and isinstance(again.network, Handed)


def test_lambdas_partials_and_classes_may_make_environments() -> None:
    for function, name in ((lambda: Tiny(), "python-lambda"), (Tiny, "python-Tiny")):  # noqa: PLW0108
        config = Config(env=function)  # type: ignore[arg-type]
        assert config.env == name
        assert make_envs(pickle.loads(pickle.dumps(config)), 1).observation_space.shape == (3,)


def test_render_mode_is_for_functions_that_take_it() -> None:
    assert make_filmed_env(Config(env=Tiny)).picture().shape == (40, 60, 3)  # type: ignore[arg-type]
    assert make_envs(Config(env=lambda: Tiny("rgb_array")), 1).num_envs == 1  # type: ignore[arg-type]


def test_what_no_function_may_do() -> None:
    with pytest.raises(UserError, match="python-lambda made a int: it must return"):
        make_envs(Config(env=lambda: 3), 1)  # type: ignore[arg-type]
    generator = (i for i in range(3))
    with pytest.raises(UserError, match="cannot be sent to worker processes"):
        Config(env=lambda: generator)  # type: ignore[arg-type]


# Torsos of one's own


@pytest.mark.parametrize(("algo", "core"), [("a3c", "ff"), ("a3c", "lstm"), ("one-step-q", "lstm")])
def test_a_torso_of_ones_own_serves_every_method(algo: str, core: str) -> None:
    config = Config(network=make_torso, algo=algo, core=core, lstm_size=5)  # type: ignore[arg-type]
    network = make_network(config, bytes_box(4, 6, 3), DISCRETE)
    assert isinstance(network.trunk.torso, OwnTorso) and network.trunk.torso.out_features == 7
    images = torch.zeros(2, 3, 4, 6, 3, dtype=torch.uint8)
    network(images, torch.zeros(2, 3, dtype=torch.bool), network.initial_state(3))
    one, other = (make_network(config, bytes_box(4, 6, 3), DISCRETE).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)  # its weights too are drawn from the seed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda space: 3, "made a int: it must return a torch.nn.Module"),
        (lambda space: nn.Identity(), r"made \[2, 3, 4, 6\] of a batch of 2: it must return features \[2, F\]"),
        (lambda space: nn.Flatten(0), "of a batch of 2"),
    ],
)
def test_torsos_that_are_none_are_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_network(Config(network=make), bytes_box(4, 6, 3), DISCRETE)


class Peculiar(nn.Module):
    """Flattens by `view`, has a frozen layer, one that takes no part, and buffers that are no contiguous numbers."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        size = int(np.prod(space.shape))
        self.frozen, self.unused, self.used = (nn.Linear(size, size, bias=False) for _ in range(3))
        nn.init.eye_(self.used.weight)
        self.frozen.requires_grad_(False)
        self.register_buffer("mask", torch.full((3, 2), -torch.inf).t())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.used(self.frozen(inputs.view(len(inputs), -1)))


class Doubled(nn.Module):
    """Computes in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(3, 5).double()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs.double()).float()


class Late(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.double()


def test_networks_of_other_numbers_are_refused() -> None:
    config = Config(env="worlds:tiny", network=lambda space: Doubled())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^the network's .*weight is made as torch.float64 on cpu: it must be float32"):
        make_network(config, Tiny().observation_space, DISCRETE)  # type: ignore[arg-type]
    late = Config(env="worlds:tiny", network=lambda space: nn.Sequential(nn.Linear(3, 5), Late()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"made features of torch.float64: they must be float32"):
        make_network(late, Tiny().observation_space, DISCRETE)  # type: ignore[arg-type]
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match=r"torch.float64 on cpu: .*torch.set_default_dtype"):
            make_network(Config(env="worlds:tiny"), Tiny().observation_space, DISCRETE)  # type: ignore[arg-type]
    finally:
        torch.set_default_dtype(torch.float32)


def test_whatever_a_torso_draws_from_it_draws_the_same_in_every_process() -> None:
    def make(space: spaces.Box) -> nn.Module:
        torso = nn.Linear(3, 4)
        torso.register_buffer("drawn", torch.tensor([np.random.random(), random.random()]))  # noqa: NPY002
        return torso

    config = Config(env="worlds:tiny", network=make, seed=3)  # type: ignore[arg-type]
    drawn = []
    for other in range(2):
        np.random.seed(other)  # noqa: NPY002
        random.seed(other)
        network = make_network(config, Tiny().observation_space, DISCRETE)  # type: ignore[arg-type]
        drawn += [buffer for name, buffer in network.named_buffers() if name.endswith("drawn")]
        assert random.random() == random.Random(other).random()
    assert len(drawn) == 2 and torch.equal(*drawn)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_where_torch_keeps_no_gradients_there_is_training_all_the_same(without, tmp_path: Path) -> None:
    with without():
        run = asyncrl.train("asyncrl/Catch-v0", algo="a2c", frames=200, run_dir=tmp_path / "run", announce=[].append)
    assert run.outcome is not None and run.outcome.reason == "frames"


def test_a_peculiar_torso_trains_and_its_checkpoints_open(tmp_path: Path) -> None:
    space = bytes_box(6, 6, 3)

    def make() -> gymnasium.Env:
        return Picture(space.shape)

    config = asyncrl.presets.make_preset("fast")
    torso = make_network(dataclasses.replace(config, network=Peculiar), space, DISCRETE).trunk.torso
    assert torch.equal(torso.module.used.weight, torch.eye(108))  # as it came, though `fast` draws orthogonal weights
    run = asyncrl.train(make, network=Peculiar, frames=3_000, workers=1, run_dir=tmp_path / "run", announce=str)
    agent = asyncrl.load(run.path, env=make, network=Peculiar)
    learned = agent.network.trunk.torso.module
    assert (learned.mask == -torch.inf).all()
    start = torso.module
    assert torch.equal(learned.frozen.weight, start.frozen.weight)
    assert torch.equal(learned.unused.weight, start.unused.weight)
    assert not torch.equal(learned.used.weight, start.used.weight)


@pytest.mark.parametrize("shape", [(84, 84), (84, 84, 3)])
def test_pictures_train_with_the_default_preset(shape: tuple[int, ...], tmp_path: Path) -> None:
    run = asyncrl.train(lambda: Picture(shape), frames=200, workers=1, run_dir=tmp_path / "run", announce=str)
    assert run.config.standardize_inputs
    assert run.outcome is not None and run.outcome.reason == "frames"


# Pictures


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((4, 84, 84), (4, 84, 84)),
        ((84, 84, 3), (3, 84, 84)),
        ((10, 10, 4), (4, 10, 10)),
        ((10, 10, 10), (10, 10, 10)),
        ((1, 10, 5), (1, 10, 5)),
        ((8, 8, 111), (111, 8, 8)),
        ((17, 8, 8), (17, 8, 8)),
        ((84, 84), (1, 84, 84)),
    ],
)
def test_pictures_come_to_the_torso_channels_first(shape: tuple[int, ...], seen: tuple[int, ...]) -> None:
    space = bytes_box(*shape)
    assert torso_shape(space) == seen
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
    inputs = Standardize(space, None)(torch.from_numpy(images))
    wanted = images.transpose(0, 3, 1, 2) if shape in ((84, 84, 3), (10, 10, 4), (10, 10, 10), (8, 8, 111)) else images
    np.testing.assert_allclose(inputs.numpy(), wanted.reshape(2, *seen) / 255.0, rtol=1e-6)


def test_statistics_follow_the_environments_order_of_dimensions() -> None:
    from asyncrl.inputs import InputStatistics

    mean = np.random.default_rng(0).uniform(0, 255, (10, 8, 3)).astype(np.float32)
    inputs = Standardize(bytes_box(10, 8, 3), InputStatistics(mean, np.array(2.0, np.float32)))
    image = torch.randint(0, 256, (1, 10, 8, 3), dtype=torch.uint8)
    np.testing.assert_allclose(inputs(image)[0].numpy(), ((image[0].numpy() - mean) / 2).transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("space", "kind", "features"),
    [
        (bytes_box(84, 84, 3), Convolutions, 256),
        (bytes_box(10, 10, 4), Convolutions, 128),
        (spaces.Box(0, 1, (10, 10, 6), bool), Convolutions, 128),
        (spaces.Box(0, 1, (3, 64, 64), np.float32), Convolutions, 256),
        (bytes_box(2, 5, 5), Convolutions, 128),
        (bytes_box(2, 2, 1), Perceptron, 64),
        (spaces.Box(-1, 1, (4, 3), np.float32), Perceptron, 64),
        (spaces.Box(-1, 1, (3,), np.float64), Perceptron, 64),
    ],
)
def test_the_network_is_chosen_by_the_observations(space: spaces.Box, kind: type, features: int) -> None:
    network = make_network(Config(), space, DISCRETE)
    assert isinstance(network.trunk.torso, kind) and network.trunk.torso.out_features == features
    observations = torch.from_numpy(np.stack([space.sample() for _ in range(6)])).unflatten(0, (2, 3))
    outputs, _ = network(observations, torch.zeros(2, 3, dtype=torch.bool), ())
    assert torch.isfinite(outputs.values).all()


def test_small_pictures_of_truths_play() -> None:
    envs = make_envs(Config(env=lambda: Picture((10, 10, 4), bool)), 2)  # type: ignore[arg-type]
    network = make_network(Config(), envs.observation_space, envs.action_space)
    observations = torch.from_numpy(envs.reset(seed=0))
    outputs, _ = network(observations[None], torch.ones(1, 2, dtype=torch.bool), ())
    assert envs.step(outputs.policy.mode()[0].numpy()).rewards.shape == (2,)


def test_a_function_that_gives_the_same_module_shares_no_weights() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 7))
    config = Config(network=lambda space: module, separate_networks=True)  # type: ignore[arg-type]
    network = make_network(config, spaces.Box(-1, 1, (3,), np.float32), DISCRETE)
    parameters = list(network.parameters())
    assert len(parameters) == 8  # two torsos and two heads of a weight and a bias
    assert not {id(p) for p in module.parameters()} & {id(p) for p in parameters}


class Uncopied(nn.Flatten):
    """Keeps a number that was computed from a parameter, as older wrappers of weights do: torch makes no copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.computed = 2 * self.scale


def test_modules_that_cannot_be_copied_are_taken_once() -> None:
    space = spaces.Box(-1, 1, (3,), np.float32)
    for _ in range(2):
        make_network(Config(network=lambda space: Uncopied()), space, DISCRETE)  # type: ignore[arg-type]
    module = Uncopied()
    config = Config(network=lambda space: module, separate_networks=True)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="made the same module twice, and torch makes no copy of it: make a new one"):
        make_network(config, space, DISCRETE)


# Spaces that are refused


def test_stacks_of_pictures_are_refused_unless_a_perceptron_is_asked_for() -> None:
    def make() -> gymnasium.Env:
        return Picture((4, 40, 40, 3))

    with pytest.raises(UserError, match="a stack of pictures: make one picture of it"):
        fresh_start(Config(env=make))  # type: ignore[arg-type]
    start = fresh_start(Config(env=make, network="mlp"))  # type: ignore[arg-type]
    assert isinstance(start.network.trunk.torso, Perceptron)


@pytest.mark.parametrize(
    "space",
    [
        observes_dict().observation_space,
        spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]),
        spaces.Discrete(5),
    ],
)
def test_observations_that_are_no_array_are_refused_with_the_wrapper_that_helps(space: spaces.Space) -> None:
    with pytest.raises(UserError, match=r"gymnasium\.wrappers\.FlattenObservation") as caught:
        make_network(Config(), space, DISCRETE)
    assert "\n" not in str(caught.value)
