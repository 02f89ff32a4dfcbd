"""Turns the rows of spreadsheets and CSV files into lines of a document."""

import re
from collections.abc import Iterable, Sequence

from backend.chains.reading.parsed import TextBuilder, row_text

_VALUE = re.compile(r"[\W\d_]*")


def add_sheet(out: TextBuilder, rows: Iterable[Sequence[str]]) -> None:
    """Append the rows, which are numbered from 1. Empty rows are left out and end a table.

    The header is the first row of a table that has two or more cells, all of them words. If the next table has as many
    columns, it keeps the header of the one before it: people put empty rows inside of tables.
    """
    header, width, expects_header = "", 0, True
    for number, cells in enumerate(rows, 1):
        filled = [cell for cell in cells if cell.strip()]
        if not filled:
            expects_header = True
            continue
        is_words = not any(map(_VALUE.fullmatch, filled))
        is_header = expects_header and len(filled) > 1 and len(filled) != width and is_words
        if is_header:
            header, width = row_text(cells), len(filled)
        out.row(cells, "" if is_header else header, number)
        expects_header = expects_header and len(filled) == 1
