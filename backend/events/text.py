"""The answer's text and reasoning, and its citations."""

from typing import Literal

import msgspec

from backend.events.base import Event
from backend.events.sources import Place


class ReasoningStart(Event, tag="reasoning.start", kw_only=True):
    """A part with the model's reasoning begins."""

    part_id: str


class ReasoningDelta(Event, tag="reasoning.delta", kw_only=True):
    """More of the reasoning."""

    part_id: str
    text: str


class ReasoningEnd(Event, tag="reasoning.end", kw_only=True):
    """The reasoning part is complete. `unlinked` is as in `text.end`."""

    part_id: str
    unlinked: int = 0


class TextStart(Event, tag="text.start", kw_only=True):
    """A part of the answer's text begins."""

    part_id: str


class TextDelta(Event, tag="text.delta", kw_only=True):
    """More text of the part, without citation marks."""

    part_id: str
    text: str


class TextEnd(Event, tag="text.end", kw_only=True):
    """The text part is complete. `dropped`: number of citation marks that were removed. `unlinked`: number of links
    and images that were replaced by plain text, because neither the passages nor the user's messages contain their
    URLs. `thought`: the part turned out to be the model's reasoning, and is none of the answer; its citations don't
    count.
    """

    part_id: str
    dropped: int = 0
    unlinked: int = 0
    thought: bool = False


class Citation(Event, tag="citation", kw_only=True):
    """A sentence of the part, `[start:end]`, and the exact `quote` from the document that supports it. `n` is the
    source's number.

    `matched`: the model wrote no marks, and the server found the source after the part was complete.
    """

    part_id: str
    source_id: str
    n: int
    start: int
    end: int
    quote: str
    document: Place
    matched: bool = False


class CitationCounts(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Numbers of citations of a run. `given`: the model named the source; `matched`: the model wrote no marks and
    the server found the source; `dropped`: marks that were removed, because the source doesn't support the sentence
    or doesn't exist.
    """

    given: int = 0
    matched: int = 0
    dropped: int = 0


class Part(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A part of a message. Only snapshots contain parts that are not complete. `dropped` and `unlinked` are as in
    `text.end`.
    """

    kind: Literal["text", "reasoning"]
    part_id: str
    text: str
    open: bool = False
    dropped: int = 0
    unlinked: int = 0
