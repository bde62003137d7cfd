"""The whole configuration of a run as one frozen dataclass.

The comment above each field is its help text on the command line. `_frames` are emulator frames (4 per step on Atari),
other counts agent decisions (steps); times are in seconds. `Paper:` marks what the paper leaves open.
"""

import difflib
import functools
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asyncrl.checks import CHECKS, CONFLICTS
from asyncrl.errors import LONGEST, UserError, shortened
from asyncrl.handed import hand_over, is_handed
from asyncrl.keywords import format_keywords, parse_keywords
from asyncrl.typed import typed

Algo = Literal["a3c", "n-step-q", "one-step-q", "one-step-sarsa", "a2c"]
Core = Literal["ff", "lstm"]
NetworkName = Literal["auto", "conv2013", "conv2015", "conv-small", "mlp", "mlp200"]
OptimizerName = Literal["shared-rmsprop", "rmsprop", "momentum-sgd", "adam", "shared-adam"]
UpdateDiscipline = Literal["hogwild", "locked", "synchronous"]
Schedule = Literal["processes", "simulated"]
DelayName = Literal["constant", "uniform", "exponential", "gamma", "pareto"]
Device = Literal["cpu", "cuda"]
PresetName = Literal[
    "fast",
    "paper",
    "paper57",
    "fast-pixels",
    "fast-vector",
    "fast-continuous",
    "fast-continuous-pixels",
    "paper-continuous",
]
Initialization = Literal["torch", "orthogonal"]
Scaling = Literal["none", "sqrt", "linear"]


# What settings of older files are called now.
RENAMED = {
    "final_learning_rate": "final_learning_rate_fraction",
    "final_entropy_cost": "final_entropy_fraction",
    "epsilon": "optimizer_epsilon",
    "momentum": "adam_beta1",
}


def require_settings(names: Iterable[str]) -> None:
    """Complain of the first name that is no field of `Config`, with the one that may be meant."""
    known = Config.__dataclass_fields__
    for unknown in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else "asyncrl.Config lists them all"
        now = f"it is {RENAMED[unknown]} now" if unknown in RENAMED else hint
        raise UserError(f"there is no setting {shortened(unknown)}: {now}")


