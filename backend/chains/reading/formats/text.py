"""Plain text in any common encoding, also logs and anything else that consists of lines."""

from pathlib import Path

from backend.chains.reading.formats._base import Format, decode_head, read_text
from backend.chains.reading.parsed import ParsedDocument, canonical
from backend.errors import DocumentUnreadable


def _sniff(head: bytes, path: Path, name: str) -> float:
    return 0.0 if decode_head(head) is None else 0.3


def _parse(path: Path, name: str) -> ParsedDocument:
    text = canonical(read_text(path, "This is no text but binary data. Save it as text, PDF or DOCX."))
    if not text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    return ParsedDocument(text, PLUGIN.media_type)


PLUGIN = Format("text", "plain text", "text/plain", (".txt", ".text", ".log"), _sniff, _parse)
