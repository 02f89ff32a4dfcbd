"""What a JSON answer states: its values, with the names of the fields where a value alone says too little."""

import json
import re

from backend.chains.text.sentences import sentences
from backend.chains.text.words import words

_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(rf"({_STRING})(\s*:)?|-?\d[\d.eE+-]*|[{{}}]", re.S)
_NAME_BREAK = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")
_FEWEST_WORDS = 3


def json_claims(text: str) -> list[tuple[int, int, str]]:
    """Start and end of each value in the JSON text, and what it states. Strings of several sentences are several
    claims. A short value is read together with the name of its field: `"notice_period": "45 days"`."""
    claims: list[tuple[int, int, str]] = []
    name = ""
    for match in _TOKEN.finditer(text):
        if match[2] is not None or match.group() in "{}":
            name = " ".join(_NAME_BREAK.split(_decoded(match[1]))) if match[2] is not None else ""
            continue
        value, start, end = match.group(), match.start(), match.end()
        if value[0] == '"':
            value, start, end = _decoded(value), start + 1, end - 1
        if len(words(value)) >= _FEWEST_WORDS:
            # Escaped characters have other offsets.
            spans = sentences(value) if value == text[start:end] else [(0, end - start)]
            claims += [(start + a, start + b, value[a:b] if len(spans) > 1 else value) for a, b in spans]
        elif value and len(words(f"{name} {value}")) >= _FEWEST_WORDS:
            claims.append((start, end, f"{name} {value}"))
    return claims


def _decoded(literal: str) -> str:
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:
        return literal[1:-1]
