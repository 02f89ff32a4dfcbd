"""How an answer ends: one table of finish reasons for all protocols, and what decides whether an answer is complete."""

import re
from collections.abc import Iterator
from typing import Any, Literal, cast

import structlog

from backend.chains.models._refusals import broken_off, filtered
from backend.chains.models.prompt import Finish, Output, Tokens
from backend.errors import ContentFiltered, ProviderFailed, RunError

log = structlog.get_logger(__name__)

EndKind = Literal["complete", "failed", "filtered"]

_LONGEST_REASON = 60
"""Characters of a reason that the table doesn't know."""

# The words are written as `_letters` leaves them: lower case, without separators.
_NONE = frozenset({"", "null", "none", "unspecified", "blockreasonunspecified"})
"""Words of servers that name a reason in each chunk: the answer goes on."""

_COMPLETE = {
    # OpenAI, Anthropic, Cohere, Text Generation Inference, Ollama and others: the model came to its end.
    **dict.fromkeys(
        ("stop", "stopped", "endturn", "stopsequence", "eos", "eostoken", "complete", "completed", "finished", "done"),
        "stop",
    ),
    # Anthropic and Gemini, Mistral: a limit of the request, or the model's own.
    **dict.fromkeys(
        (
            "length",
            "maxtokens",
            "maxoutputtokens",
            "maxlength",
            "modellength",
            "modelcontextwindowexceeded",
            "contextlength",
            "tokenlimit",
        ),
        "length",
    ),
    **dict.fromkeys(("toolcalls", "toolcall", "tooluse"), "tool_calls"),
    "functioncall": "function_call",
}
"""Reasons of answers that are complete, in OpenAI's words."""

_FILTERED = frozenset(
    {
        # OpenAI, Azure, Z.ai, Moonshot, Bedrock, DashScope
        "contentfilter",
        "contentfiltered",
        "contentpolicy",
        "contentpolicyviolation",
        "sensitive",
        "guardrailintervened",
        "datainspectionfailed",
        "moderation",
        "flagged",
        "blocked",
        # Anthropic, Cohere
        "refusal",
        "refused",
        "errortoxic",
        # Gemini: reasons to end an answer, and to block a prompt
        "safety",
        "imagesafety",
        "recitation",
        "imagerecitation",
        "language",
        "blocklist",
        "prohibitedcontent",
        "imageprohibitedcontent",
        "spii",
        "modelarmor",
        "jailbreak",
    }
)
_FAILED = frozenset(
    {
        # DeepSeek, vLLM, SGLang, Cohere, and gateways
        "insufficientsystemresource",
        "abort",
        "aborted",
        "cancel",
        "cancelled",
        "canceled",
        "usercancel",
        "interrupted",
        "disconnected",
        "timeout",
        "timedout",
        "expired",
        "preempted",
        "overloaded",
        "unavailable",
        "serviceunavailable",
        "ratelimit",
        "ratelimited",
        "exception",
        # Anthropic: the turn is not over, only the call is.
        "pauseturn",
        # Gemini
        "other",
        "imageother",
        "noimage",
        "unexpectedtoolcall",
        "toomanytoolcalls",
        "missingthoughtsignature",
        "escalation",
        "puplimiteddisabled",
        "continuation",
    }
)
_FAILURES = re.compile(r"error|malformed|failed|failure")
"""Parts of words that mean a failure, whatever else is in the word: `network_error`, `malformed_function_call`."""


def end_kind(reason: str) -> EndKind:
    """What a finish reason says of the answer. An unknown word is not a failure."""
    word = _letters(reason)
    if word in _FILTERED:
        return "filtered"
    if word in _FAILED or (word not in _COMPLETE and _FAILURES.search(word)):
        return "failed"
    return "complete"


def reason_in(value: Any) -> str | None:
    """A provider's finish reason as text, at most 60 characters; None if it says that the answer goes on."""
    if isinstance(value, dict):
        # SGLang's own form.
        fields = cast(dict[str, Any], value)
        value = fields.get("type") or fields.get("reason")
    if value is None or value is False or value == 0:
        return None
    reason = str(value).strip()[:_LONGEST_REASON]
    return None if _letters(reason) in _NONE else reason


def known_reason(reason: str) -> str:
    """The reason of a complete answer in OpenAI's words; a word that the table doesn't know stays, in lower case."""
    return _COMPLETE.get(_letters(reason), reason.lower())


def _letters(reason: str) -> str:
    # Some gateways send the name of the enum, too: `FinishReason.STOP`.
    return re.sub(r"[^a-z0-9]", "", reason.lower()).removeprefix("finishreason")


def refused() -> ContentFiltered:
    """An answer in which the model itself refuses."""
    return ContentFiltered("The model refused to answer. What it said is kept. Rephrase the message.")


_USAGE_SECONDS, _REST_SECONDS = 2.0, 0.5


def seconds_to_end(is_counted: bool, idle_seconds: float) -> float:
    """How long more of a stream is waited for, once its finish reason is known: for usage that is still missing, or for
    what a server sends that has a finish reason in each chunk. Always shorter than the longest silence."""
    return min(_REST_SECONDS if is_counted else _USAGE_SECONDS, idle_seconds / 2)


class Ending:
    """What has come of an answer so far, and what that means once the stream is over."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the provider ended the answer, in its words."""
        self.tokens: Tokens | None = None
        """What the provider has counted."""
        self.has_text = False
        self.has_reasoning = False
        self.has_calls = False
        """Whether the model called tools."""
        self.is_refused = False
        """Whether the model said that it refuses, apart from the finish reason."""
        self.is_closed = False
        """Whether the provider said that the stream is over, without a finish reason."""

    @property
    def is_known(self) -> bool:
        """Whether the answer is complete already: whatever happens to the connection then changes nothing."""
        return self.reason is not None and end_kind(self.reason) != "failed"

    def outputs(self) -> Iterator[Output]:
        """The tokens, if the provider counted them, and the end of a complete answer. Raises RunError if the answer
        isn't complete; without tokens if nothing of it came, since such a call may be tried again."""
        problem = self._problem()
        if self.tokens is not None and (problem is None or self.has_text or self.has_reasoning or self.is_refused):
            yield self.tokens
        if problem is not None:
            raise problem
        assert self.reason is not None
        yield Finish(known_reason(self.reason))

    def _problem(self) -> RunError | None:
        if self.reason is None:
            return unexplained() if self.is_closed else broken_off()
        kind = end_kind(self.reason)
        if kind == "filtered":
            return filtered()
        if self.is_refused:
            return refused()
        if kind == "failed":
            log.info("provider_gave_up", reason=self.reason)
            return ProviderFailed("The provider gave up in its answer. Ask again.", retry_after=0.0)
        if self.has_calls and not self.has_text:
            return ProviderFailed("The model answered with tool calls only, and no tools were offered. Ask again.")
        return None


def unexplained() -> ProviderFailed:
    """A stream that the provider closed in order, without a reason and without usage."""
    return ProviderFailed(
        "The provider ended its stream without saying why: no finish reason and no usage came. The answer may be "
        "incomplete. Ask again; what came until then is kept.",
        retry_after=0.0,
    )
