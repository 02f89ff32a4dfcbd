"""Search and answers with a reranker: its order, what is told of it, and that it can break nothing."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.harness import Running, serving, settings
from tests.support.rerankers import KEY, RAW, RerankerServer, cross_encoder, reranker_server

TEXTS = {
    "berth.txt": "Ships may stay at the berth of the harbour for three days. The berth is free of charge.",
    "crane.txt": "The crane of the harbour lifts forty tonnes. A berth near the crane is taken by barges.",
    "pilot.txt": "The pilot of the harbour boards ships at the buoy. Every berth is known to the pilot.",
    "market.txt": "The market opens at nine o'clock. Fish is sold beside the berth until noon.",
}
QUESTION = "How long may ships stay at the berth of the harbour?"
FOLLOW_UP = [{"role": "user", "content": "What does the pilot know?"}, {"role": "assistant", "content": "Berths."}]


def likes(word: str) -> Any:
    """A reranker that wants this word and nothing else."""
    return lambda query, text: float(word in text)


@pytest.fixture
def server() -> Iterator[RerankerServer]:
    with reranker_server(likes("crane")) as server:
        yield server


@asynccontextmanager
async def harbour(folder: Path, **overrides: Any) -> AsyncIterator[Running]:
    async with serving(folder / "data", **overrides) as running:
        for name, text in TEXTS.items():
            assert (await running.upload(name, text.encode()))["status"] == "ready"
        yield running


async def search(running: Running, **fields: Any) -> tuple[list[str], dict[str, Any]]:
    """Names, best first, and the explanation."""
    body = {"query": QUESTION, "explain": True, **fields}
    response = await running.client.post("/search", json=body)
    assert response.status_code == 200, response.text
    assert RAW not in response.text and KEY not in response.text
    return [p["filename"] for p in response.json()["passages"]], response.json()["explanation"]


async def test_without_one_nothing_is_told_of_it(tmp_path: Path) -> None:
    async with harbour(tmp_path) as running:
        names, explained = await search(running)
        assert names[0] == "berth.txt"
        assert explained["reranker"] is None and "rerank" not in explained["milliseconds"]
        assert all(c["reranker"] is None for c in explained["candidates"])


async def test_it_orders_the_candidates_and_changes_no_relevance(tmp_path: Path, server: RerankerServer) -> None:
    async with harbour(tmp_path, reranker=server.url, reranker_api_key=KEY) as running:
        names, explained = await search(running)
        assert names[0] == "crane.txt"
        told = explained["reranker"]
        assert (told["name"], told["ok"], told["error"]) == ("cohere:127.0.0.1", True, None)
        assert told["ms"] > 0 and explained["milliseconds"]["rerank"] > 0
        assert [c["reranker"] for c in explained["candidates"]] == [1.0, 0.0, 0.0, 0.0]
        assert [c["score"] for c in explained["candidates"]] == [1.0, 0.0, 0.0, 0.0]
        relevance = {c["document_id"]: c["relevance"] for c in explained["candidates"]}
        server.status = 500
        _, unranked = await search(running)
        assert {c["document_id"]: c["relevance"] for c in unranked["candidates"]} == relevance
        (_, body, authorization), _ = server.requests
        assert body["query"] == QUESTION and sorted(body["documents"]) == sorted(TEXTS.values())
        assert authorization == f"Bearer {KEY}"


async def test_it_reads_so_many_candidates_and_the_others_follow(tmp_path: Path, server: RerankerServer) -> None:
    server.score = likes("nothing of these")
    async with harbour(tmp_path, reranker=server.url, rerank_candidates=2) as running:
        _, explained = await search(running)
        assert [c["reranker"] for c in explained["candidates"]] == [0.0, 0.0, None, None]
        assert [len(body["documents"]) for _, body, _ in server.requests] == [2]


async def test_of_a_follow_up_it_reads_what_says_most(tmp_path: Path, server: RerankerServer) -> None:
    async with harbour(tmp_path, reranker=server.url) as running:
        await search(running, query="And where does he board?", history=FOLLOW_UP)
        await search(running, query="What opens at nine o'clock beside the berth?", history=FOLLOW_UP)
        await search(running, query="long " * 700 + "ships")
        asked = [body["query"] for _, body, _ in server.requests]
        assert asked[0] == "What does the pilot know? And where does he board?"
        assert asked[1] == "What opens at nine o'clock beside the berth?"
        assert len(asked[2]) <= 1_000 and asked[2].endswith("long ships")


async def test_a_single_candidate_needs_no_order(tmp_path: Path, server: RerankerServer) -> None:
    async with harbour(tmp_path, reranker=server.url) as running:
        (document,) = [d for d in (await running.client.get("/documents")).json()["items"] if d["filename"][0] == "m"]
        names, explained = await search(running, documents=[document["id"]])
        assert names == ["market.txt"] and explained["reranker"] is None
        assert server.requests == []


# --- what goes wrong


async def test_while_it_fails_searches_go_on_and_the_log_says_so_once(tmp_path: Path, server: RerankerServer) -> None:
    async with harbour(tmp_path, reranker=server.url, log_level="INFO") as running:
        server.status = 503
        with capture_logs() as logged:
            for _ in range(3):
                names, explained = await search(running)
                assert names[0] == "berth.txt"
                assert explained["reranker"]["ok"] is False and "503" in explained["reranker"]["error"]
                assert all(c["reranker"] is None for c in explained["candidates"])
            server.raw, server.status = b'{"results": [{"index": 9, "relevance_score": NaN}]}', 200
            assert (await search(running))[0][0] == "berth.txt"
            server.raw = None
            for _ in range(2):
                assert (await search(running))[0][0] == "crane.txt"
        events = [entry["event"] for entry in logged if entry["event"].startswith("reranker")]
        assert events == ["reranker_failed", "reranker_back"]


async def test_a_slow_one_is_waited_for_so_long_and_no_longer(tmp_path: Path, server: RerankerServer) -> None:
    async with harbour(tmp_path, reranker=server.url, reranker_timeout=0.05) as running:
        server.gate.clear()
        names, explained = await search(running)
        assert names[0] == "berth.txt"
        assert explained["reranker"]["error"] == "no answer within 0.05 s"


async def test_a_bug_of_it_is_no_error_of_the_search(
    tmp_path: Path, server: RerankerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with harbour(tmp_path, reranker=server.url) as running:
        reranking = running.services.library.search._engine._reranking
        assert reranking is not None
        monkeypatch.setattr(reranking._reranker, "scores", None)
        names, explained = await search(running)
        assert names[0] == "berth.txt" and explained["reranker"]["error"] == "TypeError"


async def test_an_answer_streams_without_it_and_its_retrieval_says_so(tmp_path: Path, server: RerankerServer) -> None:
    server.raw = b"gone"
    async with harbour(tmp_path, reranker=server.url, llm_model="extractive/quotes") as running:
        events = await running.events({"message": QUESTION})
        assert events[-1]["type"] == "run.completed"
        message = events[0]["message_id"]
        stored = (await running.client.get(f"/messages/{message}/retrieval")).json()["retrieval"]
        assert stored["reranker"]["ok"] is False


# --- a model in this process


async def test_a_cross_encoder_here_orders_as_it_scores(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "tiny", "berth harbour ships crane pilot market", favourite="pilot")
    async with harbour(tmp_path, reranker=f"onnx:{folder}") as running:
        names, explained = await search(running)
        assert names[0] == "pilot.txt"
        assert explained["reranker"]["name"] == "onnx:tiny" and explained["reranker"]["ok"]
        # Berth, harbour and ships are in question and text, and 10 for its favourite.
        assert max(c["reranker"] for c in explained["candidates"]) == 13


async def test_a_model_that_cannot_be_loaded_keeps_the_server_from_getting_ready(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "tiny", "berth")
    (folder / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(Exception, match=r"RERANKER: .*model\.onnx can't be used as a reranker"):
        async with serving(tmp_path / "data", reranker=f"onnx:{folder}"):
            pass


def test_its_key_is_not_shown(tmp_path: Path) -> None:
    assert KEY not in repr(settings(tmp_path, reranker="http://127.0.0.1:9", reranker_api_key=KEY))
