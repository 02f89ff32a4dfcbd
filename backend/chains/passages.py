"""What retrieval returns to answers and models: passages of documents. Everything in `chains` may use it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Similarity = Callable[[str, Sequence[str]], Awaitable[list[float]]]
"""Compares the meaning of a text with each of the others: cosines, -1 to 1."""

RELEVANCE_OF_WORDS = 0.5
"""How much relevance a passage has for its words: this, times the weighted share of the question's words in it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text` is `[start:end]` of the canonical text, in code points.

    `document_name` is the file name; events and the API call it `title` (`events.Source.title`) and `filename`.
    `score` (0 to 1) sorts the passages of one search; `relevance` (0 to 1.5) is comparable between searches. `context`
    belongs to the text but is not part of it: the header of a table.
    """

    chunk_id: str
    document_id: str
    version: str
    document_name: str
    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    score: float
    relevance: float = 1.5
    context: str | None = None


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """How passages were found, as JSON text. It is stored with the answer; no model and no client is sent it."""

    json: str


class Retriever(Protocol):
    """Finds passages in the documents that one request may see."""

    async def has_documents(self) -> bool:
        """Whether there is a searchable document at all."""
        ...

    async def document_names(self) -> list[str]:
        """The names of the searchable documents, newest first, a few dozen at most."""
        ...

    async def retrieve(self, queries: Sequence[tuple[str, float]]) -> tuple[list[Passage], SearchTrace | None]:
        """The relevant passages for the queries (text, weight), best first, and how they were found, if the retriever
        can tell. The first query is the question itself."""
        ...

    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """How similar each of `others` is to `text` in meaning: cosines, in the same order."""
        ...

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page that contains this offset of the canonical text; None if the document has no pages."""
        ...
