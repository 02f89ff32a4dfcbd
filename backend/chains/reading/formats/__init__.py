"""Files to text. One file a format, found by its `PLUGIN`; which one reads a file is told by the file's
content.
"""

import importlib
import pkgutil
from functools import cache
from pathlib import Path

import msgspec

from backend.chains.reading.formats._base import Format, check_length
from backend.chains.reading.parsed import Heading, ParsedDocument
from backend.errors import DocumentUnreadable

__all__ = ["Format", "detect", "formats", "parse_file", "supported"]

# What a format may look at to recognise its own.
HEAD_BYTES = 65_536
# Headings, and tables. Each heading begins a chunk: so many per book of 10,000 pages are more than authors write.
MAX_PLACES = 20_000


@cache
def formats() -> dict[str, Format]:
    """Every format by its name: the modules of this folder that have no underscore in front."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    plugins: list[Format] = [importlib.import_module(f"{__name__}.{name}").PLUGIN for name in names]
    return {plugin.name: plugin for plugin in plugins}


def supported() -> str:
    """The formats in words, for messages."""
    return ", ".join(sorted(plugin.label for plugin in formats().values()))


def detect(path: Path, name: str) -> Format:
    """The format of a file. `name` is the name its owner gave it, and counts only where the content leaves it
    open.

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
    """A file as text. It runs in the calling thread without limits of time or memory: see `Parser`.

    Raises DocumentUnreadable.
    """
    parsed = detect(path, name).parse(path, name)
    if not parsed.text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    check_length(len(parsed.text))
    return _bounded(parsed)


def _bounded(parsed: ParsedDocument) -> ParsedDocument:
    """What comes behind the last heading or table that is kept is text under no heading."""
    headings, contexts = parsed.headings, parsed.contexts
    if len(headings) > MAX_PLACES:
        headings = [*headings[: MAX_PLACES - 1], Heading(headings[MAX_PLACES - 1].start, 1, "")]
    return msgspec.structs.replace(parsed, headings=headings, contexts=contexts[:MAX_PLACES])
