"""Contender: asyncrl's own trainer with its worker processes, as `asyncrl train` runs it."""

import dataclasses
import sys
import tempfile
import threading
import time
from pathlib import Path

from meter import Window, window_arguments

from asyncrl.presets import PRESETS, preset_for
from asyncrl.store import Counter
from asyncrl.trainer import Trainer

POLL_SECONDS = 0.02


def watch(trainer: Trainer, window: Window, hold: bool) -> None:
    """Measure while `trainer` runs, then ask it to stop. Start-up ends when every worker has made an update."""
    updates, steps = (trainer.store.counters[:-1, counter] for counter in (Counter.UPDATES, Counter.STEPS))
    try:
        while not window.is_over(int(steps.sum()) if updates.all() else 0):
            time.sleep(POLL_SECONDS)
        if hold:
            window.print_measurement()
            sys.stdin.read()
    finally:
        trainer.interrupted = True


def main() -> None:
    """Train, measure, print."""
    parser = window_arguments(__doc__ or "")
    parser.add_argument("--env-options", default="")
    parser.add_argument("--preset", default="fast", choices=list(PRESETS))
    parser.add_argument("--network", default="auto")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--envs-per-worker", type=int)
    parser.add_argument("--hold", action="store_true", help="print, then train on until standard input ends")
    args = parser.parse_args()
    preset = preset_for(args.preset, args.env, env_options=args.env_options, workers=args.workers)
    config = dataclasses.replace(
        preset,
        network=args.network,
        workers=args.workers,
        envs_per_worker=args.envs_per_worker or preset.envs_per_worker,
    )
    window = Window(args.warmup, args.seconds, args.started)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        (run_dir / "checkpoints").mkdir(parents=True)
        trainer = Trainer(config, run_dir, show=lambda _: None, announce=print)
        threading.Thread(target=watch, args=(trainer, window, args.hold), daemon=True).start()
        trainer.run()
    if not args.hold:
        window.print_measurement()


if __name__ == "__main__":
    main()
