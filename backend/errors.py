"""All errors that a caller can see, as one tree.

    StreamForgeError                     code, status, retryable
    ├── RequestError                     answered before a stream begins, as problem+json
    │   ├── BadRequest 400 · Unauthorized 401 · BudgetExceeded 402 · PriceUnknown 402 · Forbidden 403
    │   ├── NotFound 404 · Conflict 409
    │   ├── TooLarge 413 · Misdirected 421 · Invalid 422 · TooManyRuns 429
    │   ├── UrlRefused 422 · UrlUnreachable 502 · UrlFailed 502 · UrlTimeout 504
    │   └── Unavailable 503 · StorageFull 507
    ├── RunError                         ends a run: `run.failed.error`
    ├── DocumentUnreadable               fails a document: `reason`, in words
    └── EmbeddingError                   fails a document or a retrieval

A message tells the caller what is wrong and what to do. It never contains a provider's raw text (that is `detail`), a
stack trace or a secret. `advice` is for whoever runs the server, for example which setting to change; callers see it
only while no keys are set. `code` never changes; docs/errors.md lists all codes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Self


class StreamForgeError(Exception):
    """Base of all errors that a caller may see.

    `code` is stable and documented. `status` is the HTTP status if the error ends a request. `retryable`: whether the
    same call may work later. `extra` has further members of the problem document (JSON values only).
    """

    code: str = "internal"
    status: ClassVar[int] = 500
    retryable: bool = False

    def __init__(self, message: str, *, code: str | None = None, advice: str = "", **extra: object) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        if code is not None:
            self.code = code
        self.extra = extra

    def text(self, *, with_advice: bool) -> str:
        """The message, followed by the advice if there is one and it may be shown."""
        return f"{self.message} {self.advice}" if self.advice and with_advice else self.message


class RequestError(StreamForgeError):
    """A request that was refused before anything was run or stored."""

    headers: Mapping[str, str] = MappingProxyType({})


class BadRequest(RequestError):
    """400: `bad_request`, `bad_json`, `bad_cursor`."""

    code = "bad_request"
    status = 400


class Unauthorized(RequestError):
    """401: the request has no key, or an unknown one."""

    code = "unauthorized"
    status = 401
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class BudgetExceeded(RequestError):
    """402: the request may cost more than what is left of the owner's budget.

    `needed` is what it may cost, in micro-dollars. `retry_after` is in seconds; None if waiting doesn't help.
    """

    code = "budget_exceeded"
    status = 402

    def __init__(self, message: str, *, retry_after: int | None, budget: object, needed: int) -> None:
        super().__init__(message, budget=budget, needed=needed)
        self.retry_after = retry_after
        self.retryable = retry_after is not None
        if retry_after is not None:
            self.headers = MappingProxyType({"Retry-After": str(retry_after)})


class PriceUnknown(RequestError):
    """402: the owner has a budget, and the price of the model is unknown."""

    code = "price_unknown"
    status = 402


class Forbidden(RequestError):
    """403: `foreign_origin` (another web page calls), `foreign_peer` (no keys are set, the caller is not local),
    `url_fetch_off`."""

    code = "forbidden"
    status = 403


class NotFound(RequestError):
    """404: the resource does not exist, or it belongs to another owner."""

    code = "not_found"
    status = 404


class Conflict(RequestError):
    """409: `session_busy`, `head_moved`, `too_many_branches`, `cursor_ahead`, `document_not_ready`, `document_busy`,
    `document_duplicate`, `collection_exists`, `embedding_running`."""

    code = "conflict"
    status = 409


class TooLarge(RequestError):
    """413: `too_large` (the body), `document_too_large`."""

    code = "too_large"
    status = 413

    @classmethod
    def document(cls, subject: str, max_bytes: int) -> Self:
        """The error `document_too_large`. `subject` is the file's name, or where the file comes from."""
        limit = max_bytes // 1_000_000
        text = f"{subject} is larger than {limit} MB. Upload it in parts."
        return cls(text, code="document_too_large", advice="MAX_UPLOAD_MB sets the limit.")


class Misdirected(RequestError):
    """421: a Host that is not this server's (DNS rebinding)."""

    code = "wrong_host"
    status = 421


class Invalid(RequestError):
    """422: a field is missing, unknown or out of range."""

    code = "invalid_request"
    status = 422


class TooManyRuns(RequestError):
    """429: MAX_RUNS runs are live."""

    code = "too_many_runs"
    status = 429
    retryable = True
    headers = MappingProxyType({"Retry-After": "1"})


class Unavailable(RequestError):
    """503: `not_ready`, `shutdown`, `storage_busy`."""

    code = "unavailable"
    status = 503
    retryable = True
    headers = MappingProxyType({"Retry-After": "5"})


