"""Questions with the places that answer them: read from a CSV, then looked up in the documents' texts."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .spans import Span, Text

COLUMNS = ("question", "document", "expected", "page", "history")
Turn = dict[str, str]
_SHOWN = 10  # mistakes that are told at once
_LONGEST = 10_000_000


class EvalError(RuntimeError):
    """Nothing can be measured; the words say why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """A place as its author writes it; `line` is where, 0 for no line of a file."""

    document: str
    expected: str = ""
    page: int | None = None
    line: int = 0


@dataclass(frozen=True)
class Row:
    """A question and what should be found for it; nothing when the documents don't answer it.

    `evidence`: what an answer should quote, where that is known more closely than what a search should find.
    """

    question: str
    wanted: tuple[Wanted, ...] = ()
    history: tuple[Turn, ...] = ()
    evidence: tuple[Wanted, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where an answer stands: in any one of `spans`, on `page`; with neither, anywhere in the document."""

    document: str
    spans: tuple[Span, ...] = ()
    page: int | None = None


@dataclass(frozen=True)
class Question:
    """A row whose places are known. Documents are named by their ids on the server."""

    text: str
    places: tuple[Place, ...] = ()
    history: tuple[Turn, ...] = ()
    evidence: tuple[Place, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether the documents answer it."""
        return bool(self.places)


@dataclass
class _Reader:
    """Reads lines and remembers what is wrong with them."""

    mistakes: list[str] = field(default_factory=list)

    def wrong(self, line: int, what: str) -> None:
        self.mistakes.append(f"line {line}: {what}")

    def wanted(self, line: int, cells: Mapping[str, str]) -> Wanted | None:
        document, expected, page = cells["document"], cells["expected"], cells["page"]
        if not document:
            if expected or page:
                self.wrong(line, "`expected` or `page` without `document`: name the file that it stands in.")
            return None
        number = int(page) if page.isascii() and page.isdigit() else 0
        if page and number < 1:
            self.wrong(line, f"`page` is {page!r}: write a number from 1 on, as the PDF counts, or leave it empty.")
        return Wanted(document, expected, number or None, line=line)

    def history(self, line: int, cell: str) -> tuple[Turn, ...]:
        try:
            turns = json.loads(cell or "[]")
        except ValueError:
            turns = None
        if isinstance(turns, list) and all(_is_turn(turn) for turn in turns):
            return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)
        form = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
        self.wrong(line, f"`history` is no list of turns: write it as {form}, or leave it empty.")
        return ()


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("user", "assistant")
        and isinstance(turn.get("content"), str)
        and bool(turn["content"].strip())
    )


def read_csv(path: Path) -> list[Row]:
    """The questions of a file, in order; lines with the same question and history are one with several places.

    Raises EvalError that names the lines and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EvalError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise EvalError(f"{path} is not UTF-8: save it as `CSV UTF-8`.") from None
    csv.field_size_limit(_LONGEST)
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    names = [name.strip().lower() for name in lines.fieldnames or ()]
    if not {"question", "document"} <= set(names):
        raise EvalError(
            f"{path}, line 1: the columns are {', '.join(names) or 'missing'}. The first line must name `question`, "
            "`document`, and `expected` or `page`, with commas between."
        )
    lines.fieldnames = names
    rows, mistakes = _rows(lines)
    if mistakes:
        raise EvalError(f"{path} can't be read:" + _listed(mistakes))
    if not rows:
        raise EvalError(f"{path} has no questions: write one a line below the first.")
    return rows


def _rows(lines: "csv.DictReader[str]") -> tuple[list[Row], list[str]]:
    reader = _Reader()
    found: dict[tuple[str, str], Row] = {}
    try:
        for each in lines:
            number = lines.line_num
            if None in each:
                reader.wrong(number, "more columns than the first line has: put text that holds commas into quotes.")
                continue
            cells = {name: (each.get(name) or "").strip() for name in COLUMNS}
            if not any(cells.values()):
                continue
            if not cells["question"]:
                reader.wrong(number, "`question` is empty.")
            wanted = reader.wanted(number, cells)
            history = reader.history(number, cells["history"])
            key = (cells["question"], json.dumps(history))
            before = found[key].wanted if key in found else ()
            found[key] = Row(cells["question"], (*before, *([wanted] if wanted else [])), history)
    except csv.Error as error:
        reader.wrong(lines.line_num, f"{error}: a quotation mark inside quoted text is written twice.")
    return list(found.values()), reader.mistakes


class Library(Protocol):
    """Documents as a server has them."""

    def document(self, name: str) -> str:
        """The id of the document with this id or file name. Raises EvalError when there is none, or several."""
        ...

    def text(self, document: str) -> Text:
        """The canonical text of the document with this id."""
        ...


def located(rows: Sequence[Row], library: Library) -> list[Question]:
    """The rows with their places looked up. Raises EvalError that names what isn't there."""
    missing: list[str] = []
    questions = [
        Question(
            row.question,
            _places(row.wanted, library, missing),
            row.history,
            _places(row.evidence, library, missing),
        )
        for row in rows
    ]
    if missing:
        raise EvalError("Some answers are not in the documents:" + _listed(missing))
    return questions


def _places(every: Sequence[Wanted], library: Library, missing: list[str]) -> tuple[Place, ...]:
    found: list[Place] = []
    for wanted in every:
        try:
            found.append(_place(wanted, library))
        except EvalError as error:
            missing.append(f"line {wanted.line}: {error}" if wanted.line else str(error))
    return tuple(dict.fromkeys(found))


def _place(wanted: Wanted, library: Library) -> Place:
    document = library.document(wanted.document)
    spans = library.text(document).find(wanted.expected) if wanted.expected else []
    if wanted.expected and not spans:
        raise EvalError(
            f"{wanted.document} doesn't hold {wanted.expected[:60]!r}: copy the words from its text "
            f"(GET /documents/{document}/text)."
        )
    return Place(document, tuple(spans), wanted.page)


def _listed(mistakes: Sequence[str]) -> str:
    more = [f"and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else []
    return "".join(f"\n  {each}" for each in [*mistakes[:_SHOWN], *more])
