"""Processes from outside: what Ctrl-C, SIGTERM and kill -9 leave of a training, and how scripts may start one."""

import contextlib
import json
import multiprocessing
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from asyncrl import processes as worker_processes
from asyncrl.checkpoint import load_checkpoint
from asyncrl.children import kill, mmap_threshold
from asyncrl.pointers import find_checkpoint

TESTS = Path(__file__).parent
PATIENCE_SECONDS = 50.0  # ten times what is promised: machines are busy
FOREVER = ("--frames", "1G", "--workers", "2", "--envs-per-worker", "2")


def heed_signals() -> None:
    """Undo what `nohup` and a shell's `&` leave ignored in all that they start, such as this test run."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Training:
    """`asyncrl train` in a process group of its own; its output is read as it comes."""

    def __init__(self, folder: Path, env: str = "CartPole-v1", *options: str) -> None:
        self.run_dir = folder / "run"
        command = [sys.executable, "-m", "asyncrl", "train", env, "--run-dir", str(self.run_dir), *options]
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment(),
                start_new_session=True,
                preexec_fn=heed_signals,  # noqa: PLW1509  (two system calls, nothing that a lock could stop)
            )

    def wait_for_frames(self) -> None:
        """Return once workers have pushed updates and ended episodes."""
        episodes = self.run_dir / "episodes.jsonl"
        wait_until(lambda: self.process.poll() is not None or (episodes.exists() and episodes.stat().st_size > 0))
        assert self.process.poll() is None, self.err.read_text()

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def members(self) -> dict[int, str]:
        """Return the live processes of the training and their command lines, forkserver and tracker included."""
        return {pid: line for pid, (session, line) in processes().items() if session == self.process.pid}

    def end(self) -> None:
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def assert_left_clean(self) -> int:
        """Check that no process and no unfinished file is left and that `latest` loads; return its frames."""
        wait_until(lambda: not self.members())
        checkpoints = self.run_dir / "checkpoints"
        assert all(p.name.isdigit() or p.name in ("latest", "best") for p in checkpoints.iterdir())
        return load_checkpoint(find_checkpoint(self.run_dir)).state["frames"]


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a `Training`; it is killed if the test leaves it behind."""
    started = []

    def start(env: str = "CartPole-v1", *options: str) -> Training:
        started.append(Training(tmp_path, env, *(options or FOREVER)))
        return started[-1]

    yield start
    for training in started:
        training.end()


def environment() -> dict[str, str]:
    source = TESTS.parent / "src"
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{TESTS}"}


