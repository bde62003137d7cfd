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


def measured(process: subprocess.Popen[str]) -> Measurement:
    """Return what `process` measures; it works on."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return Measurement(**json.loads(line))
    sys.exit(1)  # its own last line tells why


def main() -> None:
    """Start all, let all work until the last has measured, print their sum."""
    number, *command = sys.argv[1:]
    # One that ended before the others have measured would take its processor time out of their session's sum.
    processes = [
        subprocess.Popen([sys.executable, *command, "--hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(int(number))
    ]
    try:
        parts = [measured(process) for process in processes]
        for process in processes:
            process.communicate()
    finally:
        for process in processes:
            process.terminate()  # those that outlive another's failure
    print(json.dumps(asdict(add(parts))))


if __name__ == "__main__":
    main()
