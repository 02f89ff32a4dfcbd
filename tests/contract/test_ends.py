"""When an answer is complete, and when it isn't, on every protocol: one table of reasons, and no waiting for the end of
a connection."""

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.conftest import SharedServers
from tests.contract.protocols import (
    PROTOCOLS,
    AnthropicProtocol,
    CohereProtocol,
    GoogleProtocol,
    OllamaProtocol,
    OpenAIProtocol,
    ProviderProtocol,
    failed,
)
from tests.scenarios.support import ask, only_terminal, ordered
from tests.support.harness import Running, text_of
from tests.support.provider_protocol import (
    Cut,
    Send,
    Stall,
    Status,
    Step,
    answer,
    chunk,
    completion,
    done,
    json_response,
    ollama_answer,
    ollama_line,
    usage_chunk,
)
from tests.support.provider_server import ProviderServer
from tests.support.provider_vendors import (
    anthropic_answer,
    anthropic_begun,
    anthropic_event,
    cohere_answer,
    cohere_begun,
    cohere_event,
    google_answer,
    google_chunk,
    google_frame,
)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("used_protocols"),
    # Vendors' SDKs warn of words that they don't know.
    pytest.mark.filterwarnings("ignore:.*is not a valid|Received unexpected tool"),
]
every = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
OPENAI = OpenAIProtocol()


@pytest_asyncio.fixture(loop_scope="module")
async def server(protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers) -> Running:
    return await shared.with_settings(**protocol.settings(provider))