def processes() -> dict[int, tuple[int, str]]:
    """Return session and command line of every live process of this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z":  # orphans end as zombies where process 1 does not reap
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(folder.name)] = (int(session), line)
    return found


def wait_until(condition, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_checkpoint_and_no_process(start, number):
    training = start()
    training.wait_for_frames()
    names = " ".join(training.members().values())
    assert "forkserver" in names and "resource_tracker" in names  # so that their absence later means something
    os.killpg(training.process.pid, number)
    assert training.process.wait(PATIENCE_SECONDS) == 130
    assert training.assert_left_clean() > 0
    assert "Traceback" not in training.err.read_text()
    assert training.out.read_text().splitlines()[-5].startswith("interrupted after ")


def test_a_closed_terminal_leaves_a_checkpoint(tmp_path):
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "asyncrl", "train", "CartPole-v1", "--run-dir", str(tmp_path / "run"), *FOREVER]
    variables = {**environment(), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=variables,
        start_new_session=True,
        preexec_fn=heed_signals,  # noqa: PLW1509
    )
    os.close(theirs)
    try:
        with open(terminal, "rb", buffering=0) as shown:
            seen = b""
            while b"running" not in seen:  # in the live table
                seen += shown.read(65536)
        time.sleep(2.0)  # the training goes on: nobody has told it
        assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE_SECONDS) == 130
        load_checkpoint(find_checkpoint(tmp_path / "run"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_sigterm_to_the_trainer_alone_is_enough(start):
    training = start()
    training.wait_for_frames()
    training.process.send_signal(signal.SIGTERM)
    assert training.process.wait(PATIENCE_SECONDS) == 130
    frames = training.assert_left_clean()
    assert frames == rows(training.run_dir / "metrics.jsonl")[-1]["frames"]  # the last row and checkpoint agree


def test_ctrl_c_while_trainer_and_forkserver_import_torch(start):
    training = start("ALE/Pong-v5", *FOREVER)
    wait_until(lambda: any("forkserver" in line for line in training.members().values()))
    training.interrupt()
    assert training.process.wait(PATIENCE_SECONDS) == 130
    wait_until(lambda: not training.members())
    assert not training.run_dir.exists()
    assert "Traceback" not in training.err.read_text()


def test_the_forkserver_of_atari_starts_before_torch_is_imported(tmp_path):
    code = (
        "import sys, asyncrl.children as children\n"
        "children.start_early = lambda context, env: sys.exit(f'{env}, torch: {\"torch\" in sys.modules}')\n"
        "from asyncrl.cli import main\n"
        "main(['train', 'ALE/Pong-v5', '--run-dir', 'run'])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "ALE/Pong-v5, torch: False\n"


def test_a_mistake_after_the_forkserver_has_started_leaves_no_process(start, tmp_path):
    (tmp_path / "run").mkdir()
    training = start("ALE/Pong-v5", *FOREVER)
    wait_until(lambda: any("forkserver" in line for line in training.members().values()))
    assert training.process.wait(PATIENCE_SECONDS) == 2
    wait_until(lambda: not training.members())
    assert "exists: choose another --run-dir" in training.err.read_text()
    assert not list(training.run_dir.iterdir())


def test_ctrl_c_while_workers_start(start):
    training = start()
    wait_until(lambda: sum("forkserver" in line for line in training.members().values()) > 1)
    training.interrupt()
    assert training.process.wait(PATIENCE_SECONDS) == 130
    training.assert_left_clean()
    assert training.err.read_text() == ""


def test_ctrl_c_before_anything_has_started(start):
    training = start()
    wait_until(training.members)
    time.sleep(0.3)  # Python is up and importing
    training.interrupt()
    # While Python itself looks for its packages it ends with 1.
    assert training.process.wait(PATIENCE_SECONDS) in (130, -signal.SIGINT, 1)
    wait_until(lambda: not training.members())


def test_a_bouncing_ctrl_c_costs_no_checkpoint(start):
    training = start()
    training.wait_for_frames()
    training.interrupt()
    time.sleep(0.05)
    training.interrupt()
    assert training.process.wait(PATIENCE_SECONDS) == 130
    assert training.assert_left_clean() > 0


def test_a_second_ctrl_c_ends_at_once(request, monkeypatch):
    monkeypatch.setattr(worker_processes, "IMPATIENT_SECONDS", -1.0)
    asked = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # `&` and `nohup` leave it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with worker_processes.handling_signals(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("env", ["CartPole-v1", "worlds:hanging_once", "worlds:has_child"])
def test_workers_end_by_themselves_when_the_trainer_is_killed(start, env):
    training = start(env, *FOREVER)
    training.wait_for_frames()
    if env == "worlds:hanging_once":
        wait_until((training.run_dir.parent / "failed").exists)
    assert sum("forkserver" in line for line in training.members().values()) > 2  # workers that could stay behind
    if env == "worlds:has_child":
        wait_until(lambda: len(list(training.run_dir.parent.glob("child-*"))) == 4)  # so could these
    os.kill(training.process.pid, signal.SIGKILL)
    training.process.wait()
    wait_until(lambda: not training.members(), seconds=30)


def test_a_killed_worker_is_replaced_and_the_run_finishes(start):
    training = start("CartPole-v1", "--frames", "20k", "--workers", "2", "--envs-per-worker", "1", "--json")
    training.wait_for_frames()
    worker = _busiest(training)
    os.kill(worker, signal.SIGKILL)
    assert training.process.wait(PATIENCE_SECONDS * 2) == 0
    told = [row["text"] for row in rows(training.out) if row["event"] == "message"]
    assert sum("exit code -9: starting it again in 1 s (1 of 5)" in line for line in told) == 1
    assert training.assert_left_clean() >= 20_000


def _busiest(training: Training) -> int:
    """Return the worker process with most CPU time: workers cannot be told from the forkserver by their names."""

    def seconds(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    (server,) = [
        pid for pid, line in training.members().items() if "forkserver" in line and _parent(pid) == training.process.pid
    ]
    return max((pid for pid in training.members() if _parent(pid) == server), key=seconds)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path):
    command = [sys.executable, "-m", "asyncrl", "train", "CartPole-v1", "--run-dir", str(tmp_path / "run"), *FOREVER]
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, cwd=tmp_path, env=environment())
    assert process.stdout is not None
    try:
        process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        assert process.wait(PATIENCE_SECONDS) == 141
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "err").read_text() == ""
    load_checkpoint(find_checkpoint(tmp_path / "run"))


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>file", "<&- >&- 2>&-"])
def test_a_training_needs_no_stream_that_is_open(tmp_path, closed):
    words = f"-m asyncrl train CartPole-v1 --frames 2k --workers 2 --run-dir {tmp_path / 'run'} {closed}"
    shell = subprocess.run(
        ["sh", "-c", f"{sys.executable} {words}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=10 * PATIENCE_SECONDS,
        check=False,
    )
    assert (shell.returncode, shell.stderr) == (0, b"")
    load_checkpoint(find_checkpoint(tmp_path / "run"))


@pytest.mark.parametrize("update", ["hogwild", "locked"])  # a lock starts the resource tracker
def test_nothing_is_imported_from_the_working_folder(tmp_path, update):
    """It may be a stranger's run: `asyncrl resume .`."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    for name in ("signal", "selectors", "torch"):
        (tmp_path / "here" / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()")
    script = tmp_path / "there" / "asyncrl-script.py"  # as an installed command, whose own folder comes first
    script.write_text("import sys\nfrom asyncrl.cli import main\nsys.exit(main())")
    words = ["train", "CartPole-v1", "--frames", "500", "--workers", "1", "--update", update]
    command = [sys.executable, str(script), *words]
    subprocess.run(command, cwd=tmp_path / "here", env=environment(), check=True, timeout=10 * PATIENCE_SECONDS)
    assert not (tmp_path / "mark").exists()


SCRIPT = """
import asyncrl
run = asyncrl.train("CartPole-v1", frames=2_000, workers=2, run_dir={run!r}, announce=lambda line: None)
agent = asyncrl.load(run.path)
print("trained", run.outcome.progress.frames >= 2_000, len(agent.evaluate(3)))
"""


@pytest.mark.parametrize("how", ["file", "stdin", "thread"])
def test_scripts_without_a_main_guard_train(tmp_path, how):
    script = SCRIPT.format(run=str(tmp_path / "run"))
    if how == "thread":
        body = "".join(f"    {line}\n" for line in script.splitlines())
        script = f"import threading\ndef work():\n{body}\nt = threading.Thread(target=work)\nt.start()\nt.join()\n"
    file = tmp_path / "script.py"
    file.write_text(script)
    done = subprocess.run(
        [sys.executable, "-" if how == "stdin" else str(file)],
        input=script if how == "stdin" else "",
        capture_output=True,
        check=False,
        text=True,
        env=environment(),
        timeout=PATIENCE_SECONDS * 2,
    )
    # Once: no worker has run the script again. A slow machine tells its progress before.
    told = [line for line in done.stdout.splitlines() if " frames/s " not in line]
    assert (told, done.stderr) == (["trained True 3"], "")


def test_importing_asyncrl_is_cheap():
    code = "import sys, asyncrl; print([m for m in ('torch', 'rich', 'ale_py', 'gymnasium') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, check=False, text=True, env=environment())
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("libc", "megabytes"),
    [
        ("glibc 2.28", 32),
        ("glibc 2.34", 32),
        ("glibc 2.35", 1024),
        ("glibc 2.36", 1024),
        ("glibc 3.0", 1024),
        ("", 1024),
    ],
)
def test_malloc_is_told_what_the_library_takes(libc, megabytes):
    assert mmap_threshold(libc) == megabytes << 20


