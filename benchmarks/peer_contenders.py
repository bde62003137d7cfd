"""The peers: each library as its documentation sets it up, with 1 and 2 torch threads and a fair number of games."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contenders import Contender, asyncrl_contender, peer_variables, window_options
from peers.venvs import InstallFailed, python_of

if TYPE_CHECKING:
    from bench_peers import Arguments

THREADS = (1, 2)


@dataclass(frozen=True)
class Peer:
    """One way of running a library; threads are tried in turn where it does not set them itself."""

    name: str
    group: str  # the best of a group counts
    venv: str
    options: tuple[str, ...]
    threads: tuple[int, ...] = THREADS
    game: str | None = None  # the only one for which these settings are published

    @property
    def script(self) -> str:
        """The adapter."""
        return f"peers/with_{self.venv}.py"


def _sb3(algo: str, envs: int) -> list[Peer]:
    upper = algo.upper()
    options = ("--algo", algo, "--envs", str(envs))
    documented = [
        Peer(f"SB3 {upper}, {engine}", f"sb3-{algo}", "sb3", (*options, "--engine", engine))
        for engine in ("dummy", "subproc")
    ]
    return [
        *documented,
        Peer(f"SB3 {upper}, ALE vector", f"sb3-{algo}-ale", "sb3", (*options, "--engine", "ale")),
    ]


def _sample_factory(name: str, workers: int, envs: int, mode: str, engine: str) -> Peer:
    options = ("--workers", str(workers), "--envs", str(envs), "--mode", mode, "--engine", engine)
    threads = THREADS if mode == "serial" else (1,)  # each of its processes sets one
    return Peer(f"Sample Factory APPO, {name}", "sample-factory", "sample_factory", options, threads)


# What CleanRL's front page gives for Pong, beside its defaults for all of Atari.
CLEANRL_PONG = ("--envs", "16", "--epochs", "3", "--minibatches", "8", "--clip", "0.2")
PEERS: tuple[Peer, ...] = (
    *_sb3("a2c", 16),
    *_sb3("ppo", 8),
    Peer("pfrl A3C, 2 processes", "pfrl-2", "pfrl", ("--envs", "2"), (1,)),
    Peer("pfrl A3C, 16 processes", "pfrl-16", "pfrl", ("--envs", "16"), (1,)),
    _sample_factory("as in its example", 8, 8, "sync", "own"),
    _sample_factory("2 workers, async", 2, 16, "async", "own"),
    _sample_factory("EnvPool, async", 2, 16, "async", "envpool"),
    _sample_factory("EnvPool, as in its example", 4, 256, "async", "envpool"),
    _sample_factory("EnvPool, serial", 1, 8, "serial", "envpool"),  # an iteration is 1,024 steps, a rollout 128
    Peer("CleanRL-style PPO, EnvPool", "cleanrl", "envpool", ("--envs", "8")),
    Peer("CleanRL-style PPO, EnvPool, as for Pong", "cleanrl-pong", "envpool", CLEANRL_PONG, game="ALE/Pong-v5"),
    Peer("Tianshou PPO, EnvPool", "tianshou", "tianshou", ("--envs", "10", "--algo", "ppo")),
    Peer("Tianshou A2C, EnvPool", "tianshou", "tianshou", ("--envs", "16", "--algo", "a2c")),
)
# Groups of ours, of one setting each.
OURS = ("asyncrl", "asyncrl-paper-2", "asyncrl-paper-16")
GROUPS = tuple(dict.fromkeys(peer.group for peer in PEERS))
# What is compared: how fast a group of ours is beside a group of theirs.
PAIRS = (
    *(("asyncrl", group) for group in GROUPS),
    ("asyncrl-paper-2", "pfrl-2"),
    ("asyncrl-paper-16", "pfrl-16"),
)


def make_peer_contenders(args: "Arguments", env: str, network: str, say: Callable[[str], None]) -> list[Contender]:
    """Return ours and the peers for one game, and those that cannot be installed with the reason."""
    return [*_ours(args, env, network), *_theirs(args, env, network, say)]


def _ours(args: "Arguments", env: str, network: str) -> Iterator[Contender]:
    """Yield the default, and the paper's workers of one game each."""
    batch = args.envs_per_worker
    name = f"asyncrl fast, {args.workers} x {batch}"
    yield asyncrl_contender(name, "asyncrl", args, env, network, "fast", args.workers, batch)
    for workers in (2, 16):
        name = f"asyncrl paper, {workers} x 1"
        yield asyncrl_contender(name, f"asyncrl-paper-{workers}", args, env, network, "paper", workers, 1)


def _theirs(args: "Arguments", env: str, network: str, say: Callable[[str], None]) -> Iterator[Contender]:
    for peer in PEERS:
        if (args.only and peer.group not in args.only) or peer.game not in (None, env):
            continue
        try:
            python, failure = python_of(peer.venv, say), None
        except InstallFailed as reason:
            python, failure = Path("python"), f"cannot be installed: {reason}"
        for threads in peer.threads:
            name = peer.name if len(peer.threads) == 1 else f"{peer.name}, {threads} thread{'s' * (threads > 1)}"
            options = (*peer.options, "--network", network, "--threads", str(threads))
            command = (str(python), peer.script, *options, *window_options(args, env))
            yield Contender(name, peer.group, command, peer_variables(threads), failure)
