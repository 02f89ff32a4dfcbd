"""JSON and JSON Lines: one line per value with its path, so a passage says where in the file it is.

servers[0]: name: web, port: 80
servers[0].owner.mail: ops@example.org
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format, decode_head, read_text
from backend.chains.reading.parsed import Context, ParsedDocument, TextBuilder, canonical
from backend.errors import DocumentUnreadable

_BEGINNING = re.compile(r'\ufeff?\s*(?:\{\s*(?:"[^"\n]{0,1000}"\s*:|\})|\[\s*(?:[\[{"\]]|-?\d|true|false|null))')
# Characters. The fields of a record or the items of a list become one line if they are not longer.
_MAX_LINE = 200
_CONTAINERS = (dict, list)
_PLAIN_KEY = re.compile(r"[\w$@-]+")


def _sniff(head: bytes, path: Path, name: str) -> float:
    text = decode_head(head)
    if text is None:
        return 0.0
    if not _BEGINNING.match(text):
        return 0.0
    if Path(name).suffix.lower() in PLUGIN.suffixes:
        return 0.8
    if path.stat().st_size > len(head):
        text = text[: text.rfind("\n") + 1]
    return 0.5 if _values(text) is not None else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    text = read_text(path, "This is no JSON but binary data.")
    values = _values(text)
    if values is None:  # with comments, cut off, or nested too deep: it still has lines of text
        source = canonical(text)
        if not source.strip():
            raise DocumentUnreadable("document_empty", "There is no text in this file.")
        return ParsedDocument(source, PLUGIN.media_type, contexts=[Context(0, len(source))])
    out = TextBuilder()
    for place, value in values:
        for line in _render(place, value):
            out.row([line])
    if not out.length:
        raise DocumentUnreadable("document_empty", "There is nothing in this JSON.")
    return out.build(PLUGIN.media_type, None)


def _values(text: str) -> list[tuple[str, Any]] | None:
    """The value, or the values of JSON Lines, each with its path. None if the text is neither.

    Numbers become strings, exactly as they are written.
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


def _render(place: str, value: Any) -> Iterator[str]:
    """The lines of a value. A loop and no recursion: hostile values nest deeper than Python's stack."""
    waiting: list[tuple[str, Any]] = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        place = place[-_MAX_LINE:]
        if not value or type(value) not in _CONTAINERS:
            yield _line(place, _scalar(value))
            continue
        is_object = type(value) is dict
        children: list[tuple[str, Any]] = _children(value, is_object)
        simple = [(key, child) for key, child in children if not isinstance(child, _CONTAINERS)]
        line = ", ".join(f"{key}: {_scalar(child)}" if is_object else _scalar(child) for key, child in simple)
        if simple and len(line) <= _MAX_LINE and (is_object or len(simple) == len(children)):
            yield _line(place, line)
            children = [(key, child) for key, child in children if isinstance(child, _CONTAINERS)]
        waiting.extend((_path(place, key, is_object), child) for key, child in reversed(children))


def _children(container: Any, is_object: bool) -> list[tuple[str, Any]]:
    pairs: Any = container.items() if is_object else enumerate(container)
    return [(str(key), value) for key, value in pairs]


def _path(place: str, key: str, is_object: bool) -> str:
    if not is_object:
        return f"{place}[{key}]"
    if not _PLAIN_KEY.fullmatch(key):
        return f"{place}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{place}.{key}" if place else key


def _line(place: str, text: str) -> str:
    return f"{place}: {text}" if place else text


def _scalar(value: Any) -> str:
    if isinstance(value, str):  # a text, or a number as it is written
        return value
    return json.dumps(value)


PLUGIN = Format("json", "JSON", "application/json", (".json", ".jsonl", ".ndjson", ".geojson"), _sniff, _parse)
