"""Keyword arguments as people write them on a command line: opponents=4,car=fast,random_start=false."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

# A quoted text may hold commas; anything else ends at the next one.
_PAIR = re.compile(r'([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|[^,"]*)(?:,|$)')
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def parse_keywords(text: str) -> dict[str, Any]:
    """Return the keywords of `text`: true, false, none and numbers as such, all else as text, in quotes or not.

    Raises:
        ValueError: if it is not NAME=VALUE,NAME=VALUE, or a name comes twice.
    """
    found: dict[str, Any] = {}
    end = 0
    for pair in _PAIR.finditer(text):
        name, value = pair.groups()
        if pair.start() != end or name in found:
            break
        found[name], end = _value(value), pair.end()
    if end != len(text) or text.endswith(","):
        raise ValueError(f"{text!r} is not of the form NAME=VALUE,NAME=VALUE")
    return found


def format_keywords(keywords: Mapping[str, Any]) -> str:
    """Return what `parse_keywords` reads as `keywords`, whose numbers may be NumPy's.

    Raises:
        ValueError: if a value is no text, finite number, true, false or none, or a name is none of Python.
    """
    text = ",".join(f"{name}={_text(name, value)}" for name, value in keywords.items())
    parse_keywords(text)
    return text


def _value(text: str) -> Any:
    word = text.lower()
    if word in _WORDS:
        return _WORDS[word]
    if not re.match(r'[-\d"]', text):  # neither a number nor quoted: brackets without end are no text for a parser
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(name: str, value: Any) -> str:
    value = value.item() if getattr(value, "shape", None) == () else value
    is_number = isinstance(value, int | float) and math.isfinite(value)
    if not (is_number or value is None or isinstance(value, str)):
        raise ValueError(f"{name} is {value!r}, but only a text, a finite number, true, false or none can be written")
    plain = isinstance(value, str) and _value(value) == value and not re.search('[,"]', value)
    return str(value) if plain else json.dumps(value)
