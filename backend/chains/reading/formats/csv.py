"""CSV and its kin: rows of cells between commas, semicolons, tabs or bars."""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._sheets import add_sheet
from backend.chains.reading.parsed import ParsedDocument, TextBuilder
from backend.errors import DocumentUnreadable

_DELIMITERS = "\t,;|"
_SAMPLE_CHARACTERS = 20_000
_SAMPLE_ROWS = 50
# So many rows of one width are no prose, unless it is one comma each.
_SURE_ROWS = 5
# Python's own limit is lower than texts that people put in a cell.
_MAX_CELL = 1_000_000


def _sniff(head: bytes, path: Path, name: str) -> float:
    try:
        text = decode(head, whole=False)
    except NotTextError:
        return 0.0
    suffix = Path(name).suffix.lower()
    if suffix in PLUGIN.suffixes:
        return 0.7
    share, width, delimiter, rows = max(_tried(text))
    sure = share == 1 and rows >= _SURE_ROWS and (width > 2 or delimiter != ",")
    return 0.5 if sure and suffix in ("", ".txt") else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        text = decode(path.read_bytes())
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "This is no CSV but binary data.") from None
    out = TextBuilder()
    add_sheet(out, _rows(text, max(_tried(text))[2]))
    if not out.length:
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    return out.build(PLUGIN.media_type, None)


def _tried(text: str) -> Iterator[tuple[float, int, str, int]]:
    """For each delimiter: the share of rows that have the usual number of cells, this number, the delimiter, and
    how many rows these are.
    """
    sample = text[:_SAMPLE_CHARACTERS]
    whole = len(sample) == len(text)
    for delimiter in _DELIMITERS:
        rows = list(islice(_rows(sample, delimiter), _SAMPLE_ROWS))
        if not whole and len(rows) < _SAMPLE_ROWS:
            del rows[-1:]
        widths = [len(row) for row in rows if row]
        usual = max(set(widths), key=widths.count, default=0)
        alike = widths.count(usual) if usual > 1 else 0
        yield alike / max(len(widths), 1), usual, delimiter, alike


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows. From where a quote glues them together beyond reason, quotes mean nothing."""
    lines = io.StringIO(text.replace("\0", ""), newline="")
    csv.field_size_limit(_MAX_CELL)
    rows = csv.reader(lines, delimiter=delimiter)
    while True:
        start = lines.tell()
        try:
            row = next(rows, None)
        except csv.Error:
            lines.seek(start)
            csv.field_size_limit(len(text) + 1)
            rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            continue
        if row is None:
            return
        yield row


PLUGIN = Format("csv", "CSV", "text/csv", (".csv", ".tsv", ".tab"), _sniff, _parse)
