"""Contender: several commands of the same contender at once, which share the cores and nothing else.

python side_by_side.py 2 asyncrl_train.py --workers 1 ...
"""

import json
import subprocess
import sys
from dataclasses import asdict
from statistics import fmean

from meter import Measurement


def add(parts: list[Measurement]) -> Measurement:
    """Return what they did together. Each counts the processor time and memory of the whole session, so of all."""
    seconds = fmean(part.seconds for part in parts)
    return Measurement(
        steps=round(seconds * sum(part.steps_per_second for part in parts)),
        seconds=seconds,
        cpu_seconds=seconds * fmean(part.cpu_seconds / part.seconds for part in parts),
        foreign_load=max(part.foreign_load for part in parts),
        startup_seconds=max(part.startup_seconds for part in parts),
        memory_megabytes=max(part.memory_megabytes for part in parts),
    )


def main() -> None:
    """Start all, wait for all, print their sum."""
    number, *command = sys.argv[1:]
    processes = [
        subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) for _ in range(int(number))
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("one of them failed")
    print(json.dumps(asdict(add([Measurement(**json.loads(output.splitlines()[-1])) for output in outputs]))))


if __name__ == "__main__":
    main()
