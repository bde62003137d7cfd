"""Contender: one part of a start, in a process that has imported nothing before. Prints seconds as JSON.

python startup_part.py torch|environments|train ENV PRESET
"""

import json
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncrl.config import PresetName

POLL_SECONDS = 0.002


def import_torch(env: str, preset: "PresetName") -> dict[str, float]:
    """Return seconds to import torch."""
    started = time.monotonic()
    import torch  # noqa: F401

    return {"import torch": time.monotonic() - started}


def build_environments(env: str, preset: "PresetName") -> dict[str, float]:
    """Return seconds to build what one worker steps, and to reset it, without the imports."""
    from asyncrl.envs import make_envs
    from asyncrl.presets import preset_for

    config = preset_for(preset, env)
    make_envs(config, 1).close()
    started = time.monotonic()
    envs = make_envs(config, config.envs_per_worker)
    built = time.monotonic()
    envs.reset(seed=1)
    found = {"a worker's environments": built - started, "and their reset": time.monotonic() - built}
    envs.close()
    return found


def train(env: str, preset: "PresetName") -> dict[str, float]:
    """Return seconds of `asyncrl train`, imports included, to the first gradient and to the first of every worker."""
    started, found = time.monotonic(), {}
    threading.Thread(target=watch, args=(started, found), daemon=True).start()
    from asyncrl.cli import main as asyncrl_main

    with tempfile.TemporaryDirectory() as folder:
        words = ["train", env, "--preset", preset, "--run-dir", f"{folder}/run", "--json"]
        sys.stdout, stdout = sys.stderr, sys.stdout
        code = asyncrl_main(words)
        sys.stdout = stdout
    if len(found) < 2:
        sys.exit(f"asyncrl train ended with exit code {code} before every worker had made an update")
    return found


def watch(started: float, found: dict[str, float]) -> None:
    """Note when the workers of the training in this process push first, and end it."""
    trainer = caught_trainer()
    from asyncrl.store import Counter

    updates = trainer.store.counters[:-1, Counter.UPDATES]
    for name, enough in (("first gradient", updates.any), ("first of every worker", updates.all)):
        while not enough():
            time.sleep(POLL_SECONDS)
        found[name] = time.monotonic() - started
    trainer.interrupted = True


def caught_trainer() -> Any:
    """Return the trainer once it runs, without importing anything before the command itself does."""
    while not hasattr(sys.modules.get("asyncrl.run"), "start_run"):
        time.sleep(POLL_SECONDS)
    trainer_class, caught = sys.modules["asyncrl.trainer"].Trainer, []
    run = trainer_class.run
    trainer_class.run = lambda self: caught.append(self) or run(self)
    while not caught:
        time.sleep(POLL_SECONDS)
    return caught[0]


PARTS = {"torch": import_torch, "environments": build_environments, "train": train}

if __name__ == "__main__":
    name, *world = sys.argv[1:]
    print(json.dumps(PARTS[name](*world)))
