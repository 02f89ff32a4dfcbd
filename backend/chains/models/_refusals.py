"""What an SDK's exception means to the caller, in our words: theirs may quote keys or prompts.

Exceptions are told apart by the names of their classes, so that no SDK is imported for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import structlog

from backend.chains.models.provider import Endpoint, retry_after
from backend.errors import (
    ContentFiltered,
    ContextOverflow,
    ModelNotFound,
    PromptRefused,
    ProviderFailed,
    ProviderRefused,
    ProviderTimeout,
    RateLimited,
    RunError,
)

log = structlog.get_logger(__name__)

_TIMEOUTS = frozenset({"APITimeoutError", "TimeoutException", "TimeoutError", "ServerTimeoutError"})
_CERTIFICATES = frozenset({"ClientSSLError", "SSLError", "SSLCertVerificationError"})
_UNREACHED = frozenset(
    {"APIConnectionError", "ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError"}
)
_REPORTED = frozenset({"ResponseError"})
"""An error inside a stream, without anything to tell it by."""
_BROKEN = frozenset({"TransportError", "ClientError", "OSError", "ClientPayloadError", "APIError"})
_OVERFLOWS = (
    "context_length",
    "context length",
    "maximum context",
    "exceed_context",
    "prompt is too long",
    "token count",
    "too many tokens",
)
_FILTERS = ("content_filter", "content_policy", "blocked by", "prohibited_content")
_LONGEST = 1_000
_LIMITS = ("rate_limit", "insufficient_quota", "resource_exhausted")


def broken_off() -> ProviderFailed:
    """An answer that ended without its end."""
    said = "The provider broke off its answer. Ask again; what came until then is kept."
    return ProviderFailed(said, retry_after=0.0)


def filtered() -> ContentFiltered:
    """An answer that the provider's filter ended."""
    return ContentFiltered("The provider's content filter ended the answer. Rephrase the message.")


def is_unreached(error: Exception) -> bool:
    """Whether nothing answers at the address."""
    return any(name in _UNREACHED | {"ConnectTimeout"} for each in _chain(error) for name in _names(each))


def unlisted(refusal: RunError, endpoint: Endpoint) -> str:
    """Why a provider's list of models can't be read."""
    if isinstance(refusal, ModelNotFound):
        hint = "" if endpoint.root.endswith("/v1") else ", which mostly ends in /v1"
        return f"{endpoint.shown} has no list of models. Check {endpoint.url_setting}{hint}"
    return refusal.message.rstrip(".")


def refusal_of(error: Exception, model: str, endpoint: Endpoint) -> RunError:
    """The RunError that stands for it."""
    names = {name for each in _chain(error) for name in _names(each)}
    status, said = _status(error), _said(error)
    log.info("provider_refused", model=f"{endpoint.name}/{model}", status=status, said=_in_its_words(error, endpoint))
    # What may pass by itself. An empty account doesn't.
    again = None if "insufficient_quota" in said else _asked_to_wait(error)
    if names & _TIMEOUTS:
        return ProviderTimeout("The provider did not answer in time. Try again.", retry_after=again)
    if names & _CERTIFICATES:
        return ProviderFailed(f"The provider's certificate is not trusted. Check {endpoint.url_setting}.")
    if status is None and names & _UNREACHED:
        check = f"Check {endpoint.url_setting} and the network."
        return ProviderFailed(f"The provider can't be reached. {check}", retry_after=again)
    if said or status is not None or names & _REPORTED:
        return _refusal(status, said, model, again, endpoint)
    if isinstance(error, TypeError | KeyError | ValueError):
        return ProviderFailed(f"The provider sent something that is no answer. Check {endpoint.url_setting}.")
    again = again if names & _BROKEN else None
    return ProviderFailed(
        "The connection to the provider broke. Ask again; what came until then is kept.", retry_after=again
    )


def _refusal(status: int | None, said: str, model: str, again: float | None, endpoint: Endpoint) -> RunError:
    """What the provider's own error means; `status` is None for one inside a stream that doesn't tell."""
    match status:
        case _ if _any(said, _OVERFLOWS):
            return ContextOverflow("The conversation is longer than the model's context. Begin a new session.")
        case _ if _any(said, _FILTERS):
            return ContentFiltered("The provider's content filter refused the message. Rephrase it.")
        case _ if status == 404 or "model_not_found" in said:
            return ModelNotFound(f"The provider knows no model {model!r}. GET /models lists what it offers.")
        case _ if status in (401, 403) or "api key not valid" in said:
            return ProviderRefused(f"The provider refused the key. Check {endpoint.key_setting}.")
        case _ if status == 429 or _any(said, _LIMITS):
            return RateLimited(
                "The provider's limit is reached: too many requests, or no quota left. Try later.", retry_after=again
            )
        case int() if 400 <= status < 500:
            return PromptRefused(f"The provider refused the request (HTTP {status}). Check model and parameters.")
        case int():
            return ProviderFailed(f"The provider failed (HTTP {status}). Try again.", retry_after=again)
        case _:
            return ProviderFailed("The provider reported an error in its answer. Try again.", retry_after=again)


def _any(said: str, marks: tuple[str, ...]) -> bool:
    return any(mark in said for mark in marks)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It, and what it came from."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _names(error: BaseException) -> Iterator[str]:
    return (each.__name__ for each in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    for each in _chain(error):
        found = [getattr(each, "status_code", None), getattr(getattr(each, "response", None), "status_code", None)]
        if "APIError" in _names(each):
            # Google's; an aiohttp error has a `code` for what it can't parse, too.
            found.append(getattr(each, "code", None))
        for status in found:
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None


def _asked_to_wait(error: BaseException) -> float:
    """Seconds that the provider asks to wait."""
    for each in _chain(error):
        if isinstance(seconds := getattr(each, "retry_after", None), float):
            return seconds
        headers = getattr(getattr(each, "response", None), "headers", None) or getattr(each, "headers", None)
        if isinstance(headers, Mapping):
            # Some SDKs keep them in a plain dict, in lower case.
            found = cast(Mapping[str, str], headers)
            return retry_after({"Retry-After": found.get("Retry-After") or found.get("retry-after") or ""})
    return 0.0


def _in_its_words(error: BaseException, endpoint: Endpoint) -> str:
    """What the provider or its SDK says, for those who look for the cause: it may quote what was asked."""
    words = str(getattr(error, "words", None) or getattr(error, "body", None) or error)
    key = endpoint.key.get_secret_value() if endpoint.key is not None else ""
    return (words.replace(key, "***") if key else words)[:_LONGEST]


def _said(error: BaseException) -> str:
    """The machine-readable parts of a provider's error, lower case; for deciding, never for showing."""
    pieces: list[object] = []
    for each in _chain(error):
        if (said := getattr(each, "said", None)) is not None:
            return str(said)
        pieces += [getattr(each, "code", None), getattr(each, "type", None), getattr(each, "status", None)]
        body = getattr(each, "body", None) or getattr(each, "details", None)
        if isinstance(body, dict):
            fields = cast(dict[str, Any], body)
            inner = fields.get("error")
            fields = cast(dict[str, Any], inner) if isinstance(inner, dict) else fields
            pieces += [fields.get(name) for name in ("code", "type", "status", "message")]
    return " ".join(str(piece) for piece in pieces if isinstance(piece, str)).lower()
