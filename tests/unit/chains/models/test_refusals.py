"""What a provider's refusal means, and what is told of it: to the caller, and to those who look for the cause."""

import base64
import json
from typing import Any

import pytest
from pydantic import SecretStr

from backend.chains.models import _refusals
from backend.chains.models._openai_chunks import StreamError
from backend.chains.models._refusals import refusal_of
from backend.chains.models.provider import Endpoint, Kind
from backend.config.groups.logs import LogSettings
from backend.config.logging import _processors
from backend.errors import RunError

KEY = "sk-0123456789-secret"
HOME = "https://api.example.com/v1"
ENDPOINT = Endpoint("work", Kind("openai", "a server"), "http://localhost:1/v1", SecretStr(KEY))
VENDOR = Endpoint("openai", Kind("openai", "a vendor", HOME), HOME, SecretStr(KEY))


def refused(status: int | None, body: object, endpoint: Endpoint = ENDPOINT, model: str = "big-1") -> RunError:
    text = body if isinstance(body, str) else json.dumps(body)
    return refusal_of(StreamError(status, text), model, endpoint)


def openai(message: str, kind: str | None = None, code: object = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


CONTEXT = [
    (
        400,
        openai("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."),
    ),
    (400, openai("Your input exceeds the context window of this model.", "invalid_request_error")),
    (400, openai("no words for it", "invalid_request_error", "context_length_exceeded")),
    (400, openai("input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000")),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 2 tokens > 1"}}),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "The input token count (9) exceeds the maximum number of tokens allowed (8)",
            }
        },
    ),
    (400, {"error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens."}),
    (400, openai("Please reduce the length of the messages or completion.")),
    (
        413,
        openai(
            "Request too large for model `x` on tokens per minute (TPM): Limit 6000", "tokens", "rate_limit_exceeded"
        ),
    ),
    (400, openai("Input is too long for requested model.")),
    (400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000"}),
    (
        400,
        openai(
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
        ),
    ),
    (400, openai("Invalid request: Your request exceeded model token limit: 8192")),
    (400, openai("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]")),
    (
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs`"},
    ),
    (422, {"error": "`inputs` must have less than 1024 tokens. Given: 2000", "error_type": "validation"}),
    (400, {"object": "error", "message": "The decoder prompt (length 5) is longer than the maximum model length of 4"}),
    (
        400,
        {
            "object": "error",
            "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        },
    ),
    (400, {"error": {"code": 400, "message": "x", "type": "exceed_context_size_error", "n_ctx": 4096}}),
    (
        500,
        {"error": {"code": 500, "message": "the request exceeds the available context size", "type": "server_error"}},
    ),
    (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length."}),
    (400, openai("Requested tokens (5000) exceed context window of 4096")),
    (500, {"error": "prompt too long; exceeded max context length by 12 tokens"}),
    (400, openai("litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException")),
    (413, openai("Request body too large for gpt-4o model. Max size: 8000 tokens.", code="tokens_limit_reached")),
    (None, openai("The prompt is too long: 5000, model maximum context length: 4096")),
    (None, {"error": {"code": 400, "message": "context_length_exceeded"}}),
]
ACCOUNT = [
    (402, openai("Insufficient credits", code=402)),
    (402, ""),
    (402, {"detail": "Payment required"}),
    (
        429,
        openai("You exceeded your current quota, please check your plan", "insufficient_quota", "insufficient_quota"),
    ),
    (400, openai("Your credit balance is too low to access the API.", "invalid_request_error")),
    (403, {"code": "permission", "error": "Your newly created team doesn't have any credits yet."}),
    (400, openai("Billing hard limit has been reached", "invalid_request_error", "billing_hard_limit_reached")),
    (400, {"code": "Arrearage", "message": "Access denied, make sure your account is in good standing."}),
    (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
]
RATE = [
    (429, openai("Too many tokens, please wait before trying again.", code="429")),
    (429, openai("This request would exceed the maximum context length per minute")),
    (429, openai("Request too large: prompt is too long for your tier", "tokens", "rate_limit_exceeded")),
    (429, ""),
    (429, "<html><title>429 Too Many Requests</title></html>"),
    (400, {"error": {"message": "ThrottlingException: Rate exceeded", "code": "ThrottlingException"}}),
    (500, {"error": {"message": "upstream", "code": 429}}),
    (None, {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}),
    (None, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "no"}}),
    (None, openai("Provider returned error", code=429)),
    (429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    (429, {"object": "error", "message": "Service tier capacity exceeded", "type": "service_tier_capacity_exceeded"}),
]
PASSING = [
    *((status, openai("no")) for status in (408, 409, 425, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)),
    *((status, "<html><h1>Bad gateway</h1></html>") for status in (408, 502, 503, 504, 520, 524)),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (None, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    (None, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}}),
    (424, {"error": "Request failed during generation", "error_type": "generation"}),
    (None, openai("The server had an error", "server_error")),
    (None, {"error": "something"}),
    (None, "error: out of memory"),
]
KEYS = [
    (401, openai("Incorrect API key provided", "invalid_request_error", "invalid_api_key")),
    (401, ""),
    (401, {"detail": "Unauthorized"}),
    (403, {"message": "Forbidden"}),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
            }
        },
    ),
    (400, {"error": {"message": "x", "type": "authentication_error"}}),
    (None, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
]
FILTERS = [
    (
        400,
        openai(
            "The response was filtered due to the prompt triggering the content management policy",
            None,
            "content_filter",
        ),
    ),
    (400, openai("Your request was rejected by the safety system", "image_error", "content_policy_violation")),
    (400, openai("Output blocked by content filtering policy", "invalid_request_error")),
    (403, {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}}),
    (403, {"code": "x", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}),
    (400, {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}),
    (400, openai("Content Exists Risk", "invalid_request_error")),
    (
        400,
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy", code="invalid_prompt"
        ),
    ),
    (None, openai("filtered", code="content_filter")),
]
MODELS = [
    (404, openai("The model `big-1` does not exist or you do not have access to it.", code="model_not_found")),
    (404, {"error": "model 'big-1' not found, try pulling it first"}),
    (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: big-1"}}),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}),
    (404, {"object": "error", "message": "The model `big-1` does not exist.", "type": "NotFoundError", "code": 404}),
    (400, {"object": "error", "message": "Invalid model: big-1", "type": "invalid_model", "code": "1500"}),
    (400, openai("Model Not Exist", "invalid_request_error")),
    (400, openai("The provided model identifier is invalid.")),
    (400, openai("big-1 is not a valid model ID", code=400)),
    (400, openai("The model `x` has been decommissioned", "invalid_request_error", "model_decommissioned")),
    (410, openai("The requested model is no longer available")),
    (None, {"error": {"code": 404, "message": "no"}}),
]
ADDRESSES = [
    (404, "404 page not found"),
    (404, "<html><head><title>404 Not Found</title></head></html>"),
    (404, {"detail": "Not Found"}),
    (404, {"error": "Not Found"}),
    (404, ""),
    (404, {"error": {"code": "404", "message": "Resource not found"}}),
    (404, {"message": "no Route matched with those values"}),
    (405, {"detail": "Method Not Allowed"}),
    (301, ""),
    (308, "<html></html>"),
    (400, "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"),
    (None, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
]
PAGES = [
    (403, "<html>Access to this site is blocked by the proxy</html>"),
    (403, "<!DOCTYPE html><title>Just a moment...</title>"),
    (401, "<html><title>Sign in</title><form></form></html>"),
    (407, "<html>Proxy authentication required</html>"),
]
REQUESTS = [
    (
        400,
        openai(
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens", param="max_tokens"
        ),
    ),
    (400, openai("max_tokens: 200000 > 8192, which is the maximum allowed number of output tokens for x")),
    (400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]")),
    (400, openai("Invalid value for temperature")),
    (422, {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "Field required"}]}),
    (400, "no"),
    (404, openai("No endpoints found that support image input", code=404)),
    (501, {"error": {"code": 501, "message": "This feature is not supported", "type": "not_supported_error"}}),
]


@pytest.mark.parametrize(
    ("code", "retryable", "message", "table"),
    [
        ("context_overflow", False, "", CONTEXT),
        ("rate_limited", True, "no quota or credit", ACCOUNT),
        ("rate_limited", True, "too many requests", RATE),
        ("provider_error", True, "The provider", PASSING),
        ("provider_error", False, "WORK_API_KEY", KEYS),
        ("content_filter", False, "", FILTERS),
        ("model_not_found", False, "big-1", MODELS),
        ("provider_error", False, "Check WORK_BASE_URL", ADDRESSES),
        ("provider_error", False, "A web page came", PAGES),
        ("provider_error", False, "refused the request", REQUESTS),
    ],
    ids=["context", "account", "rate", "passing", "key", "filter", "model", "address", "page", "request"],
)
def test_what_a_refusal_means(code: str, retryable: bool, message: str, table: list[tuple[int | None, object]]) -> None:
    wrong = [
        (status, body, error.code, error.retryable, error.text(with_advice=True))
        for status, body in table
        if ((error := refused(status, body)).code, error.retryable) != (code, retryable)
        or message not in error.text(with_advice=True)
    ]
    assert not wrong


def test_an_account_without_money_is_not_asked_again() -> None:
    assert {refused(status, body).retry_after for status, body in ACCOUNT} == {None}


def test_what_passes_is_asked_again() -> None:
    assert all(refused(status, body).retry_after is not None for status, body in [*PASSING, *RATE])


def test_at_the_vendors_own_address_a_missing_thing_is_the_model() -> None:
    assert refused(404, {"error": {"message": "nothing of that kind"}}, VENDOR).code == "model_not_found"
    assert "OPENAI_BASE_URL" in refused(404, "<html>404</html>", VENDOR).advice


def test_an_error_in_the_error_of_a_gateway_counts() -> None:
    raw = json.dumps(
        {"error": {"message": "prompt is too long: 5 tokens > 4 maximum", "type": "invalid_request_error"}}
    )
    gateway = {
        "error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "X"}}
    }
    error = refused(400, gateway)
    assert error.code == "context_overflow"
    assert error.detail == "Provider returned error prompt is too long: 5 tokens > 4 maximum"
    quoted = 'litellm.BadRequestError: AnthropicException - b\'{"error":{"type":"overloaded_error","message":"x"}}\''
    assert refused(500, openai(quoted)).retryable


class TestWait:
    """The seconds that a refusal asks to wait."""

    @pytest.mark.parametrize(
        ("body", "seconds"),
        [
            (openai("Rate limit reached. Please try again in 1.5s. Visit ..."), 1.5),
            (openai("Please retry in 34.07s."), 34.07),
            ({"error": {"code": 429, "details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "21s"}]}}, 21.0),
            (openai("Too many requests"), 0.0),
        ],
    )
    def test_it_is_read_from_the_error(self, body: object, seconds: float) -> None:
        assert refused(429, body).retry_after == seconds

    def test_the_header_wins(self) -> None:
        error = StreamError(429, json.dumps(openai("try again in 1.5s")), 7.0)
        assert refusal_of(error, "m", ENDPOINT).retry_after == 7.0


class TestDetail:
    """What the caller may see of the provider's words."""

    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            (f"Temperature must be 1 for {KEY}", "Temperature must be 1 for ***"),
            ("Incorrect API key provided: sk-ab***************wxyz. See", "Incorrect API key provided: *** See"),
            ("Incorrect API key provided: mine1234567.", "Incorrect API key provided: ***"),
            ("Authorization: Bearer abc.def-123", "Authorization: *** ***"),
            ("at https://user:pass@host/v1", "at https://host/v1"),
            ("key AIzaSyA1234567890abcdefg", "key ***"),
            ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln", "token ***"),
            ("it was 3f2a9c8e7d6b5a4f3e2d1c0b9a8f7e6d", "it was ***"),
            ("one\r\ntwo\x1b[31m\u2028three", "one two [31m three"),
            ("total tokens: 12000000 of 8192", "total tokens: 12000000 of 8192"),
        ],
    )
    def test_it_is_one_line_without_keys(self, said: str, shown: str) -> None:
        assert refused(400, openai(said)).detail == shown

    def test_it_is_short(self) -> None:
        detail = refused(400, openai("word " * 5_000)).detail
        assert detail is not None
        assert len(detail) <= 500
        assert detail.endswith("…")

    def test_of_a_page_it_is_the_title(self) -> None:
        page = "<html><head><title>Blocked</title><script>var x</script></head><h1>By the proxy</h1></html>"
        assert refused(403, page).detail == "Blocked By the proxy"

    def test_the_headers_of_the_settings_are_secret(self) -> None:
        login = "Basic " + base64.b64encode(b"me:hunter22").decode()
        endpoint = Endpoint("w", Kind("openai", "s"), "http://h/v1", None, {"x-team": "sesame-open"}, login=login)
        assert refused(400, "sesame-open hunter22", endpoint).detail == "*** ***"


def test_the_log_has_its_words_and_the_message_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, Any]] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            logged.append({"event": event, **fields})

    monkeypatch.setattr(_refusals, "log", Log())
    refusal = refused(400, f"Temperature must be 1 for {KEY}", model="m")
    assert "emperature must" not in refusal.message
    assert logged == [
        {
            "event": "provider_refused",
            "model": "work/m",
            "status": 400,
            "code": "provider_error",
            "said": "Temperature must be 1 for ***",
        }
    ]


@pytest.mark.parametrize("allowed", [False, True])
def test_the_words_are_written_unless_that_is_forbidden(allowed: bool) -> None:
    settings = LogSettings(_env_file=None, log_format="json", log_provider_text=allowed)  # pyright: ignore[reportCallIssue]
    shared, _ = _processors(settings)
    event: Any = {"event": "provider_refused", "said": "No."}
    for processor in shared:
        event = processor(None, "info", event)
    assert ("said" in event) is allowed
