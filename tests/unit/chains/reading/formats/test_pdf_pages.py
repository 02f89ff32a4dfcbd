"""The page that a passage is said to be on is the page where another reader finds it."""

import random
import re
from pathlib import Path

import pypdf
import pytest

from backend.chains.reading.formats import parse_file
from backend.chains.reading.parsed import ParsedDocument
from backend.chains.retrieval.chunking import chunk
from backend.chains.text.sentences import sentences
from tests.support import samples

pytestmark = pytest.mark.slow

PAGES = 300
WORDS = """harbour pilot ladder quay mooring lantern current sandbank freighter watch signal weather manoeuvre
responsibility navigation well-known starboard lighthouse officer crew""".split()


def prose(dice: random.Random, page: int) -> str:
    """Sentences that stand on one page only, since each has a number of its own."""
    paragraphs: list[str] = []
    for paragraph in range(4):
        numbers = range(page * 1000 + paragraph * 100, page * 1000 + paragraph * 100 + 5)
        words = (" ".join(dice.choices(WORDS, k=dice.randint(6, 25))).capitalize() for _ in numbers)
        paragraphs.append(" ".join(f"{line} on voyage {number}." for line, number in zip(words, numbers, strict=True)))
    return "\n\n".join(paragraphs)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dice = random.Random(5)
    path = tmp_path_factory.mktemp("book") / "book.pdf"
    # An empty text is a page with nothing but its heading.
    texts = [prose(dice, page) if page % 50 else "" for page in range(1, PAGES + 1)]
    return samples.pdf(path, texts, headings=[f"Chapter {page}" for page in range(1, PAGES + 1)])


@pytest.fixture(scope="module")
def parsed(book: Path) -> ParsedDocument:
    return parse_file(book, "book.pdf")


@pytest.fixture(scope="module")
def pages(book: Path) -> list[str]:
    return [folded(page.extract_text()) for page in pypdf.PdfReader(book).pages]


def folded(text: str) -> str:
    """Without white space and hyphens, which readers set as they like."""
    return re.sub(r"[\s\xad-]+", "", text)


def test_every_page_is_there(parsed: ParsedDocument) -> None:
    assert [page.page for page in parsed.pages] == list(range(1, PAGES + 1))


def test_sentences_are_on_the_page_that_the_map_names(parsed: ParsedDocument, pages: list[str]) -> None:
    spans = sentences(parsed.text)
    dice = random.Random(6)
    for start, end in dice.sample(spans, 500):
        quote, page = folded(parsed.text[start:end]), parsed.page_at(start)
        assert page is not None and quote in pages[page - 1], parsed.text[start:end]
        if "voyage" in parsed.text[start:end]:
            assert [number for number, text in enumerate(pages, 1) if quote in text] == [page]


def test_chunks_begin_on_their_page(parsed: ParsedDocument, pages: list[str]) -> None:
    for each in chunk(parsed, 500):
        assert each.page is not None
        first_line = parsed.text[each.start : each.end].split("\n")[0]
        assert folded(first_line) in pages[each.page - 1]
        assert (
            each.heading == f"Chapter {each.page + (each.page % 50 == 0 and each.page < PAGES)}"
        )  # nothing is under each fiftieth
