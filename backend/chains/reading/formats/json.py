"""JSON and JSON Lines: a line for each value, behind its path, so that what is found says where it stands.

servers[0]: name: web, port: 80
servers[0].owner.mail: ops@example.org
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.parsed import Context, ParsedDocument, TextBuilder, canonical
from backend.errors import DocumentUnreadable

_BEGINNING = re.compile(r'\ufeff?\s*(?:\{\s*(?:"[^"\n]{0,1000}"\s*:|\})|\[\s*(?:[\[{"\]]|-?\d|true|false|null))')
# What fits into one line: the fields of a record, the items of a list.
_MAX_LINE = 200
_CONTAINERS = (dict, list)
_PLAIN_KEY = re.compile(r"[\w$@-]+")


def _sniff(head: bytes, path: Path, name: str) -> float:
    try:
        text = decode(head, whole=False)
    except NotTextError:
        return 0.0
    if not _BEGINNING.match(text):
        return 0.0
    if Path(name).suffix.lower() in PLUGIN.suffixes:
        return 0.8
    if path.stat().st_size > len(head):
        text = text[: text.rfind("\n") + 1]
    return 0.5 if _values(text) is not None else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        text = decode(path.read_bytes())
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "This is no JSON but binary data.") from None
    values = _values(text)
    if values is None:  # comments, a cut file, nesting without end: still lines that somebody can ask about
        source = canonical(text)
        if not source.strip():
            raise DocumentUnreadable("document_empty", "There is no text in this file.")
        return ParsedDocument(source, PLUGIN.media_type, contexts=[Context(0, len(source))])
    out = TextBuilder()
    for place, value in values:
        for line in _rendered(place, value):
            out.row([line])
    if not out.length:
        raise DocumentUnreadable("document_empty", "There is nothing in this JSON.")
    return out.build(PLUGIN.media_type, None)


def _values(text: str) -> list[tuple[str, Any]] | None:
    """The value, or the values of JSON Lines, each with its path; None when it is neither. Numbers stay as they are
    spelled.
    """
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
    text = text.removeprefix("\ufeff")
    try:
        return [("", decoder.decode(text))]
    except RecursionError:
        return None
    except ValueError:
        lines = [line for line in text.split("\n") if line.strip()]
    try:
        return [(f"[{number}]", decoder.decode(line)) for number, line in enumerate(lines)] if len(lines) > 1 else None
    except (ValueError, RecursionError):
        return None


def _rendered(place: str, value: Any) -> Iterator[str]:
    """The lines of a value. A loop, since hostile values nest deeper than Python's stack."""
    waiting: list[tuple[str, Any]] = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        place = place[-_MAX_LINE:]
        if not value or type(value) not in _CONTAINERS:
            yield _line(place, _scalar(value))
            continue
        named = type(value) is dict
        children: list[tuple[str, Any]] = _children(value, named)
        simple = [(key, each) for key, each in children if not isinstance(each, _CONTAINERS)]
        line = ", ".join(f"{key}: {_scalar(each)}" if named else _scalar(each) for key, each in simple)
        if simple and len(line) <= _MAX_LINE and (named or len(simple) == len(children)):
            yield _line(place, line)
            children = [(key, each) for key, each in children if isinstance(each, _CONTAINERS)]
        waiting.extend((_path(place, key, named), each) for key, each in reversed(children))


def _children(container: Any, named: bool) -> list[tuple[str, Any]]:
    pairs: Any = container.items() if named else enumerate(container)
    return [(str(key), value) for key, value in pairs]


def _path(place: str, key: str, named: bool) -> str:
    if not named:
        return f"{place}[{key}]"
    if not _PLAIN_KEY.fullmatch(key):
        return f"{place}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{place}.{key}" if place else key


def _line(place: str, text: str) -> str:
    return f"{place}: {text}" if place else text


def _scalar(value: Any) -> str:
    if isinstance(value, str):  # a text, or a number as it is spelled
        return value
    return json.dumps(value)


PLUGIN = Format("json", "JSON", "application/json", (".json", ".jsonl", ".ndjson", ".geojson"), _sniff, _parse)
