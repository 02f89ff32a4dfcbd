"""Token counts as providers report them. Each is checked here, where it enters: a nonsense count is no count."""

from collections.abc import Mapping
from typing import Any, cast

from backend.chains.models.prompt import Tokens

MAX_COUNT = 2**53
"""The largest count that every JSON reader keeps exactly."""


def count_in(value: Any) -> int | None:
    """A reported count of tokens, 0 to 2^53; None if the value isn't one."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Neither infinity nor NaN is within these bounds.
    return int(value) if 0 <= value <= MAX_COUNT else None


def counts_in(usage: Any) -> dict[str, Any]:
    """The fields of a vendor's usage that are counts, also of objects in it; what is anything else is left out."""
    if not isinstance(usage, dict):
        return {}
    found: dict[str, Any] = {}
    for name, value in cast(dict[str, Any], usage).items():
        if isinstance(value, dict):
            found[name] = counts_in(value)
        elif (number := count_in(value)) is not None:
            found[name] = number
    return found


def tokens_in(usage: Any) -> Tokens | None:
    """The `usage` of OpenAI's API, in the names of all servers that speak it; None if it counts nothing.

    `total_tokens` may say more than the parts: that is reasoning which the server doesn't count as completion.
    """
    if not isinstance(usage, dict):
        return None
    fields = cast(dict[str, Any], usage)
    read = _details(fields, "prompt_tokens_details", "input_tokens_details")
    written = _details(fields, "completion_tokens_details", "output_tokens_details")
    cached = _first(
        # OpenAI; DeepSeek; Moonshot; Anthropic behind a gateway.
        (read, "cached_tokens"),
        (fields, "prompt_cache_hit_tokens"),
        (fields, "cached_tokens"),
        (fields, "cache_read_input_tokens"),
    )
    counted = combined(
        prompt=_first((fields, "prompt_tokens"), (fields, "input_tokens")),
        completion=_first((fields, "completion_tokens"), (fields, "output_tokens")),
        total=count_in(fields.get("total_tokens")),
        reasoning=_first((written, "reasoning_tokens"), (fields, "reasoning_tokens")),
        cached=cached,
    )
    return counted if counted.input or counted.output else None


def combined(
    prompt: int | None, completion: int | None, total: int | None, reasoning: int | None, cached: int | None
) -> Tokens:
    """The tokens that these counts say together; the output includes the reasoning."""
    read, written = prompt or 0, completion or 0
    thought = reasoning or 0
    if not read and not written:
        return Tokens(0, 0)
    surplus = (total or read + written) - read - written
    is_doubtful = surplus < 0
    if completion is None and prompt is not None:
        written = max(surplus, 0)
    elif prompt is None and completion is not None:
        read = max(surplus, 0)
    elif surplus > thought and surplus == cached:
        # A gateway that doesn't count as prompt what was read from the cache.
        read += surplus
    elif surplus > 0:
        # xAI counts reasoning beside the completion; at Gemini's OpenAI endpoint no field names it.
        written += surplus
        reasoning = max(thought, surplus) if completion else reasoning
    elif thought > written and not total:
        written += thought
    if cached and cached > read:
        # Anthropic's way of counting, behind a gateway.
        read += cached
    is_doubtful |= (reasoning or 0) > written
    return Tokens(
        input=min(read, MAX_COUNT),
        output=min(written, MAX_COUNT),
        reasoning=None if reasoning is None else min(reasoning, written),
        cached=None if cached is None else min(cached, read),
        is_doubtful=is_doubtful,
    )


def later(before: Tokens | None, now: Tokens | None) -> Tokens | None:
    """The counts of a stream that reports them several times: the last ones, but a zero never replaces a figure."""
    if before is None or now is None:
        return now or before
    return Tokens(
        input=now.input or before.input,
        output=now.output or before.output,
        reasoning=now.reasoning or before.reasoning,
        cached=now.cached or before.cached,
        is_doubtful=now.is_doubtful,
    )


def _details(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if isinstance(value := fields.get(name), dict):
            return cast(dict[str, Any], value)
    return {}


def _first(*places: tuple[Mapping[str, Any], str]) -> int | None:
    """The first of these counts that is there; one above zero comes before a zero."""
    counts = [number for fields, name in places if (number := count_in(fields.get(name))) is not None]
    return next((number for number in counts if number), counts[0] if counts else None)
