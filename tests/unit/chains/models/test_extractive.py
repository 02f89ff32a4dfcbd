"""The model that quotes: what it picks from the passages it is given, and when it says that they hold no answer."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chains.models.extractive import PLUGIN
from backend.chains.models.prompt import Finish, Parameters, Prompt, Quote, Text, Tokens
from backend.chains.models.provider import Endpoint
from backend.chains.passages import Passage, Similarity
from backend.chains.retrieval.embeddings import Embedder, EmbeddingSettings, open_embedder
from backend.config.groups.models import ModelSettings

BRIDGE = (
    "The bridge spans the river Lowe. It was designed by Ada Quist. "
    "Work on the piers took four years and cost two lives. "
    "The bridge was opened to traffic on 3 May 1934. "
    "Today 40,000 cars use it every day."
)
HANDBOOK = {
    "Leave > Holidays": "Staff are granted 26 days of paid holiday a year. Unused days expire at the end of March.",
    "Leave > Sickness": "Call your manager when you are ill. A note from the doctor is needed from day 3.",
    "Expenses > Travel": "Trains are booked in second class. Hotels may cost up to 140 euros a night.",
    "Office > Visitors": "Guests sign in at the reception. They wear a yellow badge while they are in the building.",
    "Office > Dogs": "Dogs may come along on Fridays. They stay on a lead in the corridors.",
}
ASKED = {
    "How many days of holiday do I get?": "26 days",
    "When do unused holidays expire?": "end of March",
    "From which day on is a note from the doctor needed?": "day 3",
    "How much may a hotel cost?": "140 euros",
    "What colour is the badge that guests wear?": "yellow",
    "On which day may I bring my dog?": "Fridays",
}
UNANSWERED = (
    "What is the boiling point of ethanol?",
    "Who painted the Mona Lisa?",
    "How do I reset the admin password of the database?",
    "Which team won the championship in 1998?",
)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    cache: Path = tmp_path_factory.mktemp("embeddings")
    return open_embedder("minilm/all-MiniLM-L6-v2", EmbeddingSettings(cache_dir=cache))


@pytest.fixture
def similarity(embedder: Embedder) -> Similarity:
    async def similarity(text: str, texts: Sequence[str]) -> list[float]:
        question = await embedder.embed_query(text)
        return [float(x) for x in await embedder.embed_passages(texts) @ question]

    return similarity


def passage(
    text: str, *, start: int = 0, heading: str | None = None, document: str = "doc_1", relevance: float = 1.0
) -> Passage:
    return Passage(
        chunk_id=f"chk_{start}",
        document_id=document,
        version="ver_1",
        document_name="notes.md",
        text=text,
        start=start,
        end=start + len(text),
        page=None,
        heading=heading,
        score=0.7,
        relevance=relevance,
    )


def prompt(question: str, passages: Sequence[Passage], similarity: Similarity) -> Prompt:
    return Prompt(
        system="",
        history=(),
        content=question,
        question=question,
        parameters=Parameters(max_tokens=100),
        grounding="passages",
        passages=tuple(passages),
        similarity=similarity,
    )


async def answer(question: str, passages: Sequence[Passage], similarity: Similarity) -> tuple[list[Quote], str]:
    """The quotes and the whole text, with their offsets and the end of the stream checked."""
    endpoint = Endpoint("extractive", PLUGIN.kinds[0])
    model = PLUGIN.create(endpoint, ModelSettings.model_validate({})).open("quotes")
    outputs = [output async for output in model.stream(prompt(question, passages, similarity))]
    assert outputs[-2:] == [Tokens(input=0, output=0), Finish("stop")]
    quotes = [output for output in outputs if isinstance(output, Quote)]
    for quote in quotes:
        source = passages[quote.n - 1]
        assert quote.text == source.text[quote.start - source.start : quote.end - source.start]
    return quotes, "".join(output.text for output in outputs if isinstance(output, Quote | Text))


def handbook(relevance: float) -> list[Passage]:
    return [
        passage(text, start=100 * n, heading=heading, relevance=relevance)
        for n, (heading, text) in enumerate(HANDBOOK.items())
    ]


@pytest.mark.parametrize(("question", "expected"), ASKED.items())
async def test_a_quote_holds_the_answer(question: str, expected: str, similarity: Similarity) -> None:
    quotes, text = await answer(question, handbook(0.8), similarity)
    assert 1 <= len(quotes) <= 2
    assert expected in text


@pytest.mark.parametrize("question", UNANSWERED)
async def test_nothing_is_quoted_for_what_the_passages_do_not_answer(question: str, similarity: Similarity) -> None:
    # As relevant as retrieval's floor lets through.
    quotes, text = await answer(question, handbook(0.45), similarity)
    assert quotes == []
    assert "hold no answer" in text


async def test_passage_and_sentence_vouch_together(similarity: Similarity) -> None:
    ask = partial(answer, "Is the bridge used by many cars?", similarity=similarity)
    weak = "Today 40,000 vehicles cross the river Lowe on it every day."
    assert (await ask([passage(weak, relevance=1.2)]))[0]
    assert not (await ask([passage(weak, relevance=0.0)]))[0]


async def test_a_second_quote_brings_what_the_first_one_lacks(similarity: Similarity) -> None:
    quotes, text = await answer("Who designed the bridge and when was it opened?", [passage(BRIDGE)], similarity)
    assert len(quotes) == 2
    assert "Ada Quist" in text
    assert "1934" in text


async def test_quotes_from_one_passage_keep_its_order(similarity: Similarity) -> None:
    designed, opened = "Ada Quist designed the bridge.", "The bridge was opened to traffic on 3 May 1934."
    for text in (f"{designed} {opened}", f"{opened} {designed}"):
        quotes, output = await answer("Who designed the bridge and when was it opened?", [passage(text)], similarity)
        assert len(quotes) == 2
        assert output == text


async def test_the_same_sentence_of_two_documents_is_quoted_once(similarity: Similarity) -> None:
    sentence = "The bridge was opened to traffic on 3 May 1934."
    twice = [passage(sentence), passage(sentence, document="doc_2")]
    quotes, _ = await answer("When was the bridge opened?", twice, similarity)
    assert [q.text for q in quotes] == [sentence]


@pytest.mark.parametrize(
    "line",
    [
        "When was the old bridge opened?",
        "# When the old bridge was opened",
        "When the old bridge was opened",
        "Old bridge",
    ],
)
async def test_headings_and_questions_are_no_answers(line: str, similarity: Similarity) -> None:
    text = f"{line}\n\nTraffic first crossed the bridge on 3 May 1934."
    source = passage(text, heading="Bridges > When the old bridge was opened")
    quotes, _ = await answer("When was the old bridge opened?", [source], similarity)
    assert [q.text for q in quotes] == ["Traffic first crossed the bridge on 3 May 1934."]


async def test_a_short_sentence_may_be_the_answer(similarity: Similarity) -> None:
    quotes, _ = await answer(
        "What does a day ticket cost?", [passage("Ask at the desk for a map. It costs $5.")], similarity
    )
    assert "It costs $5." in [q.text for q in quotes]


async def test_a_heading_tells_what_its_sentences_are_about(similarity: Similarity) -> None:
    sentence = "It may be no more than 140 euros a night."
    sources = [passage(sentence, heading="Parking"), passage(sentence, heading="Hotels", document="doc_2")]
    quotes, _ = await answer("What do hotels cost a night?", sources, similarity)
    assert [q.n for q in quotes] == [2]


@pytest.mark.parametrize("lead", ["How do I back up my data?", "**Back up.**", "## Back up your data"])
async def test_the_question_or_label_in_front_tells_what_a_sentence_answers(lead: str, similarity: Similarity) -> None:
    step = "Stop the server and copy the folder."
    text = f"Where is the log?\n\nIt is in the folder of the server.\n\n{lead}\n\n{step}\n\nThen start it again."
    quotes, _ = await answer("How can I back up the data?", [passage(text)], similarity)
    assert step in [q.text for q in quotes]


async def test_what_is_compared_by_meaning_is_bounded(similarity: Similarity) -> None:
    compared: list[int] = []

    async def counted(text: str, texts: Sequence[str]) -> list[float]:
        compared.append(len(texts))
        return await similarity(text, texts)

    text = " ".join(f"Bridge number {n} was opened in the year {1900 + n}." for n in range(60))
    quotes, _ = await answer("When was bridge number 34 opened?", [passage(text)], counted)
    assert "Bridge number 34 was opened in the year 1934." in [q.text for q in quotes]
    assert compared == [8]


async def _no_meaning(text: str, texts: Sequence[str]) -> list[float]:
    return [0.0 for _ in texts]


@given(
    question=st.text(max_size=60),
    texts=st.lists(st.text(st.sampled_from("ab #.?!\n|>é語。 "), max_size=80) | st.text(max_size=80), max_size=4),
)
async def test_whatever_the_texts_are_the_quotes_stand_in_them(question: str, texts: list[str]) -> None:
    passages = [passage(text, start=50 * n, relevance=1.5) for n, text in enumerate(texts)]
    quotes, text = await answer(question, passages, _no_meaning)
    assert len(quotes) <= 2
    assert text
