"""What an SDK's exception means to the caller, in our words: theirs may quote keys or prompts.

Exceptions are told apart by the names of their classes, so that no SDK is imported for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog

from backend.chains.models._error_bodies import ErrorBody, read_error_body
from backend.chains.models._meanings import RefusedCall, meaning_of, status_in
from backend.chains.models._redaction import shown_words
from backend.chains.models._refused_parameters import refused_parameters
from backend.chains.models._waits import wait_in_headers, wait_in_text
from backend.chains.models.provider import Endpoint
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
    WrongAddress,
)

log = structlog.get_logger(__name__)

_TIMEOUTS = frozenset({"APITimeoutError", "TimeoutException", "TimeoutError", "ServerTimeoutError"})
_CERTIFICATES = frozenset({"ClientSSLError", "SSLError", "SSLCertVerificationError"})
_PROXIES = frozenset({"ProxyError", "ClientHttpProxyError", "ClientProxyConnectionError"})
_UNREACHED = frozenset(
    {"APIConnectionError", "ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError"}
)
_REPORTED = frozenset({"ResponseError"})
"""An error inside a stream, without anything to tell it by."""
_BROKEN = frozenset({"TransportError", "ClientError", "OSError", "ClientPayloadError", "APIError"})
_LONGEST = 1_000
"""Characters of a provider's words in the log."""


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
    if isinstance(refusal, ModelNotFound | WrongAddress):
        return f"{endpoint.shown} has no list of models. Check {_address_setting(endpoint)}"
    return refusal.text(with_advice=True).rstrip(".")


@dataclass(frozen=True, slots=True)
class _Report:
    """What an exception holds: the HTTP status of the response, or None, and the body of the error."""

    status: int | None
    body: ErrorBody
    wait: float | None
    is_answer: bool
    """Whether the provider answered at all."""


def refusal_of(error: Exception, model: str, endpoint: Endpoint) -> RunError:
    """The RunError that stands for it, with the provider's words as its `detail`. Logs them."""
    names = {name for each in _chain(error) for name in _names(each)}
    report = _report_of(error, names)
    refusal = RefusedCall(report.status, report.body, model, endpoint.own_address)
    meant = _refusal_error(refusal, report, endpoint) if report.is_answer else _failure(error, names, report, endpoint)
    if report.is_answer and report.body.text:
        meant.detail = shown_words(report.body.text, endpoint)
    # The status and text of an exception that is no answer are not the provider's.
    status = status_in(refusal) if report.is_answer else None
    words = report.body.text if report.is_answer else _own_words(error)
    said = shown_words(words, endpoint, _LONGEST)
    # A list of models is asked for again and again, and says itself why it is missing.
    write = log.warning if model else log.info
    write("provider_refused", model=f"{endpoint.name}/{model}", status=status, code=meant.code, said=said)
    return meant


def refused_call(error: Exception, model: str, endpoint: Endpoint) -> RefusedCall | None:
    """What the provider refused, for those who can ask in another way; None if it didn't answer."""
    report = _report_of(error, {name for each in _chain(error) for name in _names(each)})
    return RefusedCall(report.status, report.body, model, endpoint.own_address) if report.is_answer else None


def _failure(error: Exception, names: set[str], report: _Report, endpoint: Endpoint) -> RunError:
    """A call that the provider didn't answer."""
    again = report.wait or 0.0
    if names & _TIMEOUTS:
        return ProviderTimeout("The provider did not answer in time. Try again.", retry_after=again)
    if names & _PROXIES or report.status == 407:
        check = "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
        return ProviderFailed("The proxy doesn't lead to the provider.", retry_after=again, advice=check)
    if names & _CERTIFICATES:
        check = f"Check {endpoint.url_setting}, and name your own authority in CA_BUNDLE or SSL_CERT_FILE."
        return ProviderFailed("The provider's certificate is not trusted.", advice=check)
    if names & _UNREACHED:
        check = f"Check {endpoint.url_setting} and the network."
        return ProviderFailed("The provider can't be reached.", retry_after=again, advice=check)
    if isinstance(error, TypeError | KeyError | ValueError):
        check = f"Check {endpoint.url_setting}."
        return ProviderFailed("The provider sent something that is no answer.", advice=check)
    return ProviderFailed(
        "The connection to the provider broke. Ask again; what came until then is kept.",
        retry_after=again if names & _BROKEN else None,
    )


