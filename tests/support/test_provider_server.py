"""Tests of the scripted provider with the real client packages."""

import asyncio
import json
from contextlib import suppress

import httpx
import openai
import pytest

from tests.support.provider_protocol import (
    Cut,
    Gate,
    Send,
    Stall,
    answer,
    chunk,
    error_in_stream,
    malformed,
    model_not_found,
    rate_limited,
)
from tests.support.provider_server import ProviderServer

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def client_of(provider: ProviderServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="test", base_url=provider.base_url, max_retries=0)


async def streamed(client: openai.AsyncOpenAI, **more) -> tuple[str, str | None, int | None]:
    """Text, finish reason and output tokens of one streamed answer."""
    text, finish, tokens = "", None, None
    async for part in await client.chat.completions.create(**ASK, stream=True, **more):
        for choice in part.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        tokens = part.usage.completion_tokens if part.usage else tokens
    return text, finish, tokens


@pytest.mark.parametrize("chunk_by", ["words", "chars", 3])
async def test_openai_client_reads_a_scripted_stream(chunk_by):
    text = "Grüße, two  spaces and 🌍."
    async with ProviderServer() as provider, client_of(provider) as client:
        provider.script(answer(text, chunk_by=chunk_by, finish="length"), lambda request: answer(request["model"]))
        assert (await streamed(client))[:2] == (text, "length")
        assert await streamed(client) == ("m", "stop", 1)
        call = await provider.call(0)
        assert call.headers["authorization"] == "Bearer test" and call.json["messages"] == ASK["messages"]
        await call.answered()


async def test_unscripted_answers():
    async with ProviderServer("By default.", models=["a", "b"]) as provider, client_of(provider) as client:
        assert await streamed(client) == ("By default.", "stop", None)
        assert (await streamed(client, stream_options={"include_usage": True}))[2] == 2
        whole = await client.chat.completions.create(**ASK)
        assert whole.choices[0].message.content == "By default."
        assert [model.id async for model in client.models.list()] == ["a", "b"]
        near = await client.embeddings.create(model="e", input=["a red fox", "a red fox", "else"])
        floats = await client.embeddings.create(model="e", input="a red fox", encoding_format="float")
        assert near.data[0].embedding == near.data[1].embedding != near.data[2].embedding
        assert near.data[0].embedding == pytest.approx(floats.data[0].embedding, rel=1e-6)


async def test_refusals_reach_the_client_as_its_own_errors():
    async with ProviderServer() as provider, client_of(provider) as client:
        provider.script(rate_limited(3), model_not_found("m"), [chunk({"content": "a"}), error_in_stream("no")])
        with pytest.raises(openai.RateLimitError) as limited:
            await streamed(client)
        assert limited.value.response.headers["retry-after"] == "3"
        with pytest.raises(openai.NotFoundError) as missing:
            await streamed(client)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.APIError, match="no"):
            await streamed(client)
        provider.script([malformed()])
        with pytest.raises(json.JSONDecodeError):
            await streamed(client)


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_is_a_broken_body_and_a_missing_finish_is_not(reset):
    async with ProviderServer() as provider, httpx.AsyncClient() as client:
        provider.script([Send(b"data: half"), Cut(reset)], answer("a", finish=None, usage=False))
        with pytest.raises(httpx.TransportError):
            await client.post(f"{provider.base_url}/chat/completions", json=ASK)
        whole = await client.post(f"{provider.base_url}/chat/completions", json=ASK)
        assert '"finish_reason":"stop"' not in whole.text and whole.text.endswith("data: [DONE]\n\n")


async def test_gate_holds_the_next_bytes_back():
    gate = asyncio.Event()
    async with ProviderServer() as provider, httpx.AsyncClient() as client:
        provider.script([Send(b"one"), Gate(gate), Send(b"two")])
        async with client.stream("POST", f"{provider.base_url}/chat/completions", json=ASK) as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"one"
            gate.set()
            assert await anext(parts) == b"two"


async def test_it_tells_when_the_client_has_left():
    async with ProviderServer() as provider, client_of(provider) as client:
        provider.script([chunk({"content": "a"}), Stall()])
        task = asyncio.create_task(streamed(client))
        call = await provider.call(0)
        with pytest.raises(AssertionError, match="still open"):
            await call.disconnected(timeout=0.05)
        assert provider.open_connections == 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await call.disconnected()
        await asyncio.sleep(0)
        assert provider.open_connections == 0

        await streamed(client)
        with pytest.raises(AssertionError, match="nobody left"):
            await (await provider.call(1)).disconnected()


async def test_ollamas_wire():
    async with (
        ProviderServer("Two words.") as provider,
        httpx.AsyncClient(base_url=provider.root_url) as client,
    ):
        lines = (await client.post("/api/chat", json=ASK)).text.splitlines()
        parsed = [json.loads(line) for line in lines]
        assert "".join(line["message"]["content"] for line in parsed) == "Two words."
        assert [line["done"] for line in parsed] == [False, False, True] and parsed[-1]["eval_count"] == 2
        assert (await client.get("/api/tags")).json()["models"][0]["name"] == "test-model"
        embedded = (await client.post("/api/embed", json={"model": "e", "input": ["a b", "c"]})).json()
        assert len(embedded["embeddings"]) == 2
        assert (await client.get("/nothing")).status_code == 404
        assert len(provider.calls) == 1 and len(provider.requests) == 4