@dataclass(frozen=True)
class Config:
    """All that decides a run. Plain data: it is written to `config.toml` and read back from there."""

    # Gymnasium id of the environment (PACKAGE:ID has a package imported that brings it), or an import path
    # package.module:function that makes one. From Python also a function that makes one.
    env: str = "ALE/Pong-v5"
    # What it is made with, as NAME=VALUE,NAME=VALUE: opponents=4,car=fast. From Python also a dict.
    env_options: str = ""
    # Method: a3c (Algorithm S3), n-step-q (S2), one-step-q (1), one-step-sarsa (section 4), or a2c: a3c's
    # synchronous twin, all environments of all workers as one batch.
    algo: Algo = "a3c"
    # ff, or lstm: recurrent cells after the last hidden layer (section 5.1).
    core: Core = "ff"
    # Where the settings start from: fast (least wall-clock time), paper (supplement 8) or paper57 (section 5.1); for
    # continuous actions the first two mean fast-continuous (from images fast-continuous-pixels) and paper-continuous
    # (supplement 9); fast means fast-pixels for images of other worlds than Atari from 36 pixels on, and fast-vector
    # where observations are no images.
    preset: PresetName = "fast"
    # Seed of everything random, 0 to 2147483647. Workers as processes race, so equal seeds give equal runs only with
    # one worker, with --schedule simulated or with a2c.
    seed: int = 0

    # Actor-learner processes (supplement 8: 16). With more than four of them, the presets fast and fast-pixels have
    # fewer environments for each and a smaller learning rate (a3c).
    workers: int = 2
    # Environments of each worker, stepped as one batch (B). The paper is 1.
    envs_per_worker: int = 8
    # How workers share the parameters: hogwild (no locks, section 4), locked (one at a time) or synchronous (in rounds:
    # all pull the same parameters, then push in the order of workers).
    update: UpdateDiscipline = "hogwild"
    # Workers as processes, or simulated: interleaved in one process in an order drawn from the seed, reproducibly.
    schedule: Schedule = "processes"
    # Simulated: how long a worker is between its pull and its push (all of mean 1).
    delays: DelayName = "exponential"
    # Simulated: repeat the order of pulls and pushes that this run kept by --record-order.
    replay: Path | None = None
    # Processes: keep the order of pulls and pushes in the run's folder, 10 bytes each.
    record_order: bool = False
    # Arithmetic on images: auto takes our own compiled kernels where there is a C compiler, torch never does. bf16: the
    # same kernels, with the factors of their products rounded to bfloat16 (8 significant bits), which only processors
    # with AVX-512 BF16 can. Only convolutions and the layer after them, on images of bytes, are rounded; evaluations
    # are in float32.
    kernels: Literal["auto", "bf16", "torch"] = "auto"
    # Where a2c computes.
    device: Device = "cpu"
    # Threads of a2c's arithmetic on a CPU: of our kernels, where they compute (PyTorch has one beside them), else of
    # PyTorch. By default one for each core, or one in all where the network is small. Asynchronous workers have one
    # each.
    threads: int | None = None
    # When to stop, in environment frames of all workers together (4 frames = 1 step on Atari). Schedules end here too
    # (section 5.1: a day of 16 cores, by its authors 320 million).
    frames: int = 10_000_000
    # When to stop, in seconds of training.
    max_time: float | None = None
    # Stop once an evaluation of --eval-episodes episodes reaches this mean score.
    stop_at_score: float | None = None

    # Atari: repeat the previous action with probability 0.25 (the paper has no sticky actions).
    sticky: bool = False
    # Whether returns end where a life is lost (the game goes on). Paper: not stated; the authors' Atari code does.
    life_loss_ends: bool = True
    # Clip rewards to [-1, 1] in the learner (scores stay raw): auto means on Atari only.
    clip_rewards: Literal["auto", "on", "off"] = "auto"
    # What the learner multiplies rewards by, after clipping (scores stay raw): values should be a few units (not in the
    # paper).
    reward_scale: float = 1.0
    # Whether to bootstrap from the true final observation where a time limit cut an episode.
    bootstrap_on_truncation: bool = True

    # Steps of each environment per update (t_max, I_AsyncUpdate; supplement 8: 5); none: an update per episode, or per
    # life where --life-loss-ends.
    t_max: int | None = 5
    # Discount gamma per step (supplement 8: 0.99).
    gamma: float = 0.99
    # Actor-critic: lambda of the returns; 1 is the paper's n-step return.
    gae_lambda: float = 1.0
    # Actor-critic: weight beta of the entropy bonus (supplement 8: 0.01).
    entropy_cost: float = 0.01
    # Actor-critic: last entropy weight, as a fraction of the first (the paper keeps it; 0 anneals it away).
    final_entropy_fraction: float = 1.0
    # Actor-critic: share of --frames after which the entropy weight is the last one.
    entropy_share: float = 1.0
    # Actor-critic: weight of the value loss 1/2 (R - V)^2. Paper: not printed; the authors use 0.5.
    value_cost: float = 0.5

    # Network: conv2013 (16-32-256, supplement 8), conv2015 (32-64-64-512, section 5.1), conv-small (16-128), mlp
    # (64-64), mlp200 (supplement 9), or auto by observation. From Python also a function that makes one's own torso.
    network: NetworkName = "auto"
    # Actor-critic: whether policy and value share no layer (supplement 9: continuous control).
    separate_networks: bool = False
    # Variance of continuous actions: spherical, one for all dimensions (supplement 9), or one per-dimension.
    policy_variance: Literal["spherical", "per-dimension"] = "spherical"
    # Smallest standard deviation of continuous actions, whose bounds are -1 and 1. Paper: none is stated.
    min_deviation: float = 0.001
    # Mean of continuous actions: linear (supplement 9), or tanh, which stays within their bounds where finite.
    policy_mean: Literal["linear", "tanh"] = "linear"
    # Initial weights: torch (uniform +-1/sqrt(fan-in), as the authors' Torch) or orthogonal; an LSTM's are always
    # uniform +-1/sqrt(cells).
    initialization: Initialization = "torch"
    # Whether to centre and scale the inputs (not in the paper): images by their mean and deviation in random play,
    # measured once; vectors by the mean and deviation of each number in all that the workers have seen so far.
    standardize_inputs: bool = False
    # Cells of the LSTM core (section 5.1: 256).
    lstm_size: int = 256

    # Optimiser; shared-rmsprop shares its statistics between workers without locks (section 4). shared-adam wants
    # --update locked or synchronous.
    optimizer: OptimizerName = "shared-rmsprop"
    # Learning rate at the start, for one environment per worker (supplement 8: drawn for each run, log-uniform from
    # 1e-4 to 1e-2).
    learning_rate: float = 7e-4
    # Learning rate at the end of --frames, as a fraction of the first (supplement 8: annealed to 0).
    final_learning_rate_fraction: float = 0.0
    # How the learning rate grows with --envs-per-worker (a2c: all environments): not at all, with its root, or
    # linearly.
    learning_rate_scaling: Scaling = "none"
    # Decay of the squared gradients (alpha of section 4: 0.99; adam's beta2), and of the momentum of momentum-sgd.
    decay: float = 0.99
    # Decay of adam's mean gradient. With adam and more than two workers, W, this and --decay are taken to the power
    # W / 2: each worker's moments then forget as fast, in updates of all.
    adam_beta1: float = 0.9
    # Added to the squared gradients, inside RMSProp's root (outside Adam's). Paper: not printed; the authors use 0.1.
    optimizer_epsilon: float = 0.1
    # Largest global norm of a gradient; none for the paper's subset runs, 40 for its 57 games (authors).
    max_grad_norm: float | None = None

    # Q methods: frames over which epsilon falls from 1 (supplement 8: 4 million); none: --epsilon-share of the run.
    epsilon_frames: int | None = 4_000_000
    # Q methods with --epsilon-frames none: share of --frames over which epsilon falls.
    epsilon_share: float = 0.4
    # Q methods: where epsilon falls to, drawn for each environment from these (supplement 8: 0.1, 0.01, 0.5) ...
    final_epsilons: tuple[float, ...] = (0.1, 0.01, 0.5)
    # ... with these probabilities (supplement 8: 0.4, 0.3, 0.3).
    final_epsilon_probabilities: tuple[float, ...] = (0.4, 0.3, 0.3)
    # Q methods: frames between copies to the target parameters (I_target, supplement 8: 40000); none: --target-share of
    # the run.
    target_frames: int | None = 40_000
    # Q methods with --target-frames none: share of --frames between copies to the target parameters.
    target_share: float = 0.004

    # Seconds between checkpoints.
    checkpoint_every: float = 180.0
    # Simulated and a2c: frames after which all environments begin anew, behind a checkpoint, so that a run resumed from
    # it equals one that went on; none: 250,000 for each environment, and a million at least (with --replay a million).
    checkpoint_frames: int | None = None
    # Seconds between evaluations in a process of their own; none: evaluate only when --stop-at-score needs it (once
    # training scores reach it; Q methods, which explore too much for that, now and then).
    eval_every: float | None = None
    # Episodes of an evaluation.
    eval_episodes: int = 30
    # Folder of the run; by default runs/<env>/<algo>-<seed>-<time>-<process>.
    run_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in ("env", "network"):
            object.__setattr__(self, name, hand_over(getattr(self, name)))
        if isinstance(self.env_options, Mapping):
            object.__setattr__(self, "env_options", _written(self.env_options))
        if not isinstance(self.env, str) or not self.env.isprintable() or not 0 < len(self.env) <= LONGEST:
            raise UserError(
                f"--env is {shortened(str(self.env))}: it must be a Gymnasium id, an import path "
                "package.module:function, or (from Python) a function that makes an environment"
            )
        for name, hint in _field_types().items():
            if name in ("env", "network") and is_handed(getattr(self, name)):
                continue
            object.__setattr__(self, name, typed(getattr(self, name), hint, f"--{name.replace('_', '-')}"))
        for name, valid, hint in CHECKS:
            value = getattr(self, name)
            if not valid(value):
                told = shortened(value) if isinstance(value, str) else value
                raise UserError(f"--{name.replace('_', '-')} is {told}: it must be {hint}")
        for clashes, line in CONFLICTS:
            if clashes(self):
                raise UserError(line)

    @property
    def env_keywords(self) -> dict[str, Any]:
        """What the environment is made with."""
        return parse_keywords(self.env_options)

    @property
    def initial_learning_rate(self) -> float:
        """Learning rate at frame 0 with this number of environments per worker."""
        batch = self.envs_per_worker
        return (
            self.learning_rate
            * {"none": 1.0, "sqrt": math.sqrt(batch), "linear": float(batch)}[self.learning_rate_scaling]
        )

    @property
    def epsilon_end_frames(self) -> int:
        """Global frame at which epsilon has fallen to its end."""
        return round(self.epsilon_share * self.frames) if self.epsilon_frames is None else self.epsilon_frames

    @property
    def target_interval_frames(self) -> int:
        """Frames between copies to the target parameters."""
        return max(round(self.target_share * self.frames), 1) if self.target_frames is None else self.target_frames

    @property
    def era_frames(self) -> int:
        """Frames of a simulated run or a2c until all environments begin anew: for two of the longest games at least.

        A replay, which saves only then, does so more often.
        """
        if self.checkpoint_frames is not None:
            return self.checkpoint_frames
        return 1_000_000 if self.replay else max(1_000_000, 250_000 * self.workers * self.envs_per_worker)

    @property
    def is_actor_critic(self) -> bool:
        """Whether the method learns a policy and values (and no action values with target parameters)."""
        return self.algo in ("a3c", "a2c")

    @property
    def is_in_one_process(self) -> bool:
        """Whether the trainer itself does the workers' work, reproducibly."""
        return self.schedule == "simulated" or self.algo == "a2c"

    @property
    def is_recurrent(self) -> bool:
        """Whether the network carries a state from step to step."""
        return self.core == "lstm"


@functools.cache
def _field_types() -> dict[str, Any]:
    return typing.get_type_hints(Config)


def _written(keywords: Mapping[str, Any]) -> str:
    try:
        return format_keywords(keywords)
    except (TypeError, ValueError) as error:
        raise UserError(f"--env-options: {error}; make the environment in a function of yours") from None
