"""Plain text in any common encoding: also logs and whatever else reads as lines."""

from pathlib import Path

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.parsed import ParsedDocument, canonical
from backend.errors import DocumentUnreadable


def _sniff(head: bytes, path: Path, name: str) -> float:
    try:
        decode(head, whole=False)
    except NotTextError:
        return 0.0
    return 0.3


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        text = canonical(decode(path.read_bytes()))
    except NotTextError:
        raise DocumentUnreadable(
            "document_unsupported", "This is no text but binary data. Save it as text, PDF or DOCX."
        ) from None
    if not text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    return ParsedDocument(text, PLUGIN.media_type)


PLUGIN = Format("text", "plain text", "text/plain", (".txt", ".text", ".log"), _sniff, _parse)
