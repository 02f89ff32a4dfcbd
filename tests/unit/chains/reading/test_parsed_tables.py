"""Tables: their rows are kept whole, carry their header, and say which they are."""

import re
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chains.reading.formats import parse_file
from backend.chains.reading.parsed import MAX_CONTEXT, Context, Heading, ParsedDocument, TextBuilder, row_text
from backend.chains.retrieval.chunking import chunk
from backend.chains.retrieval.entries import ChunkText
from tests.support import samples


def shown(parsed: ParsedDocument, size: int) -> list[tuple[str | None, str | None, str]]:
    return [(each.heading, each.context, parsed.text[each.start : each.end]) for each in chunk(parsed, size)]


def test_a_table_that_is_cut_carries_its_header(tmp_path: Path) -> None:
    rows = "".join(f"| Anna. Nr. {number} | {number} |\n" for number in range(8))
    text = f"# Ships\n\nAll of them. Really.\n\n| Name | *Draught* |\n|---|:-:|\n{rows}\nThe end."
    parsed = parse_file(samples.text(tmp_path / "a.md", text), "a.md")
    assert parsed.text == text
    first, *rest = chunk(parsed, 120)
    assert first.context is None and "| Name |" in parsed.text[first.start : first.end]
    assert rest and all(each.context == "Name | *Draught*" for each in rest)
    assert ChunkText.from_document(parsed, rest[0]).indexed().startswith("Ships\nName | *Draught*\n| Anna. Nr. ")


@pytest.mark.parametrize(
    "table",
    [
        "<tr><th>Ship</th><th>Draught</th></tr>{}",
        "<thead><tr><td>Ship</td><td>Draught</td></tr></thead><tbody>{}</tbody>",
        "<caption></caption><tr><th><p>Ship</p><th>Draught<script>x</script>{}",
    ],
)
def test_html_tables(tmp_path: Path, table: str) -> None:
    rows = "".join(f"<tr><td>Anna<br>{number}. Really</td><td> 7 m<p>or 8 </td></tr>" for number in range(20))
    page = f"<html><body><p>Before.</p><table>{table.format(rows)}</table><p>After.</p></body></html>"
    parsed = parse_file(samples.text(tmp_path / "a.html", page), "a.html")
    lines = [f"Anna {number}. Really | 7 m or 8" for number in range(20)]
    assert parsed.text == "\n\n".join(["Before.", "\n".join(["Ship | Draught", *lines]), "After."])
    assert [(context.text, parsed.text[context.start : context.end]) for context in parsed.contexts] == [
        ("", "Ship | Draught"),
        ("Ship | Draught", "\n".join(lines)),
    ]


def test_a_table_that_lays_out_a_page_is_none(tmp_path: Path) -> None:
    page = (
        "<html><body><table><tr><td><p>One sentence. Another one.</p><p>A second paragraph.</p></td><td>"
        "<table><tr><th>Ship</th><td>Anna</td></tr></table></td></tr></table></body></html>"
    )
    parsed = parse_file(samples.text(tmp_path / "a.html", page), "a.html")
    assert parsed.text == "One sentence. Another one.\n\nA second paragraph.\n\nShip | Anna"
    assert [context.start for context in parsed.contexts] == [parsed.text.index("Ship")]


def test_word_tables(tmp_path: Path) -> None:
    table = [["Ship", "Draught"], *([f"Anna. {number}", "7 m"] for number in range(20))]
    parsed = parse_file(samples.docx(tmp_path / "a.docx", table=table), "a.docx")
    assert [context.text for context in parsed.contexts] == ["", "Ship | Draught"]
    assert {context for _, context, text in shown(parsed, 100) if text.startswith("Anna")} == {"Ship | Draught"}


