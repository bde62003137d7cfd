"""The command line: finds the verb, and tells mistakes in one line."""

import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from asyncrl.errors import UserError
from asyncrl.machine import descendants

USAGE = """asyncrl: asynchronous deep reinforcement learning on CPUs (Mnih et al., 2016)

  asyncrl train ENV [options]        train an agent, as in: asyncrl train ALE/Pong-v5
  asyncrl resume RUN [options]       go on with a run from its latest checkpoint
  asyncrl eval RUN [options]         play full episodes and report their scores
  asyncrl record RUN OUT.mp4         film an episode
  asyncrl plot RUN [RUN ...]         draw learning curves against frames and against time
  asyncrl envs                       list the worlds, and the command that installs each missing one
  asyncrl bench [ENV] [options]      measure training speed here; --profile: where each microsecond goes
  asyncrl tune ENV [options]         try workers and environments for a minute and propose the best

asyncrl VERB --help lists the options of a verb. Numbers may be written 10M, 2.5e6, 20min, 1h30min."""

# Where each verb is, as functions from the remaining arguments to an exit code. Imported when used.
VERBS = {
    "train": "train_verbs:train_verb",
    "resume": "train_verbs:resume_verb",
    "eval": "show_verbs:eval_verb",
    "record": "show_verbs:record_verb",
    "plot": "show_verbs:plot_verb",
    "envs": "worlds:envs_verb",
    "bench": "profile:bench_verb",
    "tune": "tune:tune_verb",
}


def command() -> int:
    """Be the program `asyncrl`: run one verb, then end what environments have started and their `close` left behind."""
    inherited = descendants(os.getpid())
    try:
        return main()
    finally:
        if "multiprocessing" in sys.modules:  # without which no environment has been built
            _end_leftovers(inherited)


def _end_leftovers(inherited: list[int]) -> None:
    """End them whatever comes; afterwards a signal ends what threads of an environment may keep alive."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    try:
        from asyncrl.children import end_leftovers

        end_leftovers(inherited)
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 for a mistake of the user (told in one line), or 130 if interrupted.

    A training that was interrupted also returns 130: `asyncrl train a; asyncrl train b` in a script shall stop. SIGTERM
    ends other verbs with 143, and a reader of our output that has gone with 141, as the shell would count them.
    """
    _open_closed_streams()
    args = list(sys.argv[1:] if args is None else args)
    verb, rest = (args[0], args[1:]) if args else ("--help", [])
    try:
        if verb in ("-h", "--help", "help"):
            print(USAGE)
            return 0
        if verb == "--version":
            return _version()
        if verb not in VERBS:
            raise UserError(f"there is no verb {verb!r}, only {', '.join(VERBS)}; see asyncrl --help")
        module, _, function = VERBS[verb].partition(":")
        with _cleaning_up(), _c_code_on_stderr() if "--json" in rest else contextlib.nullcontext():
            code = getattr(importlib.import_module(f"asyncrl.{module}"), function)(rest)
        _flush(code)
        return code
    except UserError as error:
        _tell(f"asyncrl: {error}")
        return 2
    except BrokenPipeError:
        _leave_stdout()
        return 141  # the reader of our output has gone, as in `| head`
    except OSError as error:
        _leave_stdout()
        where = f"{error.filename}: " if error.filename else ""
        _tell(f"asyncrl: {where}{' '.join(str(error.strerror or error).split())}")
        return 2
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130


@contextlib.contextmanager
def _cleaning_up() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a verb as an exception does: no process, no half-written file stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _c_code_on_stderr() -> Iterator[None]:
    """Keep stdout for Python's own output, which is JSON then: what C code prints goes where logs go.

    What environments print from Python the verbs themselves keep apart.
    """
    before = sys.stdout
    try:
        is_real = isinstance(before, io.TextIOWrapper) and before.fileno() == 1
    except OSError:  # captured
        is_real = False
    if not is_real:
        yield
        return
    import ctypes

    before.flush()
    sys.stdout = ours = open(os.dup(1), "w", encoding=before.encoding, errors=before.errors)  # noqa: SIM115
    os.dup2(2, 1)
    try:
        yield
        ours.flush()
    finally:
        sys.stdout = before
        ctypes.CDLL(None).fflush(None)  # what C code has printed may wait in a buffer of its own
        os.dup2(ours.fileno(), 1)
        with contextlib.suppress(OSError):  # its reader may have gone, which was told before
            ours.close()


def _open_closed_streams() -> None:
    """Have something that takes all text behind stdin, stdout and stderr, also where they were closed, as by `>&-`.

    Python goes on without; but the next file that is opened would take their number, and what others print.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number that is free: this one. Children need it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be anything


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may have gone: the exit code says it too
        print(line, file=sys.stderr, flush=True)


def _flush(code: int) -> None:
    """Have all printed. A training that ended early may have lost its terminal; a success must not lose its words."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if code == 0 or isinstance(error, BrokenPipeError):
            raise
        _leave_stdout()


def _leave_stdout() -> None:
    """Let Python's flush at its exit not fail as ours has."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version() -> int:
    from asyncrl import __version__

    print(f"asyncrl {__version__}")
    return 0
