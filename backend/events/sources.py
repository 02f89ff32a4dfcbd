"""Passages that an answer may cite, and the position of a quote in a document."""

from typing import Annotated

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

    `name` is the name of the document. `title` is its older name, which clients of earlier versions read; answers that
    were stored by those have `title` alone.
    """

    source_id: str
    n: int
    title: Annotated[str, msgspec.Meta(description="The same as `name`.", extra_json_schema={"deprecated": True})]
    name: str = ""
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