def _starts_a_program(pipe):
    pipe.send(subprocess.Popen(["sleep", "600"]).pid)
    time.sleep(600)


def test_what_a_killed_process_has_started_ends_with_it():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_starts_a_program, args=(theirs,))
    process.start()
    program = ours.recv()
    assert program in processes()
    kill(process)
    assert process.exitcode == -signal.SIGKILL
    wait_until(lambda: program not in processes())


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM])
def test_what_environments_leave_behind_ends_with_the_command(start, tmp_path, number):
    frames = "1k" if number is None else "1G"
    training = start("worlds:leaves_program", "--workers", "2", "--envs-per-worker", "2", "--frames", frames)
    if number is not None:
        training.wait_for_frames()
        os.kill(training.process.pid, number)
    assert training.process.wait(PATIENCE_SECONDS) == (0 if number is None else 130)
    training.assert_left_clean()
    assert len(list(tmp_path.glob("program-*"))) > 4  # the trainer has looked at one, too


def test_what_the_shell_has_started_for_us_stays(tmp_path):
    train = f"exec {shlex.quote(sys.executable)} -m asyncrl train worlds:leaves_program --frames 500 --workers 1 --json"
    subprocess.run(
        ["bash", "-c", f"{train} > >(cat >part; sleep 1; mv part whole)"],
        cwd=tmp_path,
        env=environment(),
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    wait_until((tmp_path / "whole").exists)
    assert rows(tmp_path / "whole")[-1]["event"] == "end"


def test_many_workers_may_have_their_files():
    code = (
        "import resource, asyncrl.children\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "asyncrl.children.make_context('CartPole-v1')\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=300
    )
    soft, hard = map(int, done.stdout.split())
    assert soft == (8192 if hard == -1 else min(hard, 8192)) > 256


def test_a_reader_of_help_need_not_wait_for_what_an_environment_has_left_behind(tmp_path):
    command = [sys.executable, "-m", "asyncrl", "train", "worlds:leaves_program", "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0 and list(tmp_path.glob("program-*"))


def _prepares_late(pipe):
    multiprocessing.parent_process = lambda: SimpleNamespace(is_alive=lambda: False)  # in a process of its own
    worker_processes.prepare_process()
    pipe.send("it works on")


def test_who_starts_when_his_parent_has_gone_does_not_begin():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_prepares_late, args=(theirs,))
    process.start()
    theirs.close()
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 1
    with pytest.raises(EOFError):
        ours.recv()


FORKS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import asyncrl

def work(workers=2):
    # Large enough for torch to share its arithmetic between threads.
    run = asyncrl.train("CartPole-v1", frames=2_000, workers=workers, network="mlp200", announce=lambda line: None)
    return run.outcome.reason

context = multiprocessing.get_context("fork")
print("told", work())
with ProcessPoolExecutor(1, context) as pool:
    print("told", pool.submit(work).result())
with context.Pool(1) as pool:
    try:
        pool.apply(work)
    except asyncrl.UserError as mistake:
        print("told", str(mistake)[:57])
"""


def test_forked_processes_train_too_and_those_that_may_not_are_told(tmp_path):
    command = [sys.executable, "-c", FORKS]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment(), timeout=300
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    mistake = "told workers cannot be started in a daemonic process, as those"
    assert (told, done.stderr) == (["told frames", "told frames", mistake], "")
