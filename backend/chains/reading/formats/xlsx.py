"""Excel workbooks (XLSX): sheets as headings, rows as lines, with the values that Excel calculated last."""

import importlib
from collections.abc import Iterator
from datetime import date, time
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._sheets import add_sheet
from backend.chains.reading.formats._zip import check_archive, contains_part, report_damage
from backend.chains.reading.parsed import ParsedDocument, TextBuilder
from backend.errors import DocumentUnreadable


def _sniff(head: bytes, path: Path, name: str) -> float:
    return 1.0 if contains_part(head, path, b"xl/workbook.") else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    with report_damage("This workbook is damaged. Open it in a spreadsheet program, save it again and try once more."):
        check_archive(path)
        out = TextBuilder()
        calamine: Any = importlib.import_module("python_calamine")
        with calamine.load_workbook(path) as workbook:
            for title in workbook.sheet_names:
                sheet = workbook.get_sheet_by_name(title)
                if sheet.end is not None:
                    out.heading(title, 1)
                    add_sheet(out, _rows(sheet))
    if not out.contexts:
        raise DocumentUnreadable("document_empty", "The sheets of this workbook are empty.")
    return out.build(PLUGIN.media_type, None)


def _rows(sheet: Any) -> Iterator[list[str]]:
    for row in sheet.iter_rows():
        yield [_text(value) for value in row]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):  # all numbers of Excel are floats
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


PLUGIN = Format(
    "xlsx",
    "Excel (XLSX)",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    (".xlsx", ".xlsm", ".xlsb"),
    _sniff,
    _parse,
)
