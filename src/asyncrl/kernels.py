"""Our own arithmetic in C (csrc), compiled into the user's cache by the first that needs it.

It is optional: where there is no C compiler, or it fails, PyTorch computes the same, slower.
`python -m asyncrl.kernels` compiles by hand and tells why it cannot.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from asyncrl.errors import UserError
from asyncrl.machine import cache_folder, compiled_once

SOURCES = Path(__file__).with_name("csrc")
# No -ffast-math: what is not a number must stay so to be noticed. Nobody reads errno or floating-point exceptions.
_COMPILE = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_float
_SIGNATURES = {
    "torso_has_pairs": (_INT, ()),
    "torso_new": (_POINTER, (_POINTER,)),
    "torso_free": (None, (_POINTER,)),
    "torso_record": (_INT, (_POINTER,)),
    "torso_inputs": (None, (_POINTER, _POINTER, _FLOAT)),
    "torso_load": (None, (_POINTER, _POINTER)),
    "torso_forward": (None, (_POINTER, _POINTER, _INT, _INT, _POINTER, _POINTER, _POINTER)),
    "torso_backward": (None, (_POINTER, _POINTER, _INT, _INT, *6 * (_POINTER,))),
    "rmsprop_step": (None, (*3 * (_POINTER,), _LONG, *3 * (_FLOAT,))),
    "adam_step": (None, (*4 * (_POINTER,), _LONG, *5 * (_FLOAT,))),
}


def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where they cannot be had. The first call on a machine takes seconds."""
    return _found()[0]


def why_none() -> str | None:
    """Return in a line why there are no kernels, or None where there are."""
    return _found()[1]


def has_bfloat16() -> bool:
    """Return whether there are kernels that multiply in bfloat16: the processor needs AVX-512 BF16."""
    found = library()
    return found is not None and bool(found.torso_has_pairs())


@functools.cache
def _found() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return load(build()), None
    except UserError as error:
        return None, str(error)
    except OSError as error:  # compiled, but not loaded
        return None, " ".join(str(error).split())


def load(path: Path) -> ctypes.CDLL:
    """Return the functions of a compiled library."""
    # Loading runs what the file holds. Safe: it was compiled from our own source into the user's own cache (`build`).
    functions = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    return functions


def build() -> Path:
    """Compile the kernels for this processor unless that was done before; return where they are.

    Raises:
        UserError: if there is no compiler, or it or the cache refuses.
    """
    compiler = _compiler()
    version = os.stat(compiler[0])  # of a newer compiler of this name, which may know more of the processor
    told = (*_COMPILE, *compiler, f"{version.st_size} {version.st_mtime_ns}", _processor())
    digest = hashlib.sha256("\0".join(told).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    path = cache_folder("kernels") / f"kernels-{digest.hexdigest()[:16]}.so"
    return compiled_once(path, lambda output: compile_library(compiler, output))


def _compiler() -> tuple[str, ...]:
    """Return the words of CC, as in "ccache gcc", or of `cc`."""
    try:
        name, *options = shlex.split(os.environ.get("CC") or "cc")
    except ValueError:
        raise UserError(f"CC is {os.environ['CC']!r}, which is no command") from None
    path = shutil.which(name)
    if path is None:
        raise UserError("no C compiler: install one (Debian: apt-get install gcc) or name it in CC")
    return path, *options


def compile_library(compiler: Sequence[str], path: Path, *more: str) -> None:
    """Compile to `path`, with `more` options.

    Raises:
        UserError: if the compiler fails.
    """
    command = [*compiler, *_COMPILE, *more, *map(str, sorted(SOURCES.glob("*.c"))), "-o", str(path)]
    # Safe: our own source and options, without a shell; only the compiler is the user's, by CC.
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:  # a file that is no program
        raise UserError(f"{compiler[0]} cannot be run: {error.strerror}") from None
    if result.returncode != 0:
        why = next((line for line in result.stderr.splitlines() if "error" in line), "no message")
        raise UserError(f"{compiler[0]} could not compile the kernels: {why}")


def _processor() -> str:
    """Return what tells processors apart: machines that share a cache need not understand each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))


if __name__ == "__main__":
    try:
        path = build()
        load(path)
        print(path)
    except (UserError, OSError) as error:
        print(f"asyncrl: {error}", file=sys.stderr)
        sys.exit(2)
