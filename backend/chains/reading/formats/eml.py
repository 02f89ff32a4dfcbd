"""E-mails (EML): the important headers, then the text. Attachments are listed but not read."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.policy import Compat32
from pathlib import Path
from typing import Any

from typing_extensions import override

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._html import add_html, parse_html
from backend.chains.reading.parsed import ParsedDocument, TextBuilder, one_line
from backend.errors import DocumentUnreadable

_HEADERS = ("Subject", "From", "To", "Cc", "Date")
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60}):[ \t\r\n]|[ \t]+\S|>?From \S")
_MAIL_FIELDS = frozenset(
    ("received", "message-id", "mime-version", "return-path", "delivered-to", "from", "to", "date")
)
_MAX_PARTS = 1_000
_MAX_HEADER = 10_000
_MAX_CONTENT_HEADER = 2_000


class _ShortHeaders(Compat32):
    """Cuts long headers: parsing the parameters of a header takes time quadratic in its length."""

    @override
    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[: _MAX_CONTENT_HEADER if name.lower().startswith("content-") else _MAX_HEADER]


_POLICY = _ShortHeaders()


def _sniff(head: bytes, path: Path, name: str) -> float:
    """Whether all lines before the first empty one are header fields, and three of them are typical of mails."""
    fields: set[str] = set()
    for line in head[:16_384].decode("latin-1").splitlines():
        field = _FIELD.match(line + "\n")
        if field is None:
            if line:
                return 0.0
            break
        fields.add((field[1] or "").lower())
    mail_fields = len(fields & _MAIL_FIELDS)
    return 0.9 if mail_fields >= 3 or (mail_fields >= 2 and Path(name).suffix.lower() in PLUGIN.suffixes) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        message = message_from_bytes(path.read_bytes(), policy=_POLICY)
        out = TextBuilder()
        title = _add_message(out, message)
    except RecursionError:
        raise DocumentUnreadable(
            "document_corrupt", "The parts of this mail are nested too deep. Save its text as a file of its own."
        ) from None
    except (MessageError, LookupError, ValueError) as error:
        raise DocumentUnreadable("document_corrupt", "This mail is damaged. Export it anew and try again.") from error
    if not out.length:
        raise DocumentUnreadable("document_empty", "There is no text in this mail.")
    return out.build(PLUGIN.media_type, title)


def _add_message(out: TextBuilder, message: Message) -> str | None:
    """Append the headers and the text of a mail. Returns its subject."""
    subject = one_line(_header(message, "Subject"))
    headers = ((name, _header(message, name)) for name in _HEADERS)
    out.add("\n".join(f"{name}: {value}" for name, value in headers if value))
    for count, part in enumerate(_visible_parts(message), 1):
        if count > _MAX_PARTS:
            raise DocumentUnreadable("document_too_large", f"This mail has more than {_MAX_PARTS:,} parts.")
        _add_part(out, part)
    return subject


def _header(message: Message, name: str) -> str:
    """The decoded text of a header, as one line."""
    raw = str(message.get(name, ""))[:_MAX_HEADER]
    try:
        text = str(make_header(decode_header(raw)))
    except (MessageError, LookupError, ValueError):
        text = raw
    return " ".join(text.split())


def _visible_parts(part: Any) -> Iterator[Any]:
    """The parts that a mail program displays. Of alternatives only one: plain text if there is one, else HTML."""
    if not part.is_multipart() or part.get_content_type() == "message/rfc822":
        yield part
        return
    parts: list[Any] = part.get_payload()
    if part.get_content_subtype() == "alternative":
        parts = sorted(parts, key=lambda child: _ORDER.get(child.get_content_type(), 2))[:1]
    for child in parts:
        yield from _visible_parts(child)


_ORDER = {"text/plain": 0, "text/html": 3, "text/calendar": 4}


def _add_part(out: TextBuilder, part: Any) -> None:
    kind = part.get_content_type()
    name = part.get_filename()
    if kind == "message/rfc822":
        name = next((_header(inner, "Subject") for inner in part.get_payload()), None)
    if name or part.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
        out.add(f"Attachment: {one_line(name or '') or 'without a name'} ({kind})", "\n")
        return
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes) or not raw.strip():
        return
    declared = part.get_content_charset()
    try:
        if kind == "text/html":
            tree = parse_html(raw, declared)
            add_html(out, tree.body or tree.root)
        else:
            out.add(decode(raw, declared=declared))
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "The text of this mail is binary data.") from None


PLUGIN = Format("eml", "e-mail (EML)", "message/rfc822", (".eml",), _sniff, _parse)
