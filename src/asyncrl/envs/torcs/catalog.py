"""What the installed TORCS offers: its tracks, its cars and the robots that can drive here."""

import re
from functools import cache
from numbers import Integral
from typing import NamedTuple
from xml.etree import ElementTree

from asyncrl.envs.options import OptionError, require_whole
from asyncrl.envs.torcs.build import DATA_FOLDER, LIBRARY_FOLDER, check_installed
from asyncrl.errors import UserError

DEFAULT_TRACK = "oval/e-track-5"
# Paper: it names neither car. Top speeds here: p406 180 km/h (0-100 in 8 s), car1-trb1 277 km/h (3.5 s).
CAR_CLASSES = {"slow": "p406", "fast": "car1-trb1"}
MAX_OPPONENTS = 9
_CROWD_ROBOT = "bt"  # the tidiest of TORCS' robots, and the only one cheap to reset


class Opponent(NamedTuple):
    """A robot: driver `number` of a TORCS robot module, in its own car or in `car`."""

    module: str
    number: int
    car: str = ""


@cache
def tracks() -> tuple[str, ...]:
    """Return all tracks as "category/name"."""
    check_installed()
    files = (DATA_FOLDER / "tracks").glob("*/*/*.xml")
    return tuple(sorted(f"{file.parts[-3]}/{file.stem}" for file in files if file.stem == file.parts[-2]))


@cache
def cars() -> tuple[str, ...]:
    """Return all cars by TORCS' names."""
    check_installed()
    files = (DATA_FOLDER / "cars").glob("*/*.xml")
    return tuple(sorted(file.stem for file in files if file.stem == file.parent.name))


@cache
def robots() -> tuple[str, ...]:
    """Return the robots that can be loaded, as "module:index". Debian leaves out the non-free cars of some."""
    check_installed()
    names = []
    for file in sorted((DATA_FOLDER / "drivers").glob("*/*.xml")):
        module = file.stem
        if module != file.parent.name or not (LIBRARY_FOLDER / "drivers" / module / f"{module}.so").exists():
            continue
        if module == "human":  # waits for a keyboard
            continue
        names += [f"{module}:{index}" for index, car in _drivers_in(file) if car in cars()]
    return tuple(names)


def _drivers_in(file) -> list[tuple[int, str]]:
    text = file.read_text(encoding="utf-8", errors="replace")
    root = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>|<!DOCTYPE[^>]*>", "", text))
    found = []
    for section in root.findall("section[@name='Robots']/section[@name='index']/section"):
        car = section.find("attstr[@name='car name']")
        if car is not None:
            found.append((int(section.get("name", "")), car.get("val", "")))
    return found


def find_track(name: str) -> str:
    """Return the full name of a track given by its full or its short name.

    Raises:
        UserError: if there is none; lists all.
    """
    for track in tracks():
        if name in (track, track.split("/")[1]):
            return track
    raise UserError(f"TORCS has no track {name!r}; it has {', '.join(tracks())}")


def find_car(name: str) -> str:
    """Return TORCS' name of a car given by that name, or by "slow" or "fast".

    Raises:
        UserError: if there is none; lists all.
    """
    car = CAR_CLASSES.get(name, name)
    if car not in cars():
        raise UserError(f"TORCS has no car {name!r}; use slow, fast or one of {', '.join(cars())}")
    return car


def find_opponents(wanted: "int | list[str] | tuple[str, ...]", agent_car: str) -> tuple[Opponent, ...]:
    """Return the robots to race against.

    Args:
        wanted: how many, all in the agent's car so that they stay in sight; or a list of "module:index" (each in its
            own car) or "module:index:car".
        agent_car: TORCS' name of the agent's car.

    Raises:
        UserError: if a robot or car does not exist; lists those that do.
    """
    if isinstance(wanted, int | Integral):
        number = require_whole("opponents, unless a list of robots,", wanted, 0, MAX_OPPONENTS)
        return tuple(Opponent(_CROWD_ROBOT, index, agent_car) for index in range(number))
    names = [each for each in wanted if isinstance(each, str)] if isinstance(wanted, list | tuple) else None
    if names is None or len(names) < len(wanted) or len(names) > MAX_OPPONENTS:
        raise OptionError(f"opponents must be a number or a list of at most {MAX_OPPONENTS} robots, not {wanted!r}")
    return tuple(_find_opponent(name) for name in names)


def _find_opponent(text: str) -> Opponent:
    robot, _, car = (*text.rpartition(":"),) if text.count(":") == 2 else (text, "", "")
    if robot not in robots():
        raise UserError(f"TORCS has no robot {robot!r}; it has {', '.join(robots())}")
    module, index = robot.split(":")
    return Opponent(module, int(index), find_car(car) if car else "")
