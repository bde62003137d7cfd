"""Numbers as people write them: 10M, 2.5e6, 40_000, 20min, 1h30min."""

import math
import re
from decimal import Decimal

_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}
_NUMBER = r"([-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?)"


def parse_number(text: str) -> float:
    """Return a count ("10M", "2.5e6") or a duration in seconds ("20min", "1h30min", "90").

    Raises:
        ValueError: if it is neither, or could be both ("10m").
    """
    return float(_parse(text))


def parse_count(text: str) -> int:
    """Return a whole number.

    Raises:
        ValueError: if it is none.
    """
    number = _parse(text)
    if number != number.to_integral_value() or re.search("[sdhn]", text.lower()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def counted(number: int, noun: str) -> str:
    """Return "1 worker", "2 workers", "1,000 workers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _parse(text: str) -> Decimal:
    # Decimal: 2.3M is whole, while 2.3 * 1e6 in floats is not.
    lowered, number = text.strip().lower(), Decimal("nan")
    if re.search("e[-+]?[0-9]{4}", lowered):
        raise ValueError(f"{text!r} is no number that fits")
    if text.strip().endswith("m"):
        raise ValueError(f"{text!r} may be millions or minutes: write M or min")
    pieces = re.findall(_NUMBER + r"(sec|min|s|h|d)", lowered)
    if match := re.fullmatch(_NUMBER + r"([kmgb]?)", lowered):
        number = Decimal(match[1]) * _COUNTS[match[2]]
    elif "".join(amount + unit for amount, unit in pieces) == lowered:
        number = sum((Decimal(amount) * _SECONDS[unit] for amount, unit in pieces), Decimal(0)) if pieces else number
    if not math.isfinite(float(number)):
        raise ValueError(f"{text!r} is no number: write it like 10M, 2.5e6, 20min or 1h30min")
    return number


def format_count(number: float) -> str:
    """Return a count in at most about five characters: 950, 12.3k, 10M."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:  # what rounds to 1000 is 1k
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def format_duration(seconds: float) -> str:
    """Return h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
