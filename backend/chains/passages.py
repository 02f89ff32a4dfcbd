"""What retrieval hands to a model: passages of documents."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Similarity = Callable[[str, Sequence[str]], Awaitable[list[float]]]
"""Of a text and others: how close each is in meaning, as a cosine (-1 to 1)."""


@dataclass(frozen=True, slots=True)
class Passage:
    """`text` is `[start:end]` of the document's canonical text (code points).

    `score` (0 to 1) orders the passages of one search; `relevance` (0 to 1.5) holds from search to search. `context` is
    what belongs to the text without standing in it, like the header of a table.
    """

    chunk_id: str
    document_id: str
    version: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    score: float
    relevance: float = 1.5
    context: str | None = None


RELEVANCE_OF_WORDS = 0.5
"""What the share of a question's words adds to the relevance of a passage that has them all."""


class Retriever(Protocol):
    """Finds passages in the documents that this conversation may see."""

    async def has_documents(self) -> bool:
        """Whether anything searchable is there at all."""
        ...

    async def retrieve(self, queries: Sequence[tuple[str, float]]) -> list[Passage]:
        """The passages relevant to the queries (text, weight), the question itself first; best first, maybe none."""
        ...

    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """How similar each of `others` is to `text` in meaning: cosines, in the same order."""
        ...

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page on which that offset of the canonical text stands."""
        ...