def _refusal_error(refusal: RefusedCall, report: _Report, endpoint: Endpoint) -> RunError:
    """What the provider's own error means."""
    meaning, status = meaning_of(refusal), status_in(refusal)
    shown_status = f" (HTTP {status})" if status is not None else ""
    again = report.wait if report.wait is not None else 0.0
    match meaning:
        case "context":
            return ContextOverflow("The conversation is longer than the model's context. Begin a new session.")
        case "too_large":
            return ContextOverflow(
                "The request is larger than the provider takes. Begin a new session, or send fewer or smaller images."
            )
        case "filter":
            return ContentFiltered("The provider's content filter refused the message. Rephrase it.")
        case "model":
            return ModelNotFound(f"The provider knows no model {refusal.model!r}. GET /models lists what it offers.")
        case "address":
            return WrongAddress(
                f"Nothing that answers is at the provider's address{shown_status}.",
                advice=f"Check {_address_setting(endpoint)}.",
            )
        case "page":
            return _page_error(status, endpoint)
        case "key":
            return ProviderRefused("The provider refused the key.", advice=f"Check {endpoint.key_setting}.")
        case "forbidden":
            check = f"Check {endpoint.key_setting}."
            return ProviderRefused("The provider refused the key, or what it may do.", advice=check)
        case "account":
            # An account doesn't fill itself.
            return RateLimited("The provider's account has no quota or credit left. Fill it, or try later.")
        case "rate":
            return RateLimited("The provider's limit is reached: too many requests. Try later.", retry_after=again)
        case "request":
            named = sorted(refused_parameters(refusal) - {"system", "stream_options"})
            what = " and ".join(named) if named else "the request"
            return PromptRefused(f"The provider refused {what}{shown_status}. Check model and parameters.")
        case "passing":
            return ProviderFailed(f"The provider failed{shown_status}. Try again.", retry_after=again)
        case "unknown":
            return ProviderFailed("The provider reported an error in its answer. Try again.", retry_after=again)


def _page_error(status: int | None, endpoint: Endpoint) -> RunError:
    """A web page in place of an answer."""
    where = f"A web page came instead of an answer{f' (HTTP {status})' if status is not None else ''}: a proxy, a "
    where += "firewall or a login page is in between, or the address is wrong."
    return (ProviderFailed if status is None else ProviderRefused)(where, advice=f"Check {endpoint.url_setting}.")


def _address_setting(endpoint: Endpoint) -> str:
    hint = "" if endpoint.root.endswith("/v1") else ", which mostly ends in /v1"
    return f"{endpoint.url_setting}{hint}"


def _report_of(error: BaseException, names: set[str]) -> _Report:
    """What the exception, or one that it came from, holds of the provider's answer."""
    status = _status(error)
    content = next((c for each in _chain(error) if (c := _content(each)) is not None), None)
    body = read_error_body(content) if content is not None else ErrorBody()
    is_answer = status is not None or content is not None or bool(names & _REPORTED)
    wait = next((w for each in _chain(error) if (w := _wait(each)) is not None), None)
    if wait is None:
        wait = body.wait if body.wait is not None else wait_in_text(body.text)
    return _Report(status, body, wait, is_answer)


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
    """The HTTP status of the response, if it is one of a refusal."""
    for each in _chain(error):
        found = [getattr(each, "status_code", None), getattr(getattr(each, "response", None), "status_code", None)]
        if "APIError" in _names(each):
            # Google's; an aiohttp error has a `code` for what it can't parse, too.
            found.append(getattr(each, "code", None))
        for status in found:
            if isinstance(status, int) and 300 <= status < 600:
                return status
    return None


def _content(error: BaseException) -> object | None:
    """The body of the provider's error: text, or what was read from its JSON."""
    for name in ("words", "body", "details", "error"):
        value = getattr(error, name, None)
        if isinstance(value, str | bytes | Mapping | list) and value:
            return cast("object", value)
    response: Any = getattr(error, "response", None)
    if response is not None and not getattr(response, "is_stream_consumed", True):
        return None
    text = getattr(response, "_content", None)
    return text if isinstance(text, bytes) and text else None


def _wait(error: BaseException) -> float | None:
    """The seconds that the headers of the response ask to wait."""
    seconds = getattr(error, "retry_after", None)
    if isinstance(seconds, float) and seconds:
        return seconds
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    # Some SDKs keep them in a plain dict.
    return wait_in_headers(cast("Mapping[str, str]", headers)) if isinstance(headers, Mapping) else None


def _own_words(error: Exception) -> str:
    """What the exception says; only its class if it may quote the answer."""
    return type(error).__name__ if isinstance(error, TypeError | KeyError | ValueError) else str(error)
