"""What counts as support: words, numbers, negations, and meaning as the embedded model sees it."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from backend.chains.answer.evidence import Evidence
from backend.chains.passages import Passage, Similarity
from backend.chains.retrieval.embeddings import EmbeddingSettings, open_embedder
from backend.errors import EmbeddingFailed

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the embedded model is loaded once

NOTICE = "Either party may terminate with a notice period of 45 days. Invoices are due within 30 days of receipt."
REFUND = "Customers can return goods within 14 days. After 14 days no refund is available."
BRIDGE = "Construction began in 1923. The bridge was opened on 19 March 1932 by the premier."


def passage(text: str, start: int = 100) -> Passage:
    return Passage("c", "d", "v", "contract.md", text, start, start + len(text), None, None, 1.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def similarity() -> AsyncIterator[Similarity]:
    cache = Path(tempfile.gettempdir()) / "streamforge-tests-cache"
    embedder = open_embedder("minilm/all-MiniLM-L6-v2", EmbeddingSettings(cache_dir=cache))

    async def similar(text: str, texts: Sequence[str]) -> list[float]:
        vectors = await embedder.embed_passages([text, *texts])
        return [float(x) for x in vectors[1:] @ vectors[0]]

    yield similar
    await embedder.aclose()


async def unlike(_: str, texts: Sequence[str]) -> list[float]:
    return [0.0] * len(texts)


async def alike(_: str, texts: Sequence[str]) -> list[float]:
    return [1.0] * len(texts)


async def broken(_: str, texts: Sequence[str]) -> list[float]:
    raise EmbeddingFailed("no")


async def quoted(sentence: str, text: str, similarity: Similarity) -> str | None:
    offsets = await Evidence([passage(text)], similarity).quote(sentence, 1)
    return None if offsets is None else text[offsets[0] - 100 : offsets[1] - 100]


SUPPORTED = [
    ("You must give 45 days' notice before ending the contract.", NOTICE),
    ("Invoices have to be paid within thirty days.", NOTICE),
    ("Refunds aren't available once 14 days have passed.", REFUND),
    ("The bridge opened in 1932.", BRIDGE),
    ("Revenue was $1,200 million.", "In 2023 the revenue of the company was 1200 million dollars."),
    ("1. The term is 2 years.", "The term of this contract is two years."),
    ("- **Warranty:** two years from delivery", "The warranty covers defects for 2 years from the date of delivery."),
    ("Dogs are not allowed in the building.", "Pets: No dogs are allowed in the building. Cats are fine."),
    ("Die Kündigungsfrist beträgt 45 Tage.", "Die Kündigungsfrist beträgt für beide 45 Tage zum Monatsende."),
    ("Return within 14 days, and invoices in 30.", "Return goods in 14 days. Pay the invoices in 30 days."),
]
NOT_SUPPORTED = [
    ("The notice period is 90 days.", NOTICE),
    ("The notice period is 30 days.", NOTICE),
    ("The notice period is 45 days and 12 hours.", NOTICE),
    ("Refunds are available after 14 days.", REFUND),
    ("The bridge opened in 1923.", BRIDGE),
    ("Dogs are allowed in the building.", "Pets: No dogs are allowed in the building. Cats are fine."),
    ("Cats are not fine.", "Pets: No dogs are allowed in the building. Cats are fine."),
    ("The CEO resigned in 2021.", "The CEO was appointed in 2021. The CFO resigned in 2019."),
    ("The drug increases blood pressure.", "The drug decreases blood pressure."),
    ("Paris is the capital of France.", "France exports wine. Paris hosted the Olympic Games in 2024."),
    ("Cats sleep all day.", NOTICE),
    ("", NOTICE),
]


@pytest.mark.parametrize(("sentence", "text"), SUPPORTED)
async def test_a_mark_is_kept_where_the_passage_says_so(sentence: str, text: str, similarity: Similarity) -> None:
    assert await quoted(sentence, text, similarity)


@pytest.mark.parametrize(("sentence", "text"), NOT_SUPPORTED)
async def test_a_mark_is_dropped_where_it_does_not(sentence: str, text: str, similarity: Similarity) -> None:
    assert await quoted(sentence, text, similarity) is None


async def test_the_quote_is_the_sentence_that_says_it_in_canonical_offsets() -> None:
    assert await quoted("The notice period is 45 days.", NOTICE, alike) == NOTICE[:59]
    assert await quoted("An invoice is due within 30 days.", NOTICE, unlike) == NOTICE[60:]


async def test_numbers_that_stand_in_two_sentences_are_quoted_from_both() -> None:
    text = "Return goods in 14 days. Pay invoices in 30 days. Write to us."
    assert await quoted("Return in 14 days, pay invoices in 30.", text, unlike) == text[:49]


@pytest.mark.parametrize("sentence", ["The notice period is 90 days.", "Either party may not terminate."])
async def test_no_likeness_outweighs_a_wrong_number_or_a_denial(sentence: str) -> None:
    assert await quoted(sentence, NOTICE[:59], alike) is None


async def test_with_a_broken_embedder_words_alone_decide() -> None:
    assert await quoted("An invoice is due within 30 days.", NOTICE, broken) == NOTICE[60:]
    assert await quoted("Bills must be settled in a month.", NOTICE, broken) is None
    assert await Evidence([passage(NOTICE)], broken).match(NOTICE) == []


ANSWER = """Sure, happy to help!

# Notice period of 45 days

The notice period for either party is 45 days. Are invoices due within 30 days? Here is what they say:

- The bridge was opened in March 1932.
- The bridge opened in 1923.

```
Invoices are due within 30 days of receipt.
```

I hope that helps. Invoices are due within 30 days.
"""


async def test_a_text_without_marks_is_matched_where_there_is_no_doubt(similarity: Similarity) -> None:
    passages = [passage("We are happy to help you at any time. I hope it helps."), passage(NOTICE), passage(BRIDGE, 7)]
    matches = await Evidence(passages, similarity).match(ANSWER)
    sentences = [(m.n, ANSWER[m.start : m.end]) for m in matches]
    assert sentences == [
        (2, "The notice period for either party is 45 days."),
        (3, "- The bridge was opened in March 1932."),
        (2, "Invoices are due within 30 days."),
    ]
    assert [m.quote for m in matches] == [(100, 159), (35, 89), (160, 203)]


async def test_all_sources_of_a_text_are_compared_together_first() -> None:
    """So that an embedder reads each of them once, and a remote one in a single call."""
    compared: list[Sequence[str]] = []

    async def noting(_: str, texts: Sequence[str]) -> list[float]:
        compared.append(texts)
        return [0.0] * len(texts)

    text = "The ferry leaves at nine from the north pier. The kiosk sells tickets until noon."
    await Evidence([passage(text)], noting).match(text)
    assert len(compared) == 3
    assert {source for texts in compared[1:] for source in texts} == set(compared[0])


async def test_matching_a_long_text_has_a_bound() -> None:
    calls = 0

    async def counting(_: str, texts: Sequence[str]) -> list[float]:
        nonlocal calls
        calls += 1
        return [1.0] * len(texts)

    matches = await Evidence([passage(NOTICE)], counting).match("Invoices are due within 30 days of receipt. " * 5_000)
    assert (len(matches), calls) == (24, 25)
