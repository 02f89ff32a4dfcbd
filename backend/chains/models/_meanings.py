"""What a provider's refusal means. The HTTP status decides first, then the machine-readable words of the error, and
only then its sentences."""

import re
from dataclasses import dataclass
from typing import Literal

from backend.chains.models._error_bodies import ErrorBody

Meaning = Literal[
    "context",
    "too_large",
    "filter",
    "model",
    "address",
    "page",
    "key",
    "forbidden",
    "account",
    "rate",
    "passing",
    "request",
    "unknown",
]
"""`passing` is a failure of the provider that may be over soon; `request`: it refuses this request only."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A provider's refusal. `status` is the HTTP status of the response; None inside of a response that began well."""

    status: int | None
    body: ErrorBody
    model: str = ""
    own_address: bool = True
    """Whether the address is one that the operator chose, and may be wrong."""


_STATUS_BY_CODE: tuple[tuple[int, str], ...] = (
    (
        402,
        "insufficientquota|insufficientbalance|insufficientcredit|insufficientfunds|billing|arrearage|paymentrequired",
    ),
    (402, "creditlimit|outofcredit|budgetexceeded|exceededbudget|quotaexhausted|accountdeactivated|accountsuspended"),
    (
        429,
        "ratelimit|throttl|toomanyrequest|resourceexhausted|(?<!token)(?<!tokens)(?<!context)(?<!length)limitexceeded|capacityexceeded|slowdown|quotaexceeded",
    ),
    (401, "apikey|authentication|unauthenticated|unauthorized|noauth|invalidauth"),
    (403, "permission|accessdenied|(?<!extra)forbidden"),
    (413, "requesttoolarge|payloadtoolarge|entitytoolarge"),
    (504, "timeout|deadlineexceeded|timedout"),
    (503, "overloaded|unavailable|modelloading|notready|enginebusy"),
    (499, "cancelled|canceled|aborted"),
    (404, "notfound"),
    (400, "invalidrequest|badrequest|invalidargument|validation|failedprecondition|unprocessable|notsupported"),
    (400, "unsupported|extraforbidden|unknownparameter|invalidparameter|outofrange|invalidvalue|valueerror|typeerror"),
    (500, "servererror|internal|apierror|streamerror|modelerror|generation|engineerror|exception"),
)
"""The HTTP statuses that codes stand for, in the order in which they are looked for; codes without their separators."""

_MODEL_CODES = re.compile(
    r"model(?:id)?(?:isnot|not)(?:found|exist|available|supported)|deploymentnotfound|decommission|invalidmodel"
    r"|nosuchmodel"
    r"|unknownmodel|modelnot"
)
_CONTEXT_CODES = re.compile(
    r"context(?:length|window|size|limit)|exceedcontext|tokenslimit|stringabovemax|prompttoolong"
)
_FILTER_CODES = re.compile(
    r"contentfilter|contentpolicy|contentmoderation|responsibleai|datainspection|moderation|safetyviolation"
    r"|invalidprompt"
    r"|prohibitedcontent|policyviolation|sensitivecontent|guardrail"
)

