"""CSV and similar formats: rows of cells between commas, semicolons, tabs or bars."""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from backend.chains.reading.formats._base import Format, decode_head, read_text
from backend.chains.reading.formats._sheets import add_sheet
from backend.chains.reading.parsed import ParsedDocument, TextBuilder
from backend.errors import DocumentUnreadable

_DELIMITERS = "\t,;|"
_SAMPLE_CHARACTERS = 20_000
_SAMPLE_ROWS = 50
# So many rows with the same number of cells are a table and not prose, unless each has exactly one comma.
_SURE_ROWS = 5
# Python's default limit is too low for the texts that people put into a cell.
_MAX_CELL = 1_000_000


def _sniff(head: bytes, path: Path, name: str) -> float:
    text = decode_head(head)
    if text is None:
        return 0.0
    suffix = Path(name).suffix.lower()
    if suffix in PLUGIN.suffixes:
        return 0.7
    share, width, delimiter, rows = max(_rate_delimiters(text))
    sure = share == 1 and rows >= _SURE_ROWS and (width > 2 or delimiter != ",")
    return 0.5 if sure and suffix in ("", ".txt") else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    text = read_text(path, "This is no CSV but binary data.")
    out = TextBuilder()
    add_sheet(out, _rows(text, max(_rate_delimiters(text))[2]))
    if not out.length:
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    return out.build(PLUGIN.media_type, None)


def _rate_delimiters(text: str) -> Iterator[tuple[float, int, str, int]]:
    """For each delimiter: the share of rows with the usual number of cells, that number, the delimiter, and the number
    of these rows.
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
    """The rows. If an open quote would make a cell too large, quotes have no meaning from there on."""
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
