"""Which parameters a refusal names."""

import json
from typing import Any

import pytest

from backend.chains.models._error_bodies import read_error_body
from backend.chains.models._meanings import RefusedCall
from backend.chains.models._refused_parameters import refused_parameters


def named(body: object, status: int | None = 400) -> set[str]:
    return set(refused_parameters(RefusedCall(status, read_error_body(json.dumps(body)), "m")))


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


INSTEAD = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
EXTRA = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
TWO_EXTRA = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': 'Extra inputs are not permitted'}"
)
TWO_EXTRA += ", {'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]"


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (openai(INSTEAD, "max_tokens", "unsupported_parameter"), {"max_tokens"}),
        (openai(INSTEAD), {"max_tokens"}),
        (
            openai(f"[openai/gpt-5] [400]: {json.dumps(openai(INSTEAD, 'max_tokens'))} (reset after 30s)"),
            {"max_tokens"},
        ),
        ({"object": "error", "message": TWO_EXTRA, "code": 400}, {"max_completion_tokens", "seed"}),
        ({"detail": [EXTRA]}, {"stream_options"}),
        (openai("Unrecognized request argument supplied: max_completion_tokens"), {"max_completion_tokens"}),
        (openai("Extra inputs are not permitted, field: 'stream_options', value: {}"), {"stream_options"}),
        (openai('json: unknown field "stream_options"'), {"stream_options"}),
        (
            openai("'temperature' does not support 0.7 with this model. Only the default (1) value is supported."),
            {"temperature"},
        ),
        (openai("invalid temperature: only 1 is allowed for this model"), {"temperature"}),
        (openai("`temperature` may only be set to 1 when thinking is enabled."), {"temperature"}),
        (openai("Temperature must be 1 for this model"), {"temperature"}),
        (openai("`temperature` is deprecated for this model."), {"temperature"}),
        (openai("`temperature` and `top_p` cannot both be specified for this model."), {"top_p"}),
        (openai("property 'seed' is unsupported"), {"seed"}),
        (openai("litellm.UnsupportedParamsError: x does not support parameters: ['seed'], for model=m"), {"seed"}),
        (
            {
                "error": {
                    "code": 400,
                    "message": 'Unknown name "seed": Cannot find field.',
                    "status": "INVALID_ARGUMENT",
                }
            },
            {"seed"},
        ),
        (openai("Malformed input request: #: extraneous key [top_p] is not permitted"), {"top_p"}),
        ({"code": "x", "error": "Model m does not support parameter stop."}, {"stop"}),
        ({"error": '"llama2" does not support thinking'}, {"reasoning_effort"}),
        (openai("Thinking level is not supported for this model."), {"reasoning_effort"}),
        (openai("This response_format type is unavailable now"), {"response_schema"}),
        (
            openai(
                "'messages[0].role' does not support 'system' with this model", "messages[0].role", "unsupported_value"
            ),
            {"system"},
        ),
        (openai("System role not supported"), {"system"}),
        (openai("Only user and assistant roles are supported!"), {"system"}),
        (openai("Developer instruction is not enabled for models/gemma-3-27b-it"), {"system"}),
        (openai("Conversation roles must alternate user/assistant/user/assistant/..."), {"system"}),
        (openai("Unexpected role 'developer'"), {"system"}),
    ],
)
def test_it_is_named(body: object, names: set[str]) -> None:
    assert named(body) == names


@pytest.mark.parametrize(
    "body",
    [
        openai("Invalid value for 'temperature': must be between 0 and 2", "temperature", "invalid_value"),
        openai("temperature 1.7 is not allowed: it must be less than or equal to 1"),
        openai("temperature must be 1 or less"),
        openai("max_tokens is too large: 100000. This model supports at most 16384 completion tokens", "max_tokens"),
        openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        openai("Image input is not supported"),
        openai("The seed bank is full"),
        openai("prompt is too long: 9 tokens > 8 maximum; temperature not supported"),
        openai("Your system is not healthy"),
    ],
)
def test_what_names_none(body: object) -> None:
    assert named(body) == set()


@pytest.mark.parametrize("status", [401, 403, 408, 429, 502, 503])
def test_only_a_refusal_of_the_request_counts(status: int) -> None:
    assert named(openai("'seed' is not supported"), status) == set()


def test_a_template_that_fails_is_the_servers_own_error() -> None:
    assert named(openai("System role not supported"), 500) == {"system"}
