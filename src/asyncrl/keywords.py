"""Keyword arguments as people write them on a command line: opponents=4,car=fast,random_start=false."""

import json
import re
from collections.abc import Mapping
from typing import Any

# A quoted text may hold commas; anything else ends at the next one.
_PAIR = re.compile(r'([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|[^,"]*)(?:,|$)')


def parse_keywords(text: str) -> dict[str, Any]:
    """Return the keywords of `text`: true, false, null and numbers as such, all else as text, in quotes or not.

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
    """Return what `parse_keywords` reads as `keywords`.

    Raises:
        ValueError: if it would read something else, as it would of lists.
    """
    text = ",".join(f"{name}={_text(value)}" for name, value in keywords.items())
    if parse_keywords(text) != dict(keywords):
        raise ValueError(f"{dict(keywords)} holds more than names with texts, numbers, true, false and none")
    return text


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, list | dict) else value


def _text(value: Any) -> str:
    plain = isinstance(value, str) and _value(value) == value and not re.search('[,"]', value)
    return str(value) if plain else json.dumps(value)
