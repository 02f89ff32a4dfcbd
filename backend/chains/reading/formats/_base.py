"""What a format is, and what formats share: reading text files, and limits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.parsed import ParsedDocument
from backend.errors import DocumentUnreadable

MAX_PAGES = 20_000
# A text of this length is a book of 10,000 pages. Indexing a longer one would take hours.
MAX_CHARACTERS = 20_000_000


@dataclass(frozen=True)
class Format:
    """A document format.

    `name` is its id, `label` its name in messages, `suffixes` are its endings of file names.

    `sniff(head, path, name)` returns how certain it is that the file has this format, 0 to 1, judged by its first
    bytes. `path` is for formats that must read other parts of the file. `name` is the owner's name of the file, which
    can be anything; it is for formats that can't be recognised by the content.

    `parse(path, name)` returns the document. It raises only DocumentUnreadable, whatever the file contains.
    """

    name: str
    label: str
    media_type: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes, Path, str], float]
    parse: Callable[[Path, str], ParsedDocument]


def decode_head(head: bytes) -> str | None:
    """The beginning of a file as text; None if it is binary data."""
    try:
        return decode(head, whole=False)
    except NotTextError:
        return None


def read_text(path: Path, message: str) -> str:
    """A file as text. Raises DocumentUnreadable with `message` if it is binary data."""
    try:
        return decode(path.read_bytes())
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", message) from None


def check_pages(count: int) -> None:
    """Refuse a document with more than MAX_PAGES pages. Raises DocumentUnreadable."""
    if count > MAX_PAGES:
        raise DocumentUnreadable(
            "document_too_large", f"This document claims to have more than {MAX_PAGES:,} pages. Split it into parts."
        )


def check_length(characters: int) -> None:
    """Refuse a text with more than MAX_CHARACTERS characters. Raises DocumentUnreadable."""
    if characters > MAX_CHARACTERS:
        raise DocumentUnreadable(
            "document_too_large",
            f"The text in this file is longer than {MAX_CHARACTERS:,} characters. Split the file into parts.",
        )
