"""The whole answer as one JSON object when the run has ended, for `Accept: application/json`."""

from typing import Annotated, Literal

import msgspec
from fastapi import Response
from msgspec import UNSET, Meta, UnsetType

from backend import events as ev
from backend.errors import (
    BudgetExceeded,
    EmbeddingFailed,
    EmbeddingMismatch,
    PriceUnknown,
    RunError,
    StorageFull,
    Unavailable,
)
from backend.messages import BETWEEN_PARTS, CitationRef, ReasoningPart, TextPart, marked_text, text_of
from backend.routers.edge.problems import problem
from backend.services.runs.fold import RunFold

_ENDS = (*RunError.__subclasses__(), BudgetExceeded, PriceUnknown, EmbeddingFailed, EmbeddingMismatch, StorageFull)
STATUS_BY_CODE = {**{cls.code: cls.status for cls in _ENDS}, "storage_busy": Unavailable.status}
"""The HTTP status of an answer whose run failed, by the code of its error."""


class Answer(msgspec.Struct, kw_only=True):
    """A finished run as one JSON object: the response for `Accept: application/json`. Positions are in Unicode code
    points; in JavaScript: `[...text].slice(start, end).join("")`.
    """

    run_id: str
    session_id: str
    message_id: str
    user_message_id: str
    model: str
    status: Literal["completed", "cancelled"]
    finish_reason: str | None
    text: Annotated[str, Meta(description="The text parts, joined by an empty line, without citation marks.")]
    marked_text: Annotated[str, Meta(description="`text` with ` [n]` after each sentence that has a citation.")]
    parts: Annotated[
        list[TextPart | ReasoningPart],
        Meta(description="The parts as the stream sends them. Positions of their citations are in the part's text."),
    ]
    citations: Annotated[list[CitationRef], Meta(description="All citations; their positions are in `text`.")]
    citation_counts: ev.CitationCounts | UnsetType = UNSET
    unlinked: (
        Annotated[int, Meta(description="Number of links and images that were replaced by plain text.")] | UnsetType
    ) = UNSET
    sources: list[ev.Source]
    usage: ev.TokenUsage


class JsonAnswer:
    """Renders the result of a run. It has no encoder, because nothing is sent before the run ends."""

    def render(self, run_id: str, fold: RunFold, headers: dict[str, str], request_id: str | None) -> Response:
        """The answer, or the problem that ended the run."""
        started, terminal = fold.started, fold.terminal
        if isinstance(terminal, ev.RunFailed):
            error = terminal.error
            if error.retry_after is not None:
                headers["Retry-After"] = str(error.retry_after)
            # A problem's own `detail` is our message.
            extra = {"provider_detail": error.detail} if error.detail is not None else {}
            return problem(
                STATUS_BY_CODE.get(error.code, 502),
                error.code,
                error.message,
                retryable=error.retryable,
                request_id=request_id,
                headers=headers,
                run_id=run_id,
                session_id=started.session_id if started is not None else None,
                text=fold.text(),
                **extra,
            )
        body = msgspec.json.encode(_answer(run_id, fold))
        return Response(body, headers=headers, media_type="application/json")


def _answer(run_id: str, fold: RunFold) -> Answer:
    started, terminal = fold.started, fold.terminal
    assert started is not None
    parts = [part for part in fold.message_parts() if isinstance(part, TextPart | ReasoningPart)]
    return Answer(
        run_id=run_id,
        session_id=started.session_id,
        message_id=started.message_id,
        user_message_id=started.user_message_id,
        model=fold.model or started.model,
        status="cancelled" if isinstance(terminal, ev.RunCancelled) else "completed",
        finish_reason=terminal.finish_reason if isinstance(terminal, ev.RunCompleted) else None,
        text=text_of(parts),
        marked_text=marked_text(parts),
        parts=parts,
        citations=_citations([part for part in parts if isinstance(part, TextPart)]),
        citation_counts=fold.citation_counts() or UNSET,
        unlinked=fold.unlinked() or UNSET,
        sources=fold.sources,
        usage=fold.total(),
    )


def _citations(parts: list[TextPart]) -> list[CitationRef]:
    """The citations of all parts, with their positions in the joined text."""
    citations: list[CitationRef] = []
    begin = 0
    for part in parts:
        citations += [msgspec.structs.replace(c, start=begin + c.start, end=begin + c.end) for c in part.citations]
        begin += len(part.text) + len(BETWEEN_PARTS)
    return citations


ANSWER = JsonAnswer()