def test_a_sheet_says_which_rows(tmp_path: Path) -> None:
    parsed = parse_file(samples.xlsx(tmp_path / "a.xlsx", rows=7), "a.xlsx")
    assert shown(parsed, 95) == [
        (
            "Pilots > rows 1-4",
            None,
            "Pilots\n\nHarbour pilots board arriving ships\n\nName | Since | Rate\nPilot 0 | 2020-01-01 | 100",
        ),
        (
            "Pilots > rows 5-7",
            "Name | Since | Rate",
            "Pilot 1 | 2020-01-02 | 100.5\nPilot 2 | 2020-01-03 | 101\nPilot 3 | 2020-01-04 | 101.5",
        ),
        (
            "Pilots > rows 8-10",
            "Name | Since | Rate",
            "Pilot 4 | 2020-01-05 | 102\nPilot 5 | 2020-01-06 | 102.5\nPilot 6 | 2020-01-07 | 103",
        ),
        ("Boarding > rows 2-3", None, "Boarding\n\nPlace | Open\nQuay 1 | TRUE"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_of_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    lines = ["Name;Since;Price", *(f'"Ship; {number}";2020-01-0{number};1.5' for number in range(1, 7))]
    text = "\r\n".join(lines).replace(";", delimiter)
    path = samples.text(tmp_path / "a", text)
    for name in ("a.csv", "a.tsv", "a.txt", "a"):
        parsed = parse_file(path, name)
        assert parsed.media_type == "text/csv"
        assert parsed.text.split("\n")[:2] == [
            "Name | Since | Price",
            " ".join(f"Ship{delimiter} 1 | 2020-01-01 | 1.5".split()),
        ]
        heading, context, _ = shown(parsed, 100)[-1]
        assert (heading or "").endswith("-7") and context == "Name | Since | Price"


def test_prose_with_commas_is_no_csv(tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a.txt", "He came, of course.\nShe left, too.\n" * 10)
    assert parse_file(path, "a.txt").media_type == "text/plain"


def test_a_quote_that_never_ends_costs_its_quotes_only(tmp_path: Path) -> None:
    rows = "".join(f"Ship {number},{number}\n" for number in range(100_000))
    parsed = parse_file(samples.text(tmp_path / "a.csv", f'Name,Price\n"Anna,7\n{rows}'), "a.csv")
    assert parsed.text.startswith('Name | Price\n"Anna | 7\nShip 0 | 0\n') and parsed.text.count("\n") == 100_001


def test_a_table_behind_an_empty_row(tmp_path: Path) -> None:
    text = "A,B\nx,1\n\ny,2\n\nC,D,E\nz,3,4\n"
    parsed = parse_file(samples.text(tmp_path / "a.csv", text), "a.csv")
    assert parsed.text == "A | B\nx | 1\n\ny | 2\n\nC | D | E\nz | 3 | 4"
    assert [(context.text, context.row) for context in parsed.contexts] == [
        ("", 1),
        ("A | B", 2),
        ("A | B", 4),
        ("", 6),
        ("C | D | E", 7),
    ]


def test_a_header_of_a_thousand_columns_is_cut(tmp_path: Path) -> None:
    header = ",".join(f"column{letter}" for letter in "abcdefghij" * 100)
    row = ",".join("1" for _ in range(1000))
    parsed = parse_file(samples.text(tmp_path / "a.csv", f"{header}\n{row}\n{row}\n"), "a.csv")
    assert len(parsed.contexts[-1].text) == MAX_CONTEXT


CELLS = st.lists(st.sampled_from(["", "a", "Some words. More of them.", "7", "x" * 50, "|", " \n "]), max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("text"), st.text(alphabet="ab .\n", max_size=40)),
            st.tuples(st.just("heading"), st.sampled_from(["H", "Long heading"])),
            st.tuples(st.just("row"), CELLS),
            st.tuples(st.just("numbered"), CELLS),
        ),
        max_size=30,
    ),
    st.integers(1, 80),
)
def test_no_row_is_cut_and_nothing_is_lost(parts: list[tuple[str, object]], size: int) -> None:
    out = TextBuilder()
    rows: dict[int, str] = {}
    for number, (kind, part) in enumerate(parts, 1):
        if kind == "text":
            out.add(str(part))
        elif kind == "heading":
            out.heading(str(part), 1)
        else:
            assert isinstance(part, list)
            out.row(part, "Header", number if kind == "numbered" else None)
            if kind == "numbered" and row_text(part):
                rows[number] = row_text(part)
    parsed = out.build("text/plain", None)
    text, chunks = parsed.text, chunk(parsed, size)
    assert all(before.end <= after.start for before, after in pairwise(chunks))
    assert "".join("".join(text[each.start : each.end].split()) for each in chunks) == "".join(text.split())
    borders = {place for each in chunks for place in (each.start, each.end)}
    for context in parsed.contexts:
        at = context.start
        for line in text[context.start : context.end].split("\n"):
            inside = {at + len(line) - len(line.lstrip()), at + len(line.rstrip())}
            cut = [border for border in borders if min(inside) < border < max(inside)]
            assert not cut or len(line.strip()) > size
            at += len(line) + 1
    numbers = [number for context in parsed.contexts if context.row for number in _numbers(context, text)]
    assert numbers == list(rows)
    for each in chunks:
        inside_ = parsed.context_at(each.start)
        assert each.context == (inside_.text if inside_ else None)
        label = re.search(r"rows? (\d+)", each.heading or "")
        if label:
            first = next(c for c in parsed.contexts if c.end > each.start)
            assert text[max(each.start, first.start) : each.end].split("\n")[0] in rows[int(label[1])]


def _numbers(context: Context, text: str) -> range:
    assert context.row
    return range(context.row, context.row + text.count("\n", context.start, context.end) + 1)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab .\n|", max_size=120), st.lists(st.integers(0, 120), max_size=6), st.integers(1, 50))
def test_any_contexts_lose_nothing(text: str, places: list[int], size: int) -> None:
    starts = sorted({min(place, len(text)) for place in places})
    contexts = [Context(a, b, "H") for a, b in pairwise(starts)][::2]
    parsed = ParsedDocument(text, "t", headings=[Heading(at, 1, "X") for at in starts[:1]], contexts=contexts)
    chunks = chunk(parsed, size)
    assert all(before.end <= after.start for before, after in pairwise(chunks))
    assert "".join("".join(text[each.start : each.end].split()) for each in chunks) == "".join(text.split())


def test_what_was_stored_before_there_were_contexts_is_read() -> None:
    stored = {"text": "a", "media_type": "text/plain", "title": None, "pages": [], "headings": []}
    assert msgspec.convert(stored, ParsedDocument).contexts == []