_CONTEXT = re.compile(
    r"context[ _-]?(?:length|window|size|limit)|maximum (?:model|prompt|sequence|input|content) length|contextwindow"
    r"|prompt (?:is |was )?too (?:long|large)|prompt (?:exceeds|contains \d+ tokens)"
    r"|inputs? (?:is|are|was|text is)? ?too (?:long|large)"
    r"|too many (?:input |prompt )?tokens|input tokens? (?:count|exceed)"
    r"|tokens? (?:count|limit) (?:\([^)]*\) )?(?:was )?exceed"
    r"|number of (?:input |prompt )?tokens .{0,40}exceed|input token count|model token limit|max_new_tokens`? must be"
    r"|must have less than \d+ tokens|reduce (?:the|your) (?:length|prompt|input|message)|range of input length"
    r"|longer than the (?:maximum|model)|requested tokens|size limit exceeded|request (?:body )?(?:is )?too large"
    r"|request exceeds the maximum size|exceeds? max(?:imum)? (?:allowed )?(?:content |input |prompt )?length"
    r"|exceeds the limit of \d+"
    r"|maximum allowed input length|too large for (?:the )?model|string too long|input length .{0,60}exceed"
)
"""What every vendor and server calls a prompt that doesn't fit."""
_OUTPUT_LIMIT = re.compile(
    r"max(?:_completion|_output)?_tokens\b.{0,80}?(?:too large|maximum allowed number of output"
    r"|at most \d+ completion|must be (?:less|at))"
    r"(?!.{0,200}(?:context|input))|valid range of max_tokens",
    re.S,
)
"""A limit of the answer that is too high for the model: not the prompt's fault."""
_FILTER = re.compile(
    r"content (?:management |filtering |moderation |safety )?(?:policy|filter)|content_(?:filter|policy)"
    r"|blocked by content"
    r"|prohibited_content|usage (?:policy|policies|guidelines)|flagged (?:as|for|by)|requires moderation"
    r"|content exists risk"
    r"|inappropriate content|considered high risk|safety (?:system|filter|policy|check)|responsible ai"
    r"|violates? .{0,40}polic"
)
_ACCOUNT = re.compile(
    r"insufficient[ _](?:quota|balance|credit|fund|account)|credit balance|(?:out of|any|enough|no|more) credits"
    r"|payment required"
    r"|exceeded your current quota|billing (?:hard )?limit|billing details|billing_|spend(?:ing)? limit|arrear"
    r"|not in good standing"
    r"|prepay|top up|recharge|balance is (?:too low|not enough)"
    r"|account (?:is |has been )?(?:suspended|deactivated|not active)"
)
_RATE = re.compile(
    r"rate[ _-]?limit|too many requests|throttl|resource[ _]exhausted|quota exceeded|tokens per (?:min|day)|slow down"
)
_KEY = re.compile(
    r"(?:invalid|incorrect|wrong|missing|expired|no|unknown|revoked|bad) (?:api|auth|x-api"
    r"|access|authentication)[ _-]?(?:key|token|credential)"
    r"|api[ _-]?key (?:is )?(?:not valid|not found|invalid|expired|missing|required)|api_key_invalid"
    r"|no auth credentials|invalid authentication"
)
_MODEL = re.compile(
    r"model[^.]{0,120}?(?:does ?n[o']t exist"
    r"|not exist|not found|not available|no longer|unknown|decommissioned|deprecated|not deployed"
    r"|not loaded|is not supported|not a valid|identifier is invalid|is invalid)"
    r"|(?:invalid|unknown|no such|unrecognized|unsupported|find|access|have|load) (?:the )?(?:requested )?(?:model"
    r"|deployment|engine)\b"
    r"|not a valid model|deployment[^.]{0,80}?(?:does not exist|not found)|no endpoints found (?:for|matching)"
)
_NAMES_MODEL = re.compile(r"\b(?:model|deployment|engine)s?\b")
_ROUTE = re.compile(
    r"page not found|404 not found|no (?:static )?(?:resource|route|handler)"
    r"|unknown (?:request )?(?:url|path|route|endpoint)|invalid url"
    r"|unexpected endpoint|cannot post|route (?:not found|/)|endpoint not found|not found: /|path .{0,80}not found"
    r"|method not allowed"
)
_PLAIN = re.compile(
    r"\W*(?:error|404|resource|the requested (?:resource|url))?\W*(?:was |could )?not (?:be )?found\W*(?:error)?\W*"
)
_FEATURE = re.compile(r"no endpoints found that support|does not support (?:image|tool|response|json)")
_PASSING_STATUSES = frozenset({408, 409, 423, 424, 425, 499})
_NO_CONTEXT = frozenset({401, 402, 403, 407, 408, 429})


def meaning_of(refusal: RefusedCall) -> Meaning:
    """What the refusal means."""
    status, body = status_in(refusal), refusal.body
    if body.is_page:
        return _meaning_of_page(refusal.status)
    if status == 429:
        return "account" if _has_account(body) else "rate"
    if status == 402 or (status in (None, 400, 403, 412) and _has_account(body)):
        return "account"
    if (content := _meaning_of_content(status, body)) is not None:
        return content
    if (model := _meaning_of_place(refusal, status)) is not None:
        return model
    return _meaning_of_status(status, body)


