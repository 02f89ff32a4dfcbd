"""How long a provider asks to wait, in all the ways in which that is said."""

import time
from email.utils import formatdate

import pytest

from backend.chains.models._waits import MAX_WAIT, seconds_of, wait_in_headers, wait_in_text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after": "20s"}, 20.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1m30s"}, 90.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "99999999"}, MAX_WAIT),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, MAX_WAIT),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "9"}, None),
        ({"x-ratelimit-reset-tokens": "120ms", "x-ratelimit-remaining-tokens": "0"}, 0.12),
        ({"X-RateLimit-Reset": "30"}, 30.0),
        ({"X-RateLimit-Reset": "30", "X-RateLimit-Remaining": "5"}, None),
        ({"RateLimit-Reset": "7"}, 7.0),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_in_headers(headers) == seconds


@pytest.mark.parametrize("factor", [1, 1_000])
def test_a_reset_may_be_a_moment(factor: int) -> None:
    """OpenRouter counts milliseconds since 1970, others seconds."""
    wait = wait_in_headers({"X-RateLimit-Reset": str(int((time.time() + 100) * factor))})
    assert wait is not None
    assert 90 < wait <= 100


def test_a_time_may_be_a_date_of_either_kind() -> None:
    soon = time.time() + 100
    iso = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon))
    limit = {"anthropic-ratelimit-requests-reset": iso, "anthropic-ratelimit-requests-remaining": "0"}
    for headers in ({"Retry-After": formatdate(soon, usegmt=True)}, limit):
        wait = wait_in_headers(headers)
        assert wait is not None
        assert 90 < wait <= 100


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.5s. Visit us.", 1.5),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 120ms", 0.12),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Retry after 20 seconds", 20.0),
        ("please wait 1 hour and 2 minutes", 3720.0),
        ("(reset after 30s)", 30.0),
        ("Try again later.", None),
        ("You asked for 30 tokens, wait", None),
        ("", None),
    ],
)
def test_sentences(text: str, seconds: float | None) -> None:
    assert wait_in_text(text) == seconds


@pytest.mark.parametrize("value", [None, True, "", "x", "1x", -1, float("nan"), float("inf"), [], {}, "9" * 61])
def test_what_is_no_duration(value: object) -> None:
    assert seconds_of(value) is None


def test_a_duration_of_google() -> None:
    assert seconds_of({"seconds": 3, "nanos": 0}) == 3.0
