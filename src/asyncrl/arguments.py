"""Command-line arguments from dataclasses, by tyro; every mistake becomes one line."""

import contextlib
import difflib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from asyncrl.config import RENAMED
from asyncrl.errors import UserError, python_command
from asyncrl.quantities import parse_count, parse_number

Arguments = TypeVar("Arguments")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # a switch that is off; settings have a --no- form too

_registry = tyro.constructors.ConstructorRegistry()


@_registry.primitive_rule
def _count(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="N",
        instance_from_str=lambda args: parse_count(args[0]),
        is_instance=lambda x: isinstance(x, int),
        str_from_instance=lambda x: [f"{x:_}"],
    )


@_registry.primitive_rule
def _number(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    if info.type is not float:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="X",
        instance_from_str=lambda args: parse_number(args[0]),
        is_instance=lambda x: isinstance(x, int | float),
        str_from_instance=lambda x: [f"{x:g}"],
    )


@_registry.primitive_rule
def _none(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    if info.type is not type(None):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        instance_from_str=lambda args: _parse_none(args[0]),
        is_instance=lambda x: x is None,
        str_from_instance=lambda x: ["none"],
    )


def _parse_none(text: str) -> None:
    if text.lower() != "none":
        raise ValueError(f"{text!r} is not none")


def parse(
    kind: type[Arguments], args: Sequence[str], prog: str, default: Arguments | None = None, *, first: str = ""
) -> Arguments:
    """Return `kind` filled from `args`; fields left out keep those of `default`.

    Args:
        kind: a dataclass.
        args: of the command line, without what is no option.
        prog: what the user called.
        default: of the fields.
        first: what comes before the options, for the help.

    Raises:
        UserError: for unknown options and wrong values.
        SystemExit: with 0, after printing the help that was asked for.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                args=args,
                prog=f"{prog} {first}".rstrip(),
                registry=_registry,
                default=tyro.MISSING if default is None else default,
            )
    except SystemExit as end:
        if end.code == 0:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())}; see {prog} --help") from None


def split_positional(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return a leading argument that is no option, if there is one, and the rest."""
    if args and not args[0].startswith("-"):
        return args[0], list(args[1:])
    return None, list(args)


def run_argument(args: Sequence[str], verb: str) -> tuple[Path, list[str]]:
    """Return the run that comes first on the command line of `verb`, and the remaining arguments."""
    run, rest = split_positional(args)
    if run is None and not {"--help", "-h"} & set(rest):
        raise UserError(f"{verb} what? Name a run before any option, as in: asyncrl {verb} runs/ALE-Pong-v5/...")
    return Path(run or ""), rest


def program() -> str:
    """Return how a user calls us: by name where the shell finds this one so, otherwise as it was called now."""
    called, found = Path(sys.argv[0]), shutil.which("asyncrl")
    if called.name == "__main__.py":
        return f"{python_command()} -m asyncrl"
    is_found = found is not None and Path(found).resolve() == called.resolve()
    return "asyncrl" if is_found or called.name != "asyncrl" else shlex.quote(str(called))


def peek(args: Sequence[str], option: str) -> str | None:
    """Return the value of `option` ("--preset x" or "--preset=x") before anything is parsed; the last one counts."""
    found = None
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name.replace("_", "-") == option and (equals or i + 1 < len(args)):
            found = value if equals else args[i + 1]
    return found


def _one_line(complaint: str) -> str:
    """Return the first block of tyro's box as one line, with the nearest option it suggests."""
    # Where the output cannot show a box, the title is a block of its own.
    lines = [line.strip("│ ") for line in complaint.splitlines() if not re.match(r"[╭╰]", line.strip())]
    blocks = re.split("[─-]{5,}", " ".join(lines))[0 if "╭" in complaint else 1 :]
    first = re.sub(r"\s+", " ", blocks[0]).strip() if blocks else "wrong arguments"
    # Of a value that may also be none tyro tells what either type says against it: that it is not none helps nobody.
    first = re.sub(r"no type matching .* Got errors: .*'NoneType'>: .* - <class '\w+'>: ", "", first)
    stray = re.match(r"Unrecognized options: ([^-\s,][^\s,]*)", first)
    if stray and " --" not in first:
        hint = "names come before options, no more of them than the verb takes"
        return f"{stray[1]} is no option: {'commas join NAME=VALUE pairs' if '=' in stray[1] else hint}"
    unknown = re.search(r"Unrecognized options: .*?(--[\w-]+)", first)
    options = re.findall(r"(?<!\S)(--[\w-]+)", " ".join(blocks[1:]).partition("For full helptext")[0])
    near = difflib.get_close_matches(unknown[1], options, n=1, cutoff=0.0) if unknown else []
    if unknown and (now := RENAMED.get(unknown[1].strip("-").replace("-", "_"))):
        near = [f"--{now.replace('_', '-')}"]
    return first.rstrip(".") + (f": did you mean {near[0]}?" if near else "")
