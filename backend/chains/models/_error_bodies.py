"""What the body of a provider's error says: one reading of all the dresses that errors come in.

Vendors and servers put the same things into different places: `{"error": {...}}`, `{"error": "..."}`,
`{"detail": ...}`, `{"message", "type", "code"}`, `{"object": "error"}`, lists of these, an error quoted in another
error's text, plain words, or the web page of whoever stands between.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from backend.chains.models._waits import seconds_of

_MAX_BODY = 65_536
"""The most characters of an error that are read."""
_MAX_LEVELS, _MAX_ENTRIES, _MAX_WIDTH = 8, 100, 50
_TEXTS = frozenset({"message", "msg", "detail", "error", "error_message", "errormessage", "status_msg", "title", "raw"})
_CODES = frozenset({"code", "type", "status", "error_type", "reason", "error_code", "errorcode", "__type"})
_STATUSES = frozenset({"code", "status", "status_code", "statuscode", "http_status", "http_code"})
_NESTED = frozenset(
    {"error", "errors", "detail", "details", "metadata", "raw", "innererror", "base_resp", "body", "raw_error"}
)
_WAITS = frozenset({"retrydelay", "retry_after", "retry_after_seconds"})
_PAGE = re.compile(r"\A\s*(?:<!doctype|<html|<head|<body|<center|<h\d|<\?xml)|<html[\s>]", re.I)
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.I | re.S)
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.I | re.S)
_OPENING = re.compile(r"[\[{](?=\s*['\"{\[])")
_MAX_TRIES = 5


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error says. `status` is the HTTP status that the body itself names, `codes` are its machine-readable
    words in lower case, `params` the parameters that it names in a field of its own, `wait` the seconds that a field
    asks to wait. `is_page`: it is a web page, so it is unknown whether the provider wrote it."""

    text: str = ""
    """Its sentences, as they were written."""
    status: int | None = None
    codes: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    wait: float | None = None
    is_page: bool = False


def read_error_body(body: object) -> ErrorBody:
    """What an error's body says. It may be text, bytes, or what was read from its JSON."""
    if isinstance(body, bytes):
        body = body[:_MAX_BODY].decode("utf-8", "replace")
    if isinstance(body, str):
        body = body[:_MAX_BODY].strip()
        if _PAGE.search(body):
            return ErrorBody(_page_text(body), is_page=True)
        value = _parsed(body)
        body = body if value is None else value
    reading = _Reading()
    reading.read(body)
    text = reading.text()
    if not text and body:
        text = body if isinstance(body, str) else json.dumps(body, default=str)[:_MAX_BODY]
    return ErrorBody(text, reading.status, tuple(reading.codes), tuple(reading.params), reading.wait)


def error_in(value: object) -> Mapping[str, Any] | None:
    """The JSON value of a stream, if it reports an error; None if it doesn't. What has text or choices reports one only
    with a field `error`."""
    if isinstance(value, list) and value:
        return error_in(cast("list[object]", value)[0])
    if not isinstance(value, Mapping):
        return None
    fields = cast("Mapping[str, Any]", value)
    if fields.get("error"):
        return fields
    if fields.get("choices") or fields.get("candidates") or isinstance(fields.get("message"), Mapping):
        return None
    base = fields.get("base_resp")
    reports = (
        "error" in (fields.get("object"), fields.get("type"))
        or (isinstance(base, Mapping) and cast("Mapping[str, Any]", base).get("status_code"))
        or fields.get("detail")
        or fields.get("errors")
        or (isinstance(fields.get("message"), str) and not fields.keys() & {"choices", "model", "done", "delta"})
    )
    return fields if reports else None


def status_of(value: object) -> int | None:
    """The HTTP status of a refusal that a field's value is, as a number or as text; None if it is something else."""
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        value = int(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(cast("float", value)) if is_number and 400 <= cast("float", value) < 600 else None


class _Reading:
    """What was found so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.codes: dict[str, None] = {}
        self.params: dict[str, None] = {}
        self.wait: float | None = None
        self._texts: dict[str, None] = {}

    def text(self) -> str:
        """The sentences; one that another one quotes is left out."""
        sentences = [text for text in self._texts if _parsed(text) is None] or list(self._texts)
        return " ".join(text for text in sentences if not any(text in other and text != other for other in sentences))

    def read(self, value: object, level: int = 0) -> None:
        """Take in an error, or a part of one."""
        if level > _MAX_LEVELS or len(self._texts) + len(self.codes) > _MAX_ENTRIES:
            return
        if isinstance(value, Mapping):
            for name, content in list(cast("Mapping[str, object]", value).items())[:_MAX_WIDTH]:
                self._read_field(str(name).lower(), content, level)
        elif isinstance(value, list | tuple):
            for item in cast("list[object]", value)[:_MAX_WIDTH]:
                self.read(item, level + 1)
        elif isinstance(value, str) and (text := value.strip()):
            self._texts.setdefault(text)
            if (quoted := _quoted(text)) is not None:
                self.read(quoted, level + 1)

    def _read_field(self, name: str, value: object, level: int) -> None:
        if name in _STATUSES and self.status is None:
            self.status = status_of(value)
        if name in _CODES and isinstance(value, str) and value != "error":
            self.codes.setdefault(value[:200].lower())
        if name == "param" and isinstance(value, str) and value:
            self.params.setdefault(value[:200])
        if name == "loc" and isinstance(value, list | tuple) and value:
            self.params.setdefault(str(cast("list[object]", value)[-1])[:200])
        if name in _WAITS and self.wait is None:
            self.wait = seconds_of(cast("object", value))
        if name in _NESTED or (name in _TEXTS and isinstance(value, str)):
            self.read(cast("object", value), level + 1)


def _quoted(text: str) -> object | None:
    """The error that a sentence quotes as JSON, or as Python writes it; None if it quotes none."""
    for match in list(_OPENING.finditer(text))[:_MAX_TRIES]:
        try:
            return json.JSONDecoder().raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            end = max(text.rfind("}"), text.rfind("]")) + 1
            if (value := _parsed(text[match.start() : end])) is not None:
                return value
    return None


def _parsed(text: str) -> Any:
    """The array or object that a text is, in JSON or as Python writes it; None if it is neither."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > _MAX_BODY or "'" not in text:
        return None
    try:
        # vLLM writes the list of what is wrong with a request as Python does.
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _page_text(page: str) -> str:
    """The words of a web page: its title and heading, or else all of its text."""
    titles = (" ".join(_TAG.sub(" ", match.group(2)).split()) for match in _TITLE.finditer(page))
    return " ".join(filter(None, dict.fromkeys(titles))) or " ".join(_TAG.sub(" ", page).split())
