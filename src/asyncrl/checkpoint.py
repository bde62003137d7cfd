"""Safe files of a run: tensors as safetensors, the rest as JSON and TOML. Nothing here can run code on loading.

A checkpoint is a folder `checkpoints/<frames>/` with `parameters.safetensors` (named tensors of the network),
`optimizer.safetensors` (flat statistics and target) and `state.json` (counters, spaces, SHA-256 of the other two). It
is written aside, synced and renamed, so that a folder with that name is whole. Workers go on while it is written: it
is live, torn between updates as everything else under Hogwild.
"""

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from asyncrl.config import Config
from asyncrl.errors import UserError, shortened
from asyncrl.inputs import InputStatistics
from asyncrl.machine import sync
from asyncrl.networks import Network, make_network
from asyncrl.pointers import set_aside
from asyncrl.spaces_json import decode_space
from asyncrl.store import ParameterStore, adam_decays

SCHEMA = 1
MOST_SETS = 8  # of workers' own statistics that a checkpoint keeps apart: those of 64 would take seconds to write
_LARGEST_SCORE = 1e300
_FILES = ("parameters.safetensors", "optimizer.safetensors")


_STATE = {  # what state.json must hold
    "env": str,
    "frames": int,
    "seconds": int | float,
    "counters": list,
    "generation": int,
    "best_score": int | float | None,
    "evaluation": dict | None,
    "spaces": dict,
    "sha256": dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """What was read back."""

    path: Path
    state: dict[str, Any]
    parameters: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save_checkpoint(folder: Path, store: ParameterStore, network: Network, state: dict[str, Any]) -> Path:
    """Write `folder/<frames>/` from the live store and return it.

    Args:
        folder: the run's `checkpoints`.
        store: its parameters and statistics are copied once, then written.
        network: of the same shape, flattened; its parameters are overwritten by the store's.
        state: counters and all that JSON can hold; must have "frames".

    Raises:
        OSError: if it cannot be written; then it is not there, and older ones are as they were.
    """
    frames = state["frames"]
    final, aside = folder / str(frames), folder / f".writing-{frames}"
    replaced = set_aside(final)
    if replaced.exists() and not final.exists():  # a process was killed between the two renames below
        replaced.rename(final)
    for path in (aside, replaced):  # of a process that was killed
        shutil.rmtree(path, ignore_errors=True)
    aside.mkdir()  # not its parents: a run's folder that was moved away must not come back without its configuration
    try:
        _write({name: _copied(tensor) for name, tensor in network.state_dict().items()}, aside / _FILES[0])
        _write(_optimizer_tensors(store), aside / _FILES[1])
        digests = {name: _sha256(aside / name) for name in _FILES}
        text = json.dumps({"schema": SCHEMA, **state, "sha256": digests}, indent=1)
        (aside / "state.json").write_text(text + "\n", encoding="utf-8")
        for path in [*aside.iterdir(), aside]:
            sync(path)
        try:
            if final.exists():  # the same frame count: the newer one wins
                final.rename(replaced)
            aside.rename(final)
        except BaseException:  # a Ctrl-C too
            if replaced.exists() and not final.exists():
                replaced.rename(final)
            raise
        sync(folder)
    finally:
        for path in (aside, replaced):
            shutil.rmtree(path, ignore_errors=True)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint folder.

    Raises:
        UserError: if it is missing, damaged, or of another version.
    """
    try:
        if not (path / "state.json").is_file():
            raise FileNotFoundError("it has no state.json")
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable checkpoint: {error}") from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise UserError(f"{path} was written by another version of asyncrl: this one reads schema {SCHEMA}")
    wrong = [name for name, kind in _STATE.items() if not isinstance(state.get(name), kind)]
    if not wrong:
        wrong = _out_of_range(state)
    if wrong:
        raise UserError(f"{path} is damaged: state.json has no proper {wrong[0]}")
    tensors = []
    for name in _FILES:
        file = path / name
        if not file.is_file() or _sha256(file) != state["sha256"].get(name):
            raise UserError(f"{file} is damaged or missing: use another folder of {path.parent}")
        try:
            tensors.append(load_file(file))
        except SafetensorError as error:
            raise UserError(f"{file} is damaged: {error}") from None
    _require_finite(path / _FILES[1], tensors[1].values())
    return Checkpoint(path, state, tensors[0], tensors[1])


def _require_finite(file: Path, tensors: Iterable[Tensor]) -> None:
    try:
        is_finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
    except RuntimeError as error:  # for kinds of numbers that torch only stores
        raise UserError(f"{file} is damaged: {error}") from None
    if not is_finite:
        raise UserError(f"{file} is damaged: it holds what is no finite number")


def _out_of_range(state: dict[str, Any]) -> list[str]:
    """Return the names of numbers that no training would write."""
    counts = {name: state.get(name, 0) for name in ("frames", "seconds", "generation", "order_position")}
    wrong = [name for name, count in counts.items() if not isinstance(count, int | float) or not 0 <= count < 2**62]
    wrong += [name for name in ("generation", "order_position") if not isinstance(counts[name], int)]
    if not abs(state["best_score"] or 0) < _LARGEST_SCORE:  # so written, it refuses NaN too
        wrong.append("best_score")
    score = (state["evaluation"] or {"evaluated_score": 0}).get("evaluated_score")
    return wrong if isinstance(score, int | float) and abs(score) < _LARGEST_SCORE else [*wrong, "evaluation"]


def restore_network(config: Config, checkpoint: Checkpoint) -> Network:
    """Build the network of `config` with the checkpoint's parameters; builds no environment.

    Raises:
        UserError: if the checkpoint is of another game or network.
    """
    spaces_ = checkpoint.state.get("spaces", {})
    observation, action = (decode_space(spaces_.get(name)) for name in ("observation", "action"))
    statistics, size = input_statistics(config, checkpoint), math.prod(observation.shape or ())
    if statistics is not None and (statistics.mean.size != size or statistics.deviation.size not in (1, size)):
        raise UserError(f"{checkpoint.path} is damaged: its inputs are not those of its observations")
    network = make_network(config, observation, action, statistics)
    own = {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
    theirs = {name: (tensor.shape, tensor.dtype) for name, tensor in checkpoint.parameters.items()}
    if checkpoint.state.get("env") != config.env or own != theirs:
        told = shortened(str(checkpoint.state.get("env"))).strip("'")
        raise UserError(
            f"{checkpoint.path} is a checkpoint of {told} with another network or game than "
            f"the run's configuration ({config.env}, {config.algo}, {config.core}) says"
        )
    # A torso of the user's own may keep infinity in what it does not learn, such as a mask.
    learned = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    learned += [name for name in theirs if name.startswith(("trunk.inputs.", "value_trunk.inputs."))]
    _require_finite(checkpoint.path / _FILES[0], (checkpoint.parameters[name] for name in learned))
    network.load_state_dict(checkpoint.parameters)
    return network


def input_statistics(config: Config, checkpoint: Checkpoint) -> InputStatistics | None:
    """Return the statistics that the checkpoint's network has for its inputs, or None where it leaves them alone."""
    mean, scale = (checkpoint.parameters.get(f"trunk.inputs.{name}") for name in ("mean", "scale"))
    if mean is None or scale is None or not config.standardize_inputs:
        return None
    # The network will invert this again. No bit is lost: 1 / (1 / (1 / x)) is 1 / x in floating point too.
    return InputStatistics(mean.float().numpy(), 1 / scale.float().numpy())


def restore_store(store: ParameterStore, checkpoint: Checkpoint) -> None:
    """Fill a fresh store from a checkpoint: statistics, target, counters as the base of all totals."""
    try:
        saved, ages, target = (checkpoint.optimizer[name] for name in ("statistics", "ages", "target"))
        counters = np.array(checkpoint.state["counters"], np.int64).sum(0)
        if saved.shape[1:] != store.statistics.shape[1:]:
            raise UserError(f"{checkpoint.path} was trained with another optimiser: leave --optimizer as it was")
        if any(saved[:, i].min() < 0 for i, name in enumerate(store.spec.statistics) if name == "mean_square"):
            raise ValueError("mean squares below 0")
        store.target.copy_(target)
        for owner in range(store.spec.owners):  # another number of workers: they take over each other's in turn
            store.statistics[owner].copy_(saved[owner % len(saved)])
            store.ages[owner] = ages[owner % len(ages)].long().numpy()
            if store.config.optimizer == "adam":
                _correct_bias_(store, owner, adam_decays(store.config, len(saved)))
        if min(counters.min(), store.ages.min()) < 0:
            raise ValueError("counters below 0")
        store.resume_counters(counters)
    except (KeyError, RuntimeError, ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"{checkpoint.path} is damaged: {error}") from None


def _correct_bias_(store: ParameterStore, owner: int, before: tuple[float, float]) -> None:
    """Let moments that decayed by `before` mean the same with the decays of this store's number of workers."""
    age = int(store.ages[owner, 0])
    decays = zip(before, adam_decays(store.config, store.spec.owners), strict=True)
    for moment, (old, new) in zip(store.statistics[owner], decays, strict=True):
        if age > 0 and old != new:
            moment.mul_((1 - new**age) / (1 - old**age))


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import gymnasium

    import asyncrl

    return {
        "asyncrl": asyncrl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
    }


def _optimizer_tensors(store: ParameterStore) -> dict[str, Tensor]:
    merges = store.spec.owners > MOST_SETS and not store.config.is_in_one_process  # which repeats to the last bit
    statistics, ages = _merged_statistics(store) if merges else (store.statistics.clone(), store.ages.copy())
    tensors = {"statistics": statistics, "target": store.target.clone(), "ages": torch.from_numpy(ages)}
    if store.inputs is not None:
        tensors["input_sums"] = torch.from_numpy(store.inputs.merged())
    return tensors


def _merged_statistics(store: ParameterStore) -> tuple[Tensor, np.ndarray]:
    """Return the mean of workers' own statistics, as [1, statistics, P], and its age [1, 8]: as if of one worker."""
    merged, ages = torch.zeros_like(store.statistics[:1]), store.ages.copy()
    decays = [(0.0, 0.0)] * len(store.spec.statistics)  # statistics that begin at 0 and stay as they are
    if store.config.optimizer == "adam":
        decays = list(zip(adam_decays(store.config, store.spec.owners), adam_decays(store.config, 1), strict=True))
    age, owners = int(ages[:, 0].max()), np.flatnonzero(ages[:, 0])
    for owner in owners:
        for mean, own, (old, new) in zip(merged[0], store.statistics[owner], decays, strict=True):
            mean.add_(own, alpha=(1 - new**age) / (1 - old ** int(ages[owner, 0])) / len(owners))
    ages[0, 0] = age
    return merged, ages[:1]


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)  # safetensors takes no other


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    # Not by safetensors' `save_file`: its errors hide the system's, such as that of a full disk.
    path.write_bytes(save(tensors))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
