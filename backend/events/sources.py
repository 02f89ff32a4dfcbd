"""Passages that an answer may cite, and the position of a quote in a document."""

import msgspec

from backend.events.base import Event


class Place(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The position of a quote: `[start:end]` of the canonical text of that version of the document."""

    document_id: str
    version: str
    page: int | None = None
    start: int
    end: int


class Source(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A passage that the answer may cite. `n` is its number in the answer's `[n]` marks, from 1; `score` is 0 to 1.

    `title` is the name of the document, `Passage.document_name` in code: clients depend on the older word.
    """

    source_id: str
    n: int
    title: str
    document_id: str
    version: str
    chunk_id: str
    page: int | None = None
    heading: str | None = None
    score: float
    snippet: str


class Sources(Event, tag="sources", kw_only=True):
    """The passages that the model is given. This event comes before all citations."""

    items: list[Source]
