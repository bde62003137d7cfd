"""What the adapters share: arguments, networks, the watch that ends a training. Needs torch and the standard library.

An adapter trains one library in that library's own virtual environment and asks its watch after every update whether it
is over. The watch is a `Window` that measures speed, or `Snapshots`, which write the policy to a folder for
`time_to_score.py` to judge.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
from meter import Window, window_arguments
from torch import Tensor, nn

FRAMES_PER_STEP = 4
ENDLESS_STEPS = 10**12
WANTED = "wanted"  # the file by which time_to_score.py asks for a policy
PUBLISHED_STEPS = 10_000_000  # agent steps of the published Atari trainings, over which their schedules run
# (channels, kernel, stride) of the convolutions, then hidden units: Mnih et al., 2013 and 2015.
NETWORKS = {
    "conv2013": (((16, 8, 4), (32, 4, 2)), 256),
    "conv2015": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
}


class Snapshots:
    """Writes the policy when asked, as TorchScript: bytes [N, 4, 84, 84] to the actions' logits [N, A].

    Args:
        folder: to write `<steps>.pt` to, complete when it has that name, once there is a file `wanted`, which goes.
        policy: returns the module as it is now, or None if there is none yet.
    """

    def __init__(self, folder: Path, policy: Callable[[], nn.Module | None]) -> None:
        self._folder, self._wanted, self._policy = folder, folder / WANTED, policy

    def is_over(self, steps: int) -> bool:
        """Write if it is wanted; never over, as whoever started the training ends it."""
        if self._wanted.exists() and (policy := self._policy()) is not None:
            self._wanted.unlink()
            write_snapshot(self._folder, steps, policy)
        return False


def write_snapshot(folder: Path, steps: int, policy: nn.Module) -> None:
    """Write `policy` as it was after `steps` agent steps."""
    frames = torch.zeros(2, 4, 84, 84, dtype=torch.uint8)
    with torch.no_grad():
        script = torch.jit.trace(policy, frames, check_trace=False)
    aside = folder / "writing"
    script.save(str(aside))
    aside.rename(folder / f"{steps}.pt")


def peer_arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every adapter takes."""
    parser = window_arguments(description or "")
    parser.add_argument("--network", choices=list(NETWORKS), default="conv2013")
    parser.add_argument("--envs", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshots", type=Path, help="write policies there instead of measuring speed")
    return parser


def make_watch(args: argparse.Namespace, policy: Callable[[], nn.Module | None]) -> Window | Snapshots:
    """Return what says when the training is over; `policy` returns the module as it is when called."""
    if args.snapshots is not None:
        return Snapshots(args.snapshots, policy)
    return Window(args.warmup, args.seconds, args.started)


def finish(watch: Window | Snapshots) -> NoReturn:
    """Hand over the measurement and end this process and, as leader of a session, all that it started."""
    if isinstance(watch, Window):
        watch.print_measurement()
    sys.stderr.flush()
    if os.getsid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def orthogonal(layer: nn.Module, gain: float = math.sqrt(2)) -> nn.Module:
    """Give `layer` orthogonal weights and no biases; return it."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def make_torso(network: str, initialize: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Sequential:
    """Return the layers from floats [N, 4, 84, 84] to hidden units, ReLU after each."""
    convolutions, hidden = NETWORKS[network]
    layers: list[nn.Module] = []
    channels, size = 4, 84
    for out_channels, kernel, stride in convolutions:
        layers += [initialize(nn.Conv2d(channels, out_channels, kernel, stride)), nn.ReLU()]
        channels, size = out_channels, (size - kernel) // stride + 1
    return nn.Sequential(*layers, nn.Flatten(), initialize(nn.Linear(channels * size * size, hidden)), nn.ReLU())


class Scaled(nn.Module):
    """Bytes divided by 255, then `layers` one after the other: a policy to write."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames.float() / 255)


def game_name(env: str) -> str:
    """Return "Pong" of "ALE/Pong-v5"."""
    return env.removeprefix("ALE/").partition("-")[0]
