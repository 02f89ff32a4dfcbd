"""How long a provider asks to wait: in headers, in fields of its error, or in a sentence."""

import re
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import cast

MAX_WAIT = 86_400.0
"""Seconds. Whatever is longer, or no number, is as good as a day."""
_MAX_TEXT = 20_000
_EPOCH, _EPOCH_MS = 1e9, 1e12
"""Numbers from here on are times, not durations: seconds and milliseconds since 1970."""

_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
_UNIT = r"milliseconds?|ms|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|days?|d"
_SPAN = re.compile(rf"({_NUMBER})\s*({_UNIT})?(?![a-z\d])|({_NUMBER})({_UNIT})(?=\d)", re.I)
_SECONDS = {"mi": 60.0, "ms": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0, "d": 86_400.0}
_AGAIN = re.compile(
    r"(?:try(?:ing)? (?:this |your request )?again|retry(?:ing)?|wait(?:ing)?|available again|resets?)\b[^.\d]{0,60}?"
    rf"((?:{_NUMBER}\s*(?:{_UNIT})(?![a-z])[\s,]*(?:and )?)+)",
    re.I,
)
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens", "requests-day", "tokens-minute", "requests-minute")


def wait_in_headers(headers: Mapping[str, str]) -> float | None:
    """The seconds that a refusal's headers ask to wait, at most a day; None if they ask for nothing.

    `retry-after-ms` and `Retry-After` come first, then the reset of each limit that is used up.
    """
    fields = {name.lower(): str(value).strip() for name, value in headers.items()}
    milliseconds = seconds_of(fields.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    for name in ("retry-after", "x-retry-after"):
        if (wait := _until(fields.get(name, ""))) is not None:
            return _bounded(wait)
    return _reset(fields)


def wait_in_text(text: str) -> float | None:
    """The seconds that a sentence asks to wait, like `Please try again in 1.5s`; None if it asks for nothing."""
    match = _AGAIN.search(text[:_MAX_TEXT])
    wait = seconds_of(match.group(1).strip(" ,\n")) if match is not None else None
    return None if wait is None else _bounded(wait)


def seconds_of(value: object) -> float | None:
    """The seconds of a duration: a number, or a text like `20`, `1.5s`, `6m0s`, `120ms` or `2 minutes`; None for
    anything else."""
    if isinstance(value, Mapping):
        # Google's Duration, as some clients write it.
        return seconds_of(cast("Mapping[str, object]", value).get("seconds"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value <= 1e15 else None
    if not isinstance(value, str) or not 0 < len(value) <= 60:
        return None
    text = value.strip().lower()
    if re.sub(r"[\s,]|and", "", _SPAN.sub("", text)):
        return None
    spans = [match.group(1, 2) if match.group(1) else match.group(3, 4) for match in _SPAN.finditer(text)]
    return sum(float(number) * _unit(unit or "s") for number, unit in spans) if spans else None


def _unit(unit: str) -> float:
    if unit.startswith("milli"):
        return 0.001
    return _SECONDS.get(unit[:2]) or _SECONDS[unit[0]]


def _until(value: str) -> float | None:
    """The seconds until a header's time: a duration, a date, or a moment since 1970."""
    seconds = seconds_of(value)
    if seconds is not None:
        if seconds >= _EPOCH_MS:
            return seconds / 1000 - time.time()
        return seconds - time.time() if seconds >= _EPOCH else seconds
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError, OSError):
        pass
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return None


def _reset(fields: Mapping[str, str]) -> float | None:
    """The longest wait for a limit of which nothing remains. A limit that doesn't say what remains counts too, if it is
    the only one."""
    waits: list[float] = []
    for prefix in ("x-ratelimit-", "ratelimit-", "anthropic-ratelimit-"):
        for name in _LIMITS:
            reset = fields.get(f"{prefix}reset-{name}") or fields.get(f"{prefix}{name}-reset")
            remaining = fields.get(f"{prefix}remaining-{name}") or fields.get(f"{prefix}{name}-remaining")
            if reset and remaining is not None and remaining in ("0", "0.0"):
                waits += [wait] if (wait := _until(reset)) is not None else []
        if (reset := fields.get(f"{prefix}reset")) and fields.get(f"{prefix}remaining", "0") == "0":
            waits += [wait] if (wait := _until(reset)) is not None else []
    return _bounded(max(waits)) if waits else None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), MAX_WAIT) if isfinite(seconds) else MAX_WAIT
