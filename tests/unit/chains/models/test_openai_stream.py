"""The lean ChatOpenAI is still a LangChain chat model, and reads every stream like the library."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from backend.chains.models._chat_messages import chat_messages
from backend.chains.models._openai_chunks import Other, StreamError
from backend.chains.models._openai_reader import StreamReader
from backend.chains.models._openai_stream import ServerConnection, StreamingChatOpenAI
from backend.chains.models.openai import PLUGIN, _traced
from backend.chains.models.prompt import (
    Finish,
    Message,
    Parameters,
    Prompt,
    Reasoning,
    Text,
    Tokens,
)
from backend.chains.models.provider import Endpoint
from backend.config.groups.models import ModelSettings
from backend.kit.network.aiohttp_session import StreamSession
from backend.kit.network.network import DIRECT
from tests.support.provider_protocol import (
    Gate,
    Send,
    Status,
    answer,
    chunk,
    done,
    error_in_stream,
    usage_chunk,
)
from tests.support.provider_server import ProviderServer

PARAMETERS = Parameters(max_tokens=50, temperature=1.0)


def stream(*steps: Any) -> bytes:
    return b"".join(step.data for step in steps if isinstance(step, Send))


SAMPLE = stream(
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "hm "}),
    chunk({"content": "Grüße, "}),
    chunk({"content": "Welt 🌍"}),
    chunk({}, "stop"),
    usage_chunk(7, 3),
    done(),
)


def merged(outputs: list[Any]) -> list[Any]:
    """Neighbouring texts as one: how the reads fell must not matter."""
    found: list[Any] = []
    for output in outputs:
        if isinstance(output, Text) and found and isinstance(found[-1], Text):
            found[-1] = Text(found[-1].text + output.text)
        else:
            found.append(output)
    return found


def test_one_read_gives_merged_text() -> None:
    reader = StreamReader()
    assert list(reader.feed(SAMPLE)) == [Reasoning("hm "), Text("Grüße, Welt 🌍")]
    assert (list(reader.ending.outputs()), reader.is_done) == ([Tokens(7, 3), Finish("stop")], True)


def test_a_stream_cut_at_any_byte_reads_the_same() -> None:
    whole = merged(list(StreamReader().feed(SAMPLE)))
    for cut in range(len(SAMPLE)):
        reader = StreamReader()
        assert merged([*reader.feed(SAMPLE[:cut]), *reader.feed(SAMPLE[cut:])]) == whole


def test_crlf_comments_and_event_lines_are_read_over() -> None:
    dressed = b": hello\r\n\r\nevent: message\r\n" + SAMPLE.replace(b"\n", b"\r\n")
    assert merged(list(StreamReader().feed(dressed))) == merged(list(StreamReader().feed(SAMPLE)))


def test_an_error_inside_the_stream_is_raised_with_what_decides() -> None:
    outputs = StreamReader().feed(stream(chunk({"content": "Half"}), error_in_stream(code="context_length_exceeded")))
    assert next(outputs) == Text("Half")
    with pytest.raises(StreamError) as raised:
        next(outputs)
    assert "context_length_exceeded" in raised.value.words


def test_a_line_without_an_end_is_given_up() -> None:
    reader = StreamReader()
    with pytest.raises(ValueError, match="without an end"):
        for _ in range(10):
            list(reader.feed(b"x" * 1_000_000))


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return city


TOOL_CALL = [
    chunk({"role": "assistant", "content": None, "tool_calls": [call]})
    for call in (
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
    )
]


@pytest.fixture
async def model(provider: ProviderServer) -> AsyncIterator[StreamingChatOpenAI]:
    server = ServerConnection(provider.base_url, {"Authorization": "Bearer sk-test"})
    session = StreamSession(DIRECT, 10)
    yield StreamingChatOpenAI.over(lambda: session, server, model="test-model", stream_usage=True, max_retries=0)
    await session.close()


def library(provider: ProviderServer) -> ChatOpenAI:
    options: dict[str, Any] = {"api_key": "sk-test", "base_url": provider.base_url, "max_retries": 0}
    return ChatOpenAI(model="test-model", stream_usage=True, **options)


async def gathered(chunks: AsyncIterator[Any]) -> AIMessageChunk:
    whole: Any = None
    async for each in chunks:
        whole = each if whole is None else whole + each
    return whole


async def test_langchain_gets_what_the_library_gives(model: StreamingChatOpenAI, provider: ProviderServer) -> None:
    provider.script(answer("Hello there, friend."), answer("Hello there, friend."))
    ours, theirs = await gathered(model.astream("hi")), await gathered(library(provider).astream("hi"))
    assert ours.content == theirs.content == "Hello there, friend."
    assert ours.usage_metadata is not None and theirs.usage_metadata is not None
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert ours.usage_metadata[name] == theirs.usage_metadata[name]
    assert ours.response_metadata["finish_reason"] == theirs.response_metadata["finish_reason"]
    sent = [request.json for request in provider.requests]
    assert sent[0]["messages"] == sent[1]["messages"]
    assert sent[0]["stream_options"] == sent[1]["stream_options"] == {"include_usage": True}


async def test_tool_calls_go_through_langchains_conversion(
    model: StreamingChatOpenAI, provider: ProviderServer
) -> None:
    script = [*TOOL_CALL, chunk({}, "tool_calls"), usage_chunk(5, 4), done()]
    provider.script(script, script)
    ours = await gathered(model.bind_tools([weather]).astream("weather in Oslo?"))
    theirs = await gathered(library(provider).bind_tools([weather]).astream("weather in Oslo?"))
    assert ours.tool_calls == theirs.tool_calls
    assert ours.tool_calls[0]["args"] == {"city": "Oslo"}
    assert provider.requests[0].json["tools"] == provider.requests[1].json["tools"]


async def test_structured_output_works(model: StreamingChatOpenAI, provider: ProviderServer) -> None:
    provider.script(answer(json.dumps({"city": "Oslo"})))
    schema = {"title": "Place", "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    last: Any = None
    async for value in model.with_structured_output(schema, method="json_schema").astream("where?"):
        last = value
    assert last == {"city": "Oslo"}
    assert "response_format" in provider.requests[0].json


async def test_callbacks_see_the_run(model: StreamingChatOpenAI, provider: ProviderServer) -> None:
    seen: list[str] = []

    class Watch(AsyncCallbackHandler):
        async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append("start")

        async def on_llm_new_token(self, token: Any, *_: Any, **kwargs: Any) -> None:
            seen.append(token)

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append("end")

    provider.script(answer("one two"))
    await gathered(model.astream("hi", config={"callbacks": [Watch()]}))
    assert (seen[0], seen[-1]) == ("start", "end")
    assert "".join(seen[1:-1]) == "one two"


async def test_those_who_want_text_are_spared_the_rest(model: StreamingChatOpenAI, provider: ProviderServer) -> None:
    provider.script([*TOOL_CALL, chunk({"content": "ok"}), chunk({}, "stop"), done()])
    outputs = [output async for output in model.text_outputs([("user", "hi")], {})]
    assert merged(outputs) == [Text("ok"), Finish("stop")]
    assert not any(isinstance(output, Other) for output in outputs)


async def test_a_broken_chunked_coding_ends_the_stream_at_once(
    model: StreamingChatOpenAI, provider: ProviderServer
) -> None:
    gate = asyncio.Event()
    provider.script([chunk({"content": "Half"}), Gate(gate), Status(500, {}, b"not a chunk")])
    outputs = model.text_outputs([("user", "hi")], {})
    assert await anext(outputs) == Text("Half")
    gate.set()
    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(anext(outputs), 5)


def opened(provider: ProviderServer) -> Any:
    """The provider as the server makes it."""
    endpoint = Endpoint("openai", PLUGIN.kinds[0], provider.base_url, SecretStr("sk-test"))
    return PLUGIN.create(endpoint, ModelSettings.model_validate({}))


def prompt() -> Prompt:
    return Prompt(system="Be brief.", history=(), content="hi", question="hi", parameters=PARAMETERS)


async def test_a_model_that_langchain_would_send_elsewhere_is_asked_here(provider: ProviderServer) -> None:
    openai = opened(provider)
    provider.script(answer("Here."))
    outputs = [output async for output in openai.open("gpt-5-pro").stream(prompt())]
    await openai.aclose()
    assert merged(outputs)[0] == Text("Here.")
    assert [m["content"] for m in provider.requests[0].json["messages"]] == ["Be brief.", "hi"]


@pytest.mark.parametrize("name", ["gpt-4.1-mini", "o3-mini", "gpt-5-pro"])
async def test_a_request_is_what_langchain_would_send(provider: ProviderServer, name: str) -> None:
    history = (Message("user", "Hi."), Message("assistant", "Hello."))
    asked = replace(prompt(), history=history)
    openai = opened(provider)
    client = await openai.client(name)
    fields: dict[str, Any] = {"temperature": 1.0, "max_completion_tokens": 50}
    async for _ in openai.open(name).stream(asked):
        pass
    async for _ in client.outputs(chat_messages(asked), **fields):
        pass
    await openai.aclose()
    ours, theirs = (request.json for request in provider.requests)
    assert ours == theirs
    assert ours["messages"][0]["role"] == ("developer" if name.startswith("o3") else "system")


async def test_with_tracing_on_the_answer_is_the_same(provider: ProviderServer) -> None:
    openai = opened(provider)
    provider.script(answer("One two three."), answer("One two three."))
    client = await openai.client("test-model")
    messages: list[tuple[str, Any]] = list(chat_messages(prompt()))
    plain = [output async for output in client.text_outputs(messages, {})]
    traced = [output async for output in _traced(client, messages, {})]
    await openai.aclose()
    ends = {Finish("stop"), Tokens(7, 3)}
    assert "".join(o.text for o in plain if isinstance(o, Text)) == "One two three."
    assert "".join(o.text for o in traced if isinstance(o, Text)) == "One two three."
    assert ends <= {o for o in plain if not isinstance(o, Text)}
    assert ends <= {o for o in traced if not isinstance(o, Text)}