def status_in(refusal: RefusedCall) -> int | None:
    """The HTTP status that the refusal has or stands for: gateways answer 200, 400 or 500, and name the true one
    inside. None if nothing tells."""
    named = refusal.body.status or _status_of_codes(refusal.body)
    if refusal.status is None:
        return named
    if refusal.status in (400, 500) and named in (401, 402, 403, 404, 408, 413, 429, 499, 503, 504, 529):
        return named
    return refusal.status


def _status_of_codes(body: ErrorBody) -> int | None:
    codes = [_letters(code) for code in body.codes]
    return next((status for status, words in _STATUS_BY_CODE if any(re.search(words, code) for code in codes)), None)


def _letters(code: str) -> str:
    return re.sub(r"[^a-z0-9]", "", code)


def _has_code(body: ErrorBody, pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(_letters(code)) for code in body.codes)


def _has_account(body: ErrorBody) -> bool:
    return _status_of_codes(body) == 402 or _ACCOUNT.search(body.text.lower()) is not None


def _meaning_of_page(status: int | None) -> Meaning:
    """A web page: of a proxy, a login, a gateway, or of a server that has no such path."""
    match status:
        case 429:
            return "rate"
        case 413:
            return "too_large"
        case None | 401 | 403 | 407 | 451:
            return "page"
        case 408 | 409 | 425 | 499:
            return "passing"
        case int() if status >= 500:
            return "passing"
        case _:
            return "address"


def _meaning_of_content(status: int | None, body: ErrorBody) -> Meaning | None:
    """Whether the prompt is what the provider refuses, for its content or for its length."""
    text = body.text.lower()
    may_filter = status in (None, 400, 403, 406, 422, 451, 500)
    may_overflow = status not in _NO_CONTEXT and (status is None or status <= 500)
    if may_filter and _has_code(body, _FILTER_CODES):
        return "filter"
    if may_overflow and _has_code(body, _CONTEXT_CODES):
        return "context"
    if may_overflow and _CONTEXT.search(text) and not _OUTPUT_LIMIT.search(text):
        return "context"
    if status == 413:
        return "too_large"
    return "filter" if may_filter and _FILTER.search(text) else None


def _meaning_of_place(refusal: RefusedCall, status: int | None) -> Meaning | None:
    """Whether the model, or the address itself, is what isn't there."""
    body, text = refusal.body, refusal.body.text.lower()
    if status in (404, 405, 410) or (status is None and _ROUTE.search(text)):
        return _meaning_of_missing(refusal, status)
    may_name = status in (None, 400, 403, 422, 500, 501)
    if may_name and status != 403 and _has_code(body, _MODEL_CODES):
        return "model"
    if status in (None, 400, 403, 422) and _MODEL.search(text) and "parameter" not in text and not body.params:
        return "model"
    return None


def _meaning_of_missing(refusal: RefusedCall, status: int | None) -> Meaning:
    body, text = refusal.body, refusal.body.text.lower()
    if status == 405 or _ROUTE.search(text):
        return "address"
    if _FEATURE.search(text):
        return "request"
    if _has_code(body, _MODEL_CODES) or _NAMES_MODEL.search(text) or (refusal.model and refusal.model.lower() in text):
        return "model"
    if refusal.status is None:
        # A server that began to answer is there.
        return "model"
    return "address" if refusal.own_address or _PLAIN.fullmatch(text) else "model"


def _meaning_of_status(status: int | None, body: ErrorBody) -> Meaning:
    text = body.text.lower()
    match status:
        case 401:
            return "key"
        case 403:
            return "rate" if _RATE.search(text) else "forbidden"
        case 407:
            return "page"
        case _ if status in (None, 400) and _KEY.search(text):
            return "key"
        case 498:
            return "rate"
        case _ if status in (None, 400, 500) and _RATE.search(text):
            return "rate"
        case _ if status in _PASSING_STATUSES:
            return "passing"
        case 501 | 505:
            return "request"
        case int() if 300 <= status < 400:
            return "address"
        case int():
            return "passing" if status >= 500 else "request"
        case None:
            return "unknown"
