"""Numbers as people write them: 10M, 2.5e6, 40_000, 20min, 1h30min."""

import re

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"([-+]?[\d_]*\.?[\d_]+(?:e[-+]?\d+)?)"


def parse_number(text: str) -> float:
    """Return a count ("10M", "2.5e6") or a duration in seconds ("20min", "1h30min", "90").

    Raises:
        ValueError: if it is neither.
    """
    lowered = text.strip().lower()
    if match := re.fullmatch(_NUMBER + r"([kmgb]?)", lowered):
        return float(match[1].replace("_", "")) * _COUNTS[match[2]]
    pieces = re.findall(_NUMBER + r"(sec|min|s|h|d)", lowered)
    if pieces and "".join(number + unit for number, unit in pieces) == lowered:
        return sum(float(number.replace("_", "")) * _SECONDS[unit] for number, unit in pieces)
    raise ValueError(f"{text!r} is no number: write it like 10M, 2.5e6, 20min or 1h30min")


def parse_count(text: str) -> int:
    """Return a whole number.

    Raises:
        ValueError: if it is none.
    """
    number = parse_number(text)
    if number != int(number):
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def format_count(number: float) -> str:
    """Return a count in at most about five characters: 950, 12.3k, 10M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def format_duration(seconds: float) -> str:
    """Return h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
