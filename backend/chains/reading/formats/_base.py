"""What every format offers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.chains.reading.parsed import ParsedDocument
from backend.errors import DocumentUnreadable

MAX_PAGES = 20_000
# A text of this length is a book of 10,000 pages; indexing it would take hours.
MAX_CHARACTERS = 20_000_000


@dataclass(frozen=True)
class Format:
    """A document format.

    `name` is its id, `label` what people call it, `suffixes` the ends of file names that go with it.

    `sniff(head, path, name)`: how surely the file is of this format, 0 to 1, told by its first bytes; `path`
    is there for formats that keep their proof elsewhere, and `name` (the owner's, unsafe) for those that have
    none.

    `parse(path, name)`: the document. Raises DocumentUnreadable and nothing else, whatever the file holds.
    """

    name: str
    label: str
    media_type: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes, Path, str], float]
    parse: Callable[[Path, str], ParsedDocument]


def check_pages(count: int) -> None:
    """Refuse a document with so many pages. Raises DocumentUnreadable."""
    if count > MAX_PAGES:
        raise DocumentUnreadable(
            "document_too_large", f"This document claims to have more than {MAX_PAGES:,} pages. Split it into parts."
        )


def check_length(characters: int) -> None:
    """Refuse a longer text. Raises DocumentUnreadable."""
    if characters > MAX_CHARACTERS:
        raise DocumentUnreadable(
            "document_too_large",
            f"The text in this file is longer than {MAX_CHARACTERS:,} characters. Split the file into parts.",
        )
