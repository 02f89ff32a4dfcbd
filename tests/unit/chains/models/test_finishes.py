"""The one table of finish reasons: every word that a vendor has published, in any spelling."""

import pytest

from backend.chains.models._finishes import Ending, end_kind, known_reason, reason_in
from backend.chains.models.prompt import Finish, Tokens
from backend.errors import ContentFiltered, ProviderFailed

FAILED = """
    error ERROR error_finish network_error insufficient_system_resource abort aborted cancelled canceled USER_CANCEL
    timeout TIMEOUT upstream-error api_error ERROR_LIMIT generation_failed pause_turn MALFORMED_FUNCTION_CALL
    MALFORMED_RESPONSE malformedFunctionCall UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE OTHER
    NO_IMAGE IMAGE_OTHER FinishReason.OTHER preempted overloaded
"""
FILTERED = """
    content_filter CONTENT_FILTER Content-Filter contentFilter content-filter sensitive SAFETY safety refusal
    PROHIBITED_CONTENT prohibited_content BLOCKLIST RECITATION SPII IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT LANGUAGE
    MODEL_ARMOR ERROR_TOXIC data_inspection_failed guardrail_intervened content_policy_violation
"""
STOPPED = "stop STOP end_turn endTurn stop_sequence STOP_SEQUENCE eos eos_token COMPLETE completed FinishReason.STOP"
CUT = "length LENGTH max_tokens MAX_TOKENS max_output_tokens model_length model_context_window_exceeded"
CALLED = "tool_calls tool_use TOOL_CALL toolUse"
NONE = [None, "", " ", "null", "None", False, 0, "FINISH_REASON_UNSPECIFIED", {}, {"type": None}]


@pytest.mark.parametrize("reason", FAILED.split())
def test_failures(reason: str) -> None:
    assert end_kind(reason) == "failed"


@pytest.mark.parametrize("reason", FILTERED.split())
def test_filters(reason: str) -> None:
    assert end_kind(reason) == "filtered"


@pytest.mark.parametrize(("words", "ours"), [(STOPPED, "stop"), (CUT, "length"), (CALLED, "tool_calls")])
def test_complete(words: str, ours: str) -> None:
    assert {(end_kind(word), known_reason(word)) for word in words.split()} == {("complete", ours)}


@pytest.mark.parametrize("reason", ["load", "compaction", "Something-New", "repetition", "schwupp"])
def test_an_unknown_word_is_no_failure_and_stays(reason: str) -> None:
    assert (end_kind(reason), known_reason(reason)) == ("complete", reason.lower())


@pytest.mark.parametrize("value", NONE)
def test_what_says_that_the_answer_goes_on(value: object) -> None:
    assert reason_in(value) is None


@pytest.mark.parametrize(
    ("value", "reason"), [({"type": "stop", "matched": 2}, "stop"), (True, "True"), (3, "3"), ("x" * 999, "x" * 60)]
)
def test_odd_reasons(value: object, reason: str) -> None:
    assert reason_in(value) == reason


def test_what_was_counted_of_a_failed_answer_counts_only_if_something_came() -> None:
    ending = Ending()
    ending.reason, ending.tokens = "error", Tokens(7, 1)
    outputs = ending.outputs()
    with pytest.raises(ProviderFailed):
        next(outputs)
    ending.has_text = True
    outputs = ending.outputs()
    assert next(outputs) == Tokens(7, 1)
    with pytest.raises(ProviderFailed):
        next(outputs)


def test_a_refusal_wins_over_a_normal_end() -> None:
    ending = Ending()
    ending.reason = "stop"
    assert list(ending.outputs()) == [Finish("stop")]
    ending.is_refused = True
    with pytest.raises(ContentFiltered):
        list(ending.outputs())
