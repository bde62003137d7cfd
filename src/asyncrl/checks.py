"""Which values of settings are valid, and which settings contradict each other."""

import math
from collections.abc import Callable
from typing import Any

from asyncrl.keywords import parse_keywords

MOST_WORKERS = 1024


def _positive(value: float) -> bool:
    return 0 < value < math.inf


def _positive_single(value: float) -> bool:
    return 0 < value <= 1e30  # with room for what it is multiplied by, in float32


def _decay(value: float) -> bool:
    return 0 <= value <= 0.999999  # nearer to 1 float32 loses what is left of 1 - decay


def _none_or_positive(value: float | None) -> bool:
    return value is None or _positive(value)


def _fraction(value: float) -> bool:
    return 0 <= value <= 1


def _share(value: float) -> bool:
    return 0 < value <= 1


def _not_negative(value: float) -> bool:
    return 0 <= value < math.inf


def _are_keywords(text: str) -> bool:
    try:
        return not {"id", "render_mode"} & set(parse_keywords(text))
    except ValueError:
        return False


# (field, whether its value is valid, what it must be)
CHECKS: tuple[tuple[str, Callable, str], ...] = (
    ("env_options", _are_keywords, "NAME=VALUE,NAME=VALUE, such as opponents=4,car=fast (no id or render_mode)"),
    ("workers", lambda n: 1 <= n <= MOST_WORKERS, f"between 1 and {MOST_WORKERS}"),
    ("envs_per_worker", lambda n: 1 <= n <= 4096, "between 1 and 4096"),
    ("threads", lambda n: n is None or 1 <= n <= 1024, "between 1 and 1024, or none"),
    ("frames", lambda n: 1 <= n <= 10**15, "between 1 and 10**15"),
    ("max_time", _none_or_positive, "positive"),
    ("stop_at_score", lambda x: x is None or math.isfinite(x), "a finite number"),
    ("seed", lambda n: 0 <= n < 2**31, "between 0 and 2147483647"),
    ("reward_scale", _positive, "positive"),
    ("t_max", lambda n: n is None or 1 <= n <= 10_000, "between 1 and 10000, or none for whole episodes"),
    ("min_deviation", lambda x: 1e-6 <= x <= 1e3, "between 0.000001 and 1000"),
    ("gamma", _fraction, "between 0 and 1"),
    ("gae_lambda", _fraction, "between 0 and 1"),
    ("entropy_cost", _not_negative, "0 or more"),
    ("final_entropy_fraction", _fraction, "between 0 and 1"),
    ("entropy_share", _share, "above 0 and at most 1"),
    ("value_cost", _not_negative, "0 or more"),
    ("lstm_size", _positive, "at least 1"),
    ("learning_rate", _positive_single, "positive, and at most 1e30"),
    ("final_learning_rate_fraction", _fraction, "between 0 and 1"),
    ("decay", _decay, "between 0 and 0.999999"),
    ("adam_beta1", _decay, "between 0 and 0.999999"),
    ("optimizer_epsilon", lambda x: 1e-30 <= x <= 1e30, "between 1e-30 and 1e30"),
    ("max_grad_norm", _none_or_positive, "positive"),
    ("final_epsilons", lambda xs: xs and all(map(_fraction, xs)), "one number or more between 0 and 1"),
    (
        "final_epsilon_probabilities",
        lambda xs: all(map(_fraction, xs)) and math.isclose(sum(xs), 1, abs_tol=1e-6),
        "numbers between 0 and 1 that add up to 1",
    ),
    ("epsilon_frames", lambda n: n is None or _not_negative(n), "0 or more, or none"),
    ("epsilon_share", _fraction, "between 0 and 1"),
    ("target_frames", _none_or_positive, "at least 1, or none"),
    ("target_share", _share, "above 0 and at most 1"),
    ("checkpoint_every", _positive, "positive"),
    ("checkpoint_frames", _none_or_positive, "at least 1, or none"),
    ("eval_every", _none_or_positive, "positive"),
    ("eval_episodes", _positive, "at least 1"),
)

# (whether a configuration contradicts itself, the line that says so)
CONFLICTS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        lambda c: c.optimizer == "shared-adam" and c.update == "hogwild" and c.algo != "a2c",
        "--optimizer shared-adam pairs two statistics, which must not be shared without a lock: "
        "add --update locked or --update synchronous, or choose --optimizer adam",
    ),
    (
        lambda c: c.algo == "a2c" and (c.schedule, c.update, c.record_order) != ("processes", "hogwild", False),
        "--schedule, --update and --record-order are for asynchronous workers: --algo a2c has none",
    ),
    (lambda c: c.device != "cpu" and c.algo != "a2c", "--device cuda is for --algo a2c: other methods run on CPUs"),
    (
        lambda c: c.threads is not None and c.algo != "a2c",
        "--threads is for --algo a2c: asynchronous workers have one thread each (--threads none), choose --workers",
    ),
    (lambda c: c.threads is not None and c.device != "cpu", "--threads is for CPUs: --threads none with --device cuda"),
    (
        lambda c: c.kernels == "bf16" and c.device != "cpu",
        "--kernels bf16 is for CPUs: --kernels auto with --device cuda",
    ),
    (lambda c: c.replay is not None and c.schedule != "simulated", "--replay needs --schedule simulated"),
    (lambda c: c.replay is not None and c.update != "hogwild", "--replay takes its order from a file: leave --update"),
    (
        lambda c: len(c.final_epsilons) != len(c.final_epsilon_probabilities),
        "--final-epsilons and --final-epsilon-probabilities must be as many: one epsilon has the probability 1",
    ),
    (lambda c: c.record_order and c.schedule != "processes", "--record-order needs --schedule processes"),
)
