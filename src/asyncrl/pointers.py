"""The checkpoints of a run by their names: which is the latest, which is the best, which may go."""

import errno
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from asyncrl.errors import UserError
from asyncrl.machine import sync

REPLACED = ".replaced-"  # before the name of what a newer one is taking the place of
KEPT = 3  # newest checkpoints that stay, beside the best
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def point_to(folder: Path, name: str, target: Path) -> None:
    """Make `folder/<name>` a link to the checkpoint `target`, replacing an older one at once.

    Where the file system has no links (exFAT, some network drives), it is a file with the checkpoint's name.
    """
    link, aside, copied = folder / name, folder / f".{name}-{os.getpid()}", folder / f"{REPLACED}{name}"
    aside.unlink(missing_ok=True)
    try:
        try:
            aside.symlink_to(target.name, target_is_directory=True)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            aside.write_text(target.name, encoding="utf-8")
            sync(aside)
        if link.is_dir() and not link.is_symlink():  # a run that was copied by what follows links, such as scp -r
            shutil.rmtree(copied, ignore_errors=True)
            link.rename(copied)
        aside.replace(link)
    finally:
        aside.unlink(missing_ok=True)
        shutil.rmtree(copied, ignore_errors=True)


def pointed_to(folder: Path, name: str) -> Path | None:
    """Return the checkpoint that `point_to` made `folder/<name>` mean, or None if there is none."""
    link = folder / name
    if link.is_file():
        with link.open("rb") as file:
            target = file.read(20)
        link = folder / target.decode("ascii", "replace") if target.isdigit() else folder / f"{name} is damaged"
    elif link.is_symlink() and not link.exists():
        link = folder / Path(os.readlink(link)).name
    if not link.exists():  # killed while it put a newer one of the same frame count in its place
        link = set_aside(link)
    if not link.is_dir() or (checkpoint := link.resolve()).parent != folder.resolve():  # a stranger's may lead anywhere
        return None
    return checkpoint


def set_aside(checkpoint: Path) -> Path:
    """Return where a checkpoint is while a newer one of the same frame count takes its place."""
    return checkpoint.with_name(f"{REPLACED}{checkpoint.name}")


def prune(folder: Path, written: Sequence[Path] = ()) -> None:
    """Delete all but the newest checkpoints and the best one, and what a killed process left half written.

    Args:
        folder: of the checkpoints.
        written: those that are newer than the others whatever their number, as in a run that goes on from an older one.
    """
    kept = {pointed_to(folder, name) for name in ("latest", "best")}
    for path in sorted(_numbered(folder), key=lambda path: (path in written, int(path.name)))[:-KEPT]:
        if path.resolve() not in kept:
            shutil.rmtree(path)
    for pattern in (".writing-*", f"{REPLACED}*"):
        for path in folder.glob(pattern):
            if path.resolve() not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _numbered(folder: Path) -> list[Path]:
    """Return the whole checkpoints of `folder`."""
    return [path for path in folder.iterdir() if path.name.isdecimal() and (path / "state.json").is_file()]


def find_checkpoint(path: Path, which: str = "latest") -> Path:
    """Return the checkpoint folder that `path` means: itself, or the `which` ("latest", "best") of a run.

    Raises:
        UserError: if there is none, or `path` is a checkpoint and `which` asks for another.
    """
    if (path / "state.json").exists():
        if which != "latest":
            raise UserError(f"{path} is one checkpoint: name its run to have the {which} one")
        return Path(os.path.abspath(path))  # its parents are the run's folders, also where it is "."
    if not path.is_dir():
        raise UserError(f"there is no run or checkpoint at {path}")
    found = pointed_to(path / "checkpoints", which)
    if found is None:
        raise UserError(f"{path} holds no {which} checkpoint{_what_to_do(path, which)}")
    return found


def _what_to_do(path: Path, which: str) -> str:
    """Return what to do where the folder `path` holds no such checkpoint, with the colon before it, or nothing."""
    config = path / "config.toml"
    if not config.exists():
        return run_instead(path)
    if which == "best":
        return ": there is one after 100 training episodes"
    folder = path / "checkpoints"
    if whole := _numbered(folder) if folder.is_dir() else []:
        newest = max(whole, key=lambda checkpoint: int(checkpoint.name))
        return f" link, perhaps as it was copied without: name a checkpoint itself, {shlex.quote(str(newest))}"
    # A training was killed before it had written one.
    return ": if nothing trains there any more, train anew with --config " + shlex.quote(str(config))


def run_instead(path: Path) -> str:
    """Return which run may be meant by a folder that is none, with the colon before it, or nothing."""
    if path.name == "checkpoints" and pointed_to(path, "latest") is not None:
        return f": name the run, {path.parent}"
    inside = max([*path.glob("*/checkpoints"), *path.glob("*/*/checkpoints")], key=os.path.getmtime, default=None)
    return "" if inside is None else f": it is no run, but {inside.parent} in it is one"
