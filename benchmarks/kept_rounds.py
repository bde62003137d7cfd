"""Rounds that outlast a sitting: each is written down as it ends, and a later sitting goes on after the last.

A file of JSON lines: what is measured and how, then one line a round with all its measurements. A round that is cut
off leaves none and begins anew, so that the ratios within a round are never of two sittings.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from meter import Measurement
from rounds import Row

from asyncrl.errors import UserError


class Kept(NamedTuple):
    """What earlier sittings have left."""

    rows: list[Row]
    failures: dict[str, str]  # of contenders, and why


def open_rounds(path: Path, subject: dict[str, Any]) -> Kept:
    """Return what is kept in `path`, nothing for a new file.

    Args:
        path: of the file; a new one begins with `subject`.
        subject: what is measured and how.

    Raises:
        UserError: if the file is of another subject, or none of ours.
    """
    subject = json.loads(json.dumps(subject))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, subject)
        return Kept([], {})
    try:
        first, *rounds = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [_row(values) for kept in rounds for values in kept["rows"]]
        failures = {name: str(why) for kept in rounds for name, why in kept["failures"].items()}
        differing = [name for name in subject if first.get(name) != subject[name]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it to begin anew") from None
    if differing:
        raise UserError(f"{path} was measured with another {' and '.join(differing)}: remove it to begin anew")
    return Kept(rows, failures)


def _row(values: dict[str, Any]) -> Row:
    return Row(**{**values, "measurement": Measurement(**values["measurement"])})


def keep_round(path: Path, rows: list[Row], failures: dict[str, str]) -> None:
    """Add a round that has ended to the file, and who has failed so far."""
    append_line(path, {"rows": [dataclasses.asdict(row) for row in rows], "failures": failures})


def append_line(path: Path, line: Any) -> None:
    """Add `line` to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
