"""The whole answer as one JSON object when the run has ended, for `Accept: application/json`."""

from typing import Any

import msgspec
from fastapi import Response
from fastapi.responses import JSONResponse

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
from backend.messages import TextPart, marked_text
from backend.routers.edge.problems import problem
from backend.services.runs.fold import RunFold

_ENDS = (*RunError.__subclasses__(), BudgetExceeded, PriceUnknown, EmbeddingFailed, EmbeddingMismatch, StorageFull)
STATUS_BY_CODE = {**{cls.code: cls.status for cls in _ENDS}, "storage_busy": Unavailable.status}
"""The HTTP status of an answer whose run failed, by the code of its error."""


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
        return JSONResponse(_body(run_id, fold), headers=headers)


def _body(run_id: str, fold: RunFold) -> dict[str, Any]:
    started, terminal, parts = fold.started, fold.terminal, fold.message_parts()
    assert started is not None
    body: dict[str, Any] = {
        "run_id": run_id,
        "session_id": started.session_id,
        "message_id": started.message_id,
        "user_message_id": started.user_message_id,
        "model": fold.model or started.model,
        "status": "cancelled" if isinstance(terminal, ev.RunCancelled) else "completed",
        "finish_reason": terminal.finish_reason if isinstance(terminal, ev.RunCompleted) else None,
        "text": marked_text(parts),
        "citations": msgspec.to_builtins([c for p in parts if isinstance(p, TextPart) for c in p.citations]),
        "sources": msgspec.to_builtins(fold.sources),
        "usage": msgspec.to_builtins(fold.total()),
    }
    if (counts := fold.citation_counts()) is not None:
        body["citation_counts"] = msgspec.to_builtins(counts)
    if unlinked := fold.unlinked():
        body["unlinked"] = unlinked
    return body


ANSWER = JsonAnswer()