async def asked(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, script: list[Step], **fields: Any
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The text, the usage and the terminal event of one answer."""
    provider.script(script)
    server = await shared.with_settings(**protocol.settings(provider))
    async with asyncio.timeout(10):
        events = await server.events(ask(**fields))
    ordered(events)
    usage = next((event for event in events if event["type"] == "usage"), {})
    return text_of(events), usage, only_terminal(events)


def finished(protocol: ProviderProtocol, reason: str) -> list[Step]:
    """An answer that the provider ends with this reason."""
    text = "Half an answer"
    match protocol:
        case OpenAIProtocol():
            return answer(text, finish=reason)
        case OllamaProtocol():
            return ollama_answer(text, finish=reason)
        case AnthropicProtocol():
            return anthropic_answer(text, finish=reason)
        case GoogleProtocol():
            return google_answer(text, finish=reason)
        case CohereProtocol():
            return cohere_answer(text, finish=reason)


def uncounted(protocol: ProviderProtocol) -> list[Step]:
    """A whole answer without usage, and without any mark of its end but the finish reason."""
    text = "It is so."
    match protocol:
        case OpenAIProtocol():
            return answer(text, usage=False)[:-1]
        case OllamaProtocol():
            return [*protocol.begun(text), ollama_line("", done=True, done_reason="stop")]
        case AnthropicProtocol():
            delta = {"stop_reason": "end_turn"}
            return [*anthropic_begun(("text", text)), anthropic_event("message_delta", delta=delta)]
        case GoogleProtocol():
            return [google_chunk({"text": text}), google_chunk({"text": ""}, finish="STOP")]
        case CohereProtocol():
            return [*cohere_begun(text), cohere_event("message-end", id="x", delta={"finish_reason": "COMPLETE"})]


# --- the connection


@every
@pytest.mark.parametrize("last", [Stall(), Cut(), Cut(reset=False)], ids=["open", "reset", "closed"])
async def test_an_answer_that_has_ended_is_complete(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, last: Step
) -> None:
    text, usage, end = await asked(protocol, provider, shared, [*protocol.whole("It is so."), last])
    assert (text, end["type"], end.get("finish_reason")) == ("It is so.", "run.completed", "stop")
    assert (usage["input_tokens"], usage.get("estimated", False)) == (7, False)


@every
@pytest.mark.parametrize("last", [Stall(), Cut(), Cut(reset=False)], ids=["open", "reset", "closed"])
async def test_usage_is_waited_for_shortly(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, last: Step
) -> None:
    text, usage, end = await asked(protocol, provider, shared, [*uncounted(protocol), last])
    assert (text, end["type"]) == ("It is so.", "run.completed")
    assert usage["estimated"] is True
    assert usage["output_tokens"] > 0


async def test_usage_that_comes_after_the_finish_reason_is_counted(
    provider: ProviderServer, shared: SharedServers
) -> None:
    script = [chunk({"content": "So."}), chunk({}, "stop"), usage_chunk(11, 2), Stall()]
    _, usage, end = await asked(OPENAI, provider, shared, script)
    assert end["type"] == "run.completed"
    assert (usage["input_tokens"], usage["output_tokens"], usage.get("estimated", False)) == (11, 2, False)


async def test_a_finish_reason_in_each_chunk_ends_nothing(provider: ProviderServer, shared: SharedServers) -> None:
    script = [chunk({"content": word}, "stop") for word in ("one ", "two ", "three")]
    assert (await asked(OPENAI, provider, shared, [*script, done()]))[0] == "one two three"
    script = [chunk({"content": word}, reason) for word, reason in (("one ", ""), ("two", "null"))]
    text, _, end = await asked(OPENAI, provider, shared, script)
    assert (text, end["type"]) == ("one two", "run.failed"), "these words are no reasons"


async def test_the_connection_is_kept_for_the_next_answer(provider: ProviderServer, shared: SharedServers) -> None:
    before = provider.open_connections
    for _ in range(3):
        assert (await asked(OPENAI, provider, shared, OPENAI.whole("So.")))[2]["type"] == "run.completed"
    assert provider.open_connections <= before + 1


async def test_garbage_after_the_end_is_nothing(provider: ProviderServer, shared: SharedServers) -> None:
    whole = answer("So.")[:-1]
    text, _, end = await asked(OPENAI, provider, shared, [*whole, Send(b"data: {oops\n\n"), Send(b"data: {\n\n")])
    assert (text, end["type"]) == ("So.", "run.completed")


# --- the reasons

# The whole table: tests/unit/chains/models/test_finishes.py


@every
@pytest.mark.parametrize("reason", ["error", "NETWORK_ERROR", "abort"])
async def test_reasons_that_mean_failure(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, reason: str
) -> None:
    script = finished(protocol, reason)
    await failed(server, provider, script, "provider_error", retryable=True, kept="Half an answer")


@every
@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "refusal"])
async def test_reasons_that_mean_a_filter(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, reason: str
) -> None:
    script = finished(protocol, reason)
    await failed(server, provider, script, "content_filter", retryable=False, kept="Half an answer")


@every
@pytest.mark.parametrize(
    ("reason", "ours"),
    [("STOP", "stop"), ("eos_token", "stop"), ("MAX_TOKENS", "length"), ("something_new", "something_new")],
)
async def test_reasons_of_complete_answers(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, reason: str, ours: str
) -> None:
    _, _, end = await asked(protocol, provider, shared, finished(protocol, reason))
    assert (end["type"], end.get("finish_reason")) == ("run.completed", ours)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": 429, "message": "Rate limit exceeded"}, "rate_limited"),
        ({"code": 502, "message": "Upstream"}, "provider_error"),
        ({"code": "content_filter", "message": "no"}, "content_filter"),
    ],
)
async def test_an_error_inside_a_choice(
    error: dict[str, Any], code: str, provider: ProviderServer, shared: SharedServers
) -> None:
    choice = {"index": 0, "delta": {"content": "an answer"}, "finish_reason": "error", "error": error}
    last = Send(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    text, _, end = await asked(OPENAI, provider, shared, [chunk({"content": "Half "}), last, done()])
    assert (text, end["error"]["code"]) == ("Half an answer", code)


async def test_a_gateway_that_hides_the_models_own_reason(provider: ProviderServer, shared: SharedServers) -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "SAFETY"}
    last = Send(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    _, _, end = await asked(OPENAI, provider, shared, [chunk({"content": "Half"}), last, done()])
    assert end["error"]["code"] == "content_filter"


async def test_a_prompt_that_google_blocks_by_any_word(provider: ProviderServer, shared: SharedServers) -> None:
    for reason in ("OTHER", "JAILBREAK", "MODEL_ARMOR", "SOMETHING_NEW"):
        script: list[Step] = [google_frame({"promptFeedback": {"blockReason": reason}})]
        _, _, end = await asked(GoogleProtocol(), provider, shared, script)
        assert end["error"]["code"] == "content_filter", reason


# --- refusals, tool calls, [DONE]


async def test_the_words_of_a_refusal_are_shown(provider: ProviderServer, shared: SharedServers) -> None:
    script = [chunk({"content": "Well, ", "refusal": "I can't "}), chunk({"refusal": "help."}), chunk({}, "stop")]
    text, usage, end = await asked(OPENAI, provider, shared, [*script, usage_chunk(7, 5), done()])
    assert (text, end["error"]["code"], end["error"]["retryable"]) == ("Well, I can't help.", "content_filter", False)
    assert usage["output_tokens"] == 5


async def test_the_refusal_of_a_whole_answer_is_shown(provider: ProviderServer, shared: SharedServers) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I can't help."}
    script: list[Step] = [json_response(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})]
    text, _, end = await asked(OPENAI, provider, shared, script)
    assert (text, end["error"]["code"]) == ("I can't help.", "content_filter")


def calls(protocol: ProviderProtocol) -> list[Step]:
    """An answer of a tool call alone."""
    match protocol:
        case OpenAIProtocol():
            call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            return [chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), usage_chunk(7, 4), done()]
        case OllamaProtocol():
            message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
            return [protocol.begun("")[0], ollama_line("", message=message), *ollama_answer("")[1:]]
        case AnthropicProtocol():
            block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
            start = anthropic_event("content_block_start", index=0, content_block=block)
            return [anthropic_begun()[0], start, *anthropic_answer("", finish="tool_use")[-2:]]
        case GoogleProtocol():
            return [google_chunk({"functionCall": {"name": "f", "args": {}}}, finish="STOP")]
        case CohereProtocol():
            call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            start = cohere_event("tool-call-start", index=0, delta={"message": {"tool_calls": call}})
            ends = [cohere_event("tool-call-end", index=0), cohere_answer("", finish="TOOL_CALL")[-1]]
            return [cohere_begun("")[0], start, *ends]


@every
async def test_tool_calls_alone_are_no_answer(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    await failed(server, provider, calls(protocol), "provider_error", retryable=True)


async def test_content_beside_tool_calls_is_the_answer(provider: ProviderServer, shared: SharedServers) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    script = [chunk({"content": "So", "tool_calls": [call]}), chunk({"content": "."}, "tool_calls"), done()]
    text, _, end = await asked(OPENAI, provider, shared, script)
    assert (text, end["type"], end.get("finish_reason")) == ("So.", "run.completed", "tool_calls")


async def test_a_closed_stream_with_usage_needs_no_reason(provider: ProviderServer, shared: SharedServers) -> None:
    script = [chunk({"content": "So."}), usage_chunk(7, 2), done()]
    text, _, end = await asked(OPENAI, provider, shared, script)
    assert (text, end["type"], end.get("finish_reason")) == ("So.", "run.completed", "stop")


async def test_a_closed_stream_without_either_says_what_happened(
    provider: ProviderServer, shared: SharedServers
) -> None:
    text, _, end = await asked(OPENAI, provider, shared, [chunk({"content": "So."}), done()])
    assert (text, end["error"]["code"], end["error"]["retryable"]) == ("So.", "provider_error", True)
    assert "without saying why" in end["error"]["message"]


# --- an answer that is no stream


def whole_json(protocol: ProviderProtocol) -> Any:
    """The answer that the server gives to a request without `stream`."""
    counts = {"input_tokens": 7, "output_tokens": 3}
    match protocol:
        case OpenAIProtocol():
            (sent,) = completion("It is so.")
            assert isinstance(sent, Status) and sent.body is not None
            return json.loads(sent.body)
        case OllamaProtocol():
            message = {"role": "assistant", "content": "It is so."}
            counted = {"prompt_eval_count": 7, "eval_count": 3}
            return {"model": "m", "message": message, "done": True, "done_reason": "stop", **counted}
        case AnthropicProtocol():
            content = [{"type": "text", "text": "It is so."}]
            head = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": content}
            return {**head, "stop_reason": "end_turn", "stop_sequence": None, "usage": counts}
        case GoogleProtocol():
            candidate = {"content": {"parts": [{"text": "It is so."}], "role": "model"}, "finishReason": "STOP"}
            usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
            return {"candidates": [candidate], "usageMetadata": usage}
        case CohereProtocol():
            message = {"role": "assistant", "content": [{"type": "text", "text": "It is so."}]}
            return {"id": "x", "finish_reason": "COMPLETE", "message": message, "usage": {"billed_units": counts}}


@every
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
async def test_a_whole_answer_is_read(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, indent: int | None, kind: str
) -> None:
    body = json.dumps(whole_json(protocol), indent=indent).encode()
    script: list[Step] = [Status(200, {"Content-Type": kind}, body)]
    text, usage, end = await asked(protocol, provider, shared, script)
    assert (text, end["type"], end.get("finish_reason")) == ("It is so.", "run.completed", "stop")
    assert (usage["input_tokens"], usage["output_tokens"]) == (7, 3)


async def test_an_array_of_chunks_is_read(provider: ProviderServer, shared: SharedServers) -> None:
    """What Gemini sends without `alt=sse`."""
    chunks = [json.loads(step.data[6:]) for step in google_answer("It is so.") if isinstance(step, Send)]
    body = json.dumps(chunks, indent=1).encode()
    script: list[Step] = [Status(200, {"Content-Type": "application/json"}, body)]
    assert (await asked(GoogleProtocol(), provider, shared, script))[0] == "It is so."
