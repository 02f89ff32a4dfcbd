"""Folds a run's events into its state: the message, the snapshot, the totals.

The fold is used by live runs (to store their ends), by recovery (after a crash) and by the JSON dialect.
"""

from dataclasses import dataclass, field
from typing import Literal

from backend import events as ev
from backend.kit.numbers import bounded
from backend.messages import (
    BETWEEN_PARTS,
    CitationRef,
    MessagePart,
    MessageStatus,
    ReasoningPart,
    SourcesPart,
    TextPart,
)


@dataclass(slots=True, eq=False)
class RunFold:
    """The state that results from a run's events. Every event must be applied, in order."""

    started: ev.RunStarted | ev.Snapshot | None = None
    sources: list[ev.Source] = field(default_factory=list[ev.Source])
    citations: list[ev.Citation] = field(default_factory=list[ev.Citation])
    usage: list[ev.Usage] = field(default_factory=list[ev.Usage])
    terminal: ev.Terminal | None = None
    model: str | None = None
    """The model that took over, if one did."""
    has_text_part: bool = False
    """Whether a part of the answer's text has begun, even if it turned out to be reasoning."""
    retrieval: str | None = None
    """How the passages were found, JSON text. It is stored with the answer, and is no part of the stream."""
    _parts: "list[_OpenPart]" = field(default_factory=list["_OpenPart"], init=False)
    _counted_parts: int = field(default=0, init=False)
    """How many parts a usage event has counted."""

    def apply(self, event: ev.AnyEvent) -> None:
        """Add one event to the state."""
        match event:
            case ev.TextDelta() | ev.ReasoningDelta():
                self._parts[-1].pieces.append(event.text)
            case ev.TextStart():
                self.has_text_part = True
                self._parts.append(_OpenPart("text", event.part_id))
            case ev.ReasoningStart():
                self._parts.append(_OpenPart("reasoning", event.part_id))
            case ev.TextEnd():
                self._parts[-1].open = False
                self._parts[-1].dropped = event.dropped
                self._parts[-1].unlinked = event.unlinked
                if event.thought:
                    self._parts[-1].kind = "reasoning"
                    self.citations = [c for c in self.citations if c.part_id != event.part_id]
            case ev.ReasoningEnd():
                self._parts[-1].open = False
                self._parts[-1].unlinked = event.unlinked
            case ev.Citation():
                self.citations.append(event)
            case ev.Sources():
                self.sources.extend(event.items)
            case ev.Usage():
                self.usage.append(event)
                if event.purpose == "answer":
                    self._counted_parts = len(self._parts)
            case ev.ModelSwitched():
                self.model = event.now
            case ev.RunStarted():
                self.started = event
            case ev.Snapshot():
                self._restore(event)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled() | ev.RunInterrupted():
                self.terminal = event
            case ev.Status():
                pass

    def apply_line(self, line: bytes) -> bool:
        """Add one stored event. False: its line is damaged, so that it was left out."""
        try:
            self.apply(ev.decode(line))
        except (ValueError, IndexError):
            # IndexError: a delta whose part never began, because that event was damaged.
            return False
        return True

    def _restore(self, snapshot: ev.Snapshot) -> None:
        self.started = snapshot
        self.model = snapshot.model
        self.sources, self.citations, self.usage = snapshot.sources, snapshot.citations, snapshot.usage
        self._parts = [_OpenPart(p.kind, p.part_id, [p.text], p.open, p.dropped, p.unlinked) for p in snapshot.parts]
        self._counted_parts = len(self._parts)
        self.has_text_part = any(p.kind == "text" for p in self._parts)

    @property
    def has_text(self) -> bool:
        """Whether any part has text."""
        return any(p.pieces for p in self._parts)

    def closing_events(self) -> list[ev.AnyEvent]:
        """The event that ends the open part, so that every start has an end; empty if no part is open."""
        if not self._parts or not self._parts[-1].open:
            return []
        part = self._parts[-1]
        return [ev.TextEnd(part_id=part.id) if part.kind == "text" else ev.ReasoningEnd(part_id=part.id)]

    def text(self) -> str:
        """The text parts of the answer so far."""
        return BETWEEN_PARTS.join(p.text for p in self._parts if p.kind == "text")

    def open_text(self) -> str:
        """The text of the open part; empty if no part of the answer's text is open."""
        part = self._parts[-1] if self._parts else None
        return part.text if part is not None and part.open and part.kind == "text" else ""

    def uncounted_text(self) -> str:
        """The text that a model wrote after the last usage event for answers."""
        return "".join(p.text for p in self._parts[self._counted_parts :])

    def total(self) -> ev.TokenUsage:
        """The sum of all calls. A field is None if no call has it; the cost is None if any call's cost is unknown."""
        total = ev.TokenUsage()
        for use in self.usage:
            total.input_tokens = bounded(total.input_tokens + use.input_tokens)
            total.output_tokens = bounded(total.output_tokens + use.output_tokens)
            total.estimated |= use.estimated
            total.prompt_cut |= use.prompt_cut
            for name in ("reasoning_tokens", "cached_tokens"):
                if (value := getattr(use, name)) is not None:
                    setattr(total, name, bounded((getattr(total, name) or 0) + value))
        if self.usage and all(u.cost is not None for u in self.usage):
            total.cost = bounded(sum(u.cost or 0 for u in self.usage))
        return total

    def citation_counts(self) -> ev.CitationCounts | None:
        """How many citations were given, matched and dropped; None if there were none at all."""
        matched = sum(c.matched for c in self.citations)
        dropped = sum(p.dropped for p in self._parts)
        if not self.citations and not dropped:
            return None
        return ev.CitationCounts(given=len(self.citations) - matched, matched=matched, dropped=dropped)

    def unlinked(self) -> int:
        """How many links and images of the answer were replaced by plain text."""
        return sum(p.unlinked for p in self._parts)

    def message_parts(self) -> list[MessagePart]:
        """The answer as it is stored."""
        parts: list[MessagePart] = []
        if self.sources:
            parts.append(SourcesPart(items=self.sources))
        for part in self._parts:
            if part.kind == "reasoning":
                parts.append(ReasoningPart(text=part.text, part_id=part.id, unlinked=part.unlinked))
                continue
            citations = [_citation_ref(c) for c in self.citations if c.part_id == part.id]
            parts.append(
                TextPart(
                    text=part.text,
                    part_id=part.id,
                    citations=citations,
                    dropped=part.dropped,
                    unlinked=part.unlinked,
                )
            )
        return parts

    def message_status(self, terminal: ev.Terminal) -> MessageStatus:
        """The status of the answer's message if the run ends with `terminal`."""
        match terminal:
            case ev.RunCompleted() | ev.RunInterrupted():
                return "complete"
            case ev.RunCancelled():
                return "cancelled"
            case ev.RunFailed():
                return "partial" if self.has_text else "failed"

    def snapshot(self, run: ev.RunStarted) -> ev.Snapshot:
        """The run so far, for clients that can't be sent its events."""
        return ev.Snapshot(
            run_id=run.run_id,
            session_id=run.session_id,
            user_message_id=run.user_message_id,
            message_id=run.message_id,
            model=self.model or run.model,
            v=run.v,
            parts=[
                ev.Part(kind=p.kind, part_id=p.id, text=p.text, open=p.open, dropped=p.dropped, unlinked=p.unlinked)
                for p in self._parts
            ],
            sources=self.sources,
            citations=self.citations,
            usage=self.usage,
        )


class _OpenPart:
    __slots__ = ("dropped", "id", "kind", "open", "pieces", "unlinked")

    def __init__(
        self,
        kind: Literal["text", "reasoning"],
        id: str,
        pieces: list[str] | None = None,
        open: bool = True,
        dropped: int = 0,
        unlinked: int = 0,
    ) -> None:
        self.kind: Literal["text", "reasoning"] = kind
        self.id = id
        self.pieces = pieces or []
        self.open = open
        self.dropped = dropped
        self.unlinked = unlinked

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def _citation_ref(citation: ev.Citation) -> CitationRef:
    return CitationRef(
        source_id=citation.source_id,
        n=citation.n,
        start=citation.start,
        end=citation.end,
        quote=citation.quote,
        document=citation.document,
        matched=citation.matched,
    )
