"""Reads files as text. There is one module per format, with a `PLUGIN`; the format is detected from the content."""

import importlib
import pkgutil
from functools import cache
from pathlib import Path

import msgspec

from backend.chains.reading.formats._base import Format, check_length
from backend.chains.reading.parsed import Heading, ParsedDocument
from backend.errors import DocumentUnreadable

__all__ = ["Format", "detect", "formats", "parse_file", "supported"]

# Bytes from the beginning of a file by which a format is detected.
HEAD_BYTES = 65_536
# Maximum number of headings, and of tables. Each heading begins a chunk; no book of 10,000 pages has so many.
MAX_PLACES = 20_000


@cache
def formats() -> dict[str, Format]:
    """All formats by name: the modules of this folder whose name doesn't begin with an underscore."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    plugins: list[Format] = [importlib.import_module(f"{__name__}.{name}").PLUGIN for name in names]
    return {plugin.name: plugin for plugin in plugins}


def supported() -> str:
    """The names of all formats, for messages."""
    return ", ".join(sorted(plugin.label for plugin in formats().values()))


def detect(path: Path, name: str) -> Format:
    """The format of a file. The owner's file name `name` is used only if the content is ambiguous.

    Raises DocumentUnreadable: `document_empty`, `document_unsupported`.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise DocumentUnreadable("document_empty", "The file is empty. Choose a file with text in it.")
    score, best = max(((plugin.sniff(head, path, name), plugin) for plugin in formats().values()), key=lambda s: s[0])
    if score <= 0:
        raise DocumentUnreadable(
            "document_unsupported",
            f"This is not a kind of file that can be read. Supported are: {supported()}.",
        )
    return best


def parse_file(path: Path, name: str) -> ParsedDocument:
    """A file as text. This runs in the calling thread, without limits of time or memory; `Parser` sets limits.

    Raises DocumentUnreadable.
    """
    parsed = detect(path, name).parse(path, name)
    if not parsed.text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    check_length(len(parsed.text))
    return _limit_places(parsed)


def _limit_places(parsed: ParsedDocument) -> ParsedDocument:
    """The document with at most MAX_PLACES headings and tables. The text after the last heading has no heading."""
    headings, contexts = parsed.headings, parsed.contexts
    if len(headings) > MAX_PLACES:
        headings = [*headings[: MAX_PLACES - 1], Heading(headings[MAX_PLACES - 1].start, 1, "")]
    return msgspec.structs.replace(parsed, headings=headings, contexts=contexts[:MAX_PLACES])
