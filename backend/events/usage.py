"""Tokens, costs and prices of calls of models."""

from decimal import Decimal
from typing import Literal

import msgspec

from backend.events.base import Event


class TokenUsage(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Tokens of all calls of a run. `cost` is in micro-dollars; unknown is null, never zero."""

    input_tokens: int = msgspec.field(default_factory=int)
    output_tokens: int = msgspec.field(default_factory=int)
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    estimated: bool = False
    cost: int | None = None
    prompt_cut: bool = False


class AppliedPrice(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The rates of one call, in US dollars per million tokens. If `cached` is null, cached input costs as much as
    other input. `source` is `settings`, `built in`, or `genai-prices` with its version.
    """

    source: str
    input: Decimal
    output: Decimal
    cached: Decimal | None = None


Purpose = Literal["answer", "condense", "title", "summary", "embedding"]


CallStatus = Literal["completed", "failed", "cancelled"]


class Usage(Event, tag="usage", kw_only=True):
    """Tokens of one call of a model. `estimated`: the provider reported none, so they were estimated. `purpose`
    condense is the call that rewrites a follow-up question. `cost` is in micro-dollars at the rates of `price`;
    unknown is null, never zero. `prompt_cut`: the model read only a part of its prompt.
    """

    model: str
    purpose: Purpose = "answer"
    status: CallStatus = "completed"
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    estimated: bool = False
    cost: int | None = None
    price: AppliedPrice | None = None
    prompt_cut: bool = False
