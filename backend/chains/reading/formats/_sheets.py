"""Rows of cells, as spreadsheets and CSV files have them, to lines of a document."""

import re
from collections.abc import Iterable, Sequence

from backend.chains.reading.parsed import TextBuilder, row_text

_VALUE = re.compile(r"[\W\d_]*")


def add_sheet(out: TextBuilder, rows: Iterable[Sequence[str]]) -> None:
    """Append the rows, which are numbered from 1. Empty ones are left out, and end a table.

    The header is the first row of a table that has two or more cells and is all words. A further table keeps
    the header before it, unless its own is wider or narrower: people put empty rows inside of tables, too.
    """
    header, width, looking = "", 0, True
    for number, cells in enumerate(rows, 1):
        filled = [cell for cell in cells if cell.strip()]
        if not filled:
            looking = True
            continue
        found = looking and len(filled) > 1 and len(filled) != width and not any(map(_VALUE.fullmatch, filled))
        if found:
            header, width = row_text(cells), len(filled)
        out.row(cells, "" if found else header, number)
        looking = looking and len(filled) == 1