class StorageFull(RequestError):
    """507: the disk under DATA_DIR is full."""

    code = "storage_full"
    status = 507

    @classmethod
    def on_server(cls) -> Self:
        """The error with its usual text."""
        text = "The server's disk is full; nothing was stored. Try again later."
        return cls(text, advice="Free some space on the disk of DATA_DIR.")


class UrlRefused(RequestError):
    """422: the server doesn't fetch this URL, because of its form or because its address isn't public."""

    code = "url_refused"
    status = 422


class UrlUnreachable(RequestError):
    """502: there was no connection to the host of a URL, or the connection broke."""

    code = "url_unreachable"
    status = 502
    retryable = True


class UrlFailed(RequestError):
    """502: the other server answered, but not with a page or a file. `upstream_status` is its HTTP status."""

    code = "url_http_error"
    status = 502


class UrlTimeout(RequestError):
    """504: fetching took longer than URL_TIMEOUT."""

    code = "url_timeout"
    status = 504
    retryable = True


class RunError(StreamForgeError):
    """Ends a run. The code is one of the subclasses'.

    `retry_after`: seconds after which the same call of a provider is tried again; None: it is not tried again.
    `detail`: what the provider itself said, short and without keys; callers see it only with SHOW_PROVIDER_ERRORS.
    """

    code = "internal"
    status = 502
    detail: str | None = None

    def __init__(self, message: str, *, retry_after: float | None = None, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.retry_after = retry_after


class ProviderTimeout(RunError):
    """The provider did not begin to answer in time."""

    code = "provider_timeout"
    status = 504
    retryable = True


class UpstreamStalled(RunError):
    """The provider began to answer and then fell silent."""

    code = "upstream_stalled"
    status = 504
    retryable = True


class ProviderFailed(RunError):
    """The provider refused, ended the connection early, or sent something that is not an answer."""

    code = "provider_error"
    retryable = True


class ProviderRefused(RunError):
    """The provider refused for a reason that a retry does not change: a wrong key, a missing setting."""

    code = "provider_error"


class WrongAddress(ProviderRefused):
    """Nothing that answers is at the provider's address."""


class PromptRefused(ProviderRefused):
    """The provider refused this request only, for example because of a bad parameter."""


class RateLimited(RunError):
    """The provider says: too many requests, or no quota left."""

    code = "rate_limited"
    status = 429
    retryable = True


class ContextOverflow(RunError):
    """The prompt is longer than the model's context."""

    code = "context_overflow"
    status = 422


class AnswerTooLong(RunError):
    """The answer reached the largest size that the server allows, and was ended there."""

    code = "too_long"

    @classmethod
    def at(cls, max_bytes: int) -> Self:
        """The error for an answer that would be larger than `max_bytes`."""
        return cls(
            f"The answer reached {max_bytes / 1_000_000:g} MB, the largest size that this server allows, and was ended "
            "there. What came until then is kept.",
            advice="MAX_ANSWER_MB sets the limit.",
        )


class ContentFiltered(RunError):
    """The provider's content filter ended the answer."""

    code = "content_filter"


class ModelNotFound(RunError):
    """The provider doesn't have this model."""

    code = "model_not_found"
    status = 404


class ToolFailed(RunError):
    """A tool that the answer needed failed."""

    code = "tool_error"


class NotSaved(RunError):
    """The answer could not be stored; what was streamed is not in the history."""

    code = "not_saved"
    status = 503
    retryable = True


class ServerRestarted(RunError):
    """The server stopped without warning while the run was live."""

    code = "server_restarted"
    status = 503
    retryable = True


class ShuttingDown(RunError):
    """The server was asked to stop, and the run outlived its grace period."""

    code = "shutdown"
    status = 503
    retryable = True


class InternalError(RunError):
    """A fault of StreamForge itself. The log has the details, under the request id."""

    code = "internal"
    status = 500


class DocumentUnreadable(StreamForgeError):
    """A file that cannot become a document; the code is one of `CODES`."""

    status = 422
    CODES: ClassVar[frozenset[str]] = frozenset(
        {
            "document_empty",
            "document_encrypted",
            "document_scanned",
            "document_corrupt",
            "document_too_large",
            "document_unsupported",
            "document_timeout",
        }
    )

    def __init__(self, code: str, message: str) -> None:
        if code not in self.CODES:
            raise ValueError(f"unknown document code {code!r}")
        super().__init__(message, code=code)


class EmbeddingError(StreamForgeError):
    """Base of the errors of embedding."""

    status = 502


class EmbeddingFailed(EmbeddingError):
    """The embedding provider could not be reached or refused."""

    code = "embedding_failed"
    retryable = True


class EmbeddingMismatch(EmbeddingError):
    """The server can't use the embedding model of the collection."""

    code = "embedding_mismatch"
    status = 409
