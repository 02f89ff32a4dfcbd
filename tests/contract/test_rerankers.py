"""What every reranker promises: remote ones against a server on loopback that speaks their protocol, the local one with
a cross-encoder that really runs.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.chains.retrieval.rerankers import Reranker, RerankerSettings, RerankFailed, kinds, open_reranker
from tests.support.harness import free_port
from tests.support.rerankers import KEY, RAW, RerankerServer, cross_encoder, reranker_server

WORDS = "rent notice period month lighthouse keeper lamp"
REMOTE = ("cohere", "tei", "voyage")
MODEL = "rerank-test"


def shared(query: str, text: str) -> float:
    """How many of the known words both have: the cross-encoder says the same."""
    return float(len({w for w in query.lower().split() if w in WORDS.split()} & set(text.lower().split())))


@pytest.fixture
def server() -> Iterator[RerankerServer]:
    with reranker_server(shared) as server:
        yield server


def spec_of(kind: str, server: RerankerServer, folder: Path) -> str:
    return f"onnx:{cross_encoder(folder, WORDS)}" if kind == "onnx" else f"{kind}:{server.url}/{kind}/v1"


@pytest_asyncio.fixture(params=sorted(kinds()))
async def reranker(request: pytest.FixtureRequest, server: RerankerServer, tmp_path: Path) -> AsyncIterator[Reranker]:
    opened = open_reranker(spec_of(request.param, server, tmp_path / "model"), RerankerSettings(MODEL, KEY))
    await opened.prepare()
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(params=REMOTE)
async def remote(request: pytest.FixtureRequest, server: RerankerServer, tmp_path: Path) -> AsyncIterator[Reranker]:
    opened = open_reranker(spec_of(request.param, server, tmp_path), RerankerSettings(MODEL, KEY))
    yield opened
    await opened.aclose()


def test_every_kind_is_tested() -> None:
    assert sorted(kinds()) == sorted((*REMOTE, "onnx"))


async def test_each_text_has_its_score_in_the_order_given(reranker: Reranker) -> None:
    texts = ["The lamp .", "rent notice period", "", "notice", "a lone \ud800 surrogate", "lamp " * 2_000 + "rent"]
    # A model reads so much and no more: the last text's `rent` is beyond.
    scores = await reranker.scores("rent notice period", texts)
    assert scores[:5] == [0, 3, 0, 1, 0]


async def test_more_texts_than_fit_a_batch(reranker: Reranker) -> None:
    texts = [["lamp", "rent", "rent notice"][n % 3] for n in range(100)]
    assert await reranker.scores("rent notice", texts) == [float(n % 3) for n in range(100)]


async def test_no_texts_no_scores(reranker: Reranker) -> None:
    assert await reranker.scores("rent", []) == []


async def test_searches_side_by_side(reranker: Reranker) -> None:
    found = await asyncio.gather(*(reranker.scores(word, ["rent", "lamp"]) for word in ["rent", "lamp"] * 5))
    assert found == [[1, 0], [0, 1]] * 5


# --- what is sent


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("cohere", {"documents": ["one", "two"], "top_n": 2}),
        ("voyage", {"documents": ["one", "two"], "top_k": 2}),
        ("tei", {"texts": ["one", "two"], "truncate": True}),
    ],
)
async def test_the_request_is_as_the_api_wants_it(server: RerankerServer, kind: str, sent: dict[str, Any]) -> None:
    for url in (f"{kind}:{server.url}/{kind}", f"{kind}:{server.url}/{kind}/"):
        opened = open_reranker(url, RerankerSettings(MODEL, KEY))
        await opened.scores("rent", ["one", "two"])
        await opened.aclose()
    path, body, authorization = server.requests[0]
    assert (path, authorization) == (f"/{kind}/rerank", f"Bearer {KEY}")
    assert body == {"model": MODEL, "query": "rent", **sent}
    assert server.requests[1] == server.requests[0]


async def test_without_a_model_and_a_key_neither_is_sent(server: RerankerServer) -> None:
    opened = open_reranker(server.url, RerankerSettings())
    await opened.scores("rent", ["one"])
    await opened.aclose()
    ((_, body, authorization),) = server.requests
    assert "model" not in body and authorization == ""
    assert opened.name == "cohere:127.0.0.1"


async def test_no_proxy_is_asked_for_what_runs_here(server: RerankerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    opened = open_reranker(server.url, RerankerSettings())
    assert await opened.scores("rent", ["rent", "lamp"]) == [1, 0]
    await opened.aclose()


async def test_tei_is_asked_32_texts_at_a_time(server: RerankerServer) -> None:
    opened = open_reranker(f"tei:{server.url}/tei", RerankerSettings())
    await opened.scores("rent", ["one"] * 70)
    await opened.aclose()
    assert sorted(len(body["texts"]) for _, body, _ in server.requests) == [6, 32, 32]


# --- what goes wrong


def entries(*pairs: tuple[Any, Any]) -> dict[str, list[dict[str, Any]]]:
    """An answer that every protocol reads (TEI's is the list itself)."""
    return {"entries": [{"index": index, "relevance_score": score, "score": score} for index, score in pairs]}


GARBAGE: dict[str, Any] = {
    "one too few": entries((0, 1.0)),
    "none": entries(),
    "one twice": entries((0, 1.0), (0, 2.0)),
    "one too many": entries((0, 1.0), (1, 2.0), (2, 3.0)),
    "an index out of range": entries((0, 1.0), (2, 1.0)),
    "an index below zero": entries((0, 1.0), (-1, 1.0)),
    "an index that is a text": entries((0, 1.0), ("1", 1.0)),
    "an index that is true": entries((0, 1.0), (True, 1.0)),
    "NaN": entries((0, 1.0), (1, float("nan"))),
    "infinity": entries((0, 1.0), (1, float("inf"))),
    "beyond a float": entries((0, 1.0), (1, 10**400)),
    "null": entries((0, 1.0), (1, None)),
    "a score that is a text": entries((0, 1.0), (1, "2.0")),
    "entries that are numbers": {"entries": [1, 2]},
    "no list": {"entries": 7},
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_an_answer_that_makes_no_sense_fails(remote: Reranker, server: RerankerServer, case: str) -> None:
    given = GARBAGE[case]["entries"]
    answer = given if remote.name.startswith("tei") else {"results": given, "data": given}
    server.raw = json.dumps(answer).encode()
    with pytest.raises(RerankFailed, match="scores not each text once"):
        await remote.scores("rent", ["one", "two"])


@pytest.mark.parametrize("raw", [b"", b"<html>", b"\xff\xfe", b"null", b"7", b'"x"', b"{}", b"[[]]", b"[" * 100_000])
async def test_an_answer_of_another_form_fails(remote: Reranker, server: RerankerServer, raw: bytes) -> None:
    server.raw = raw
    with pytest.raises(RerankFailed, match="scores not each text once"):
        await remote.scores("rent", ["one", "two"])


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503])
async def test_a_refusal_fails_and_tells_nothing_of_theirs(
    remote: Reranker, server: RerankerServer, status: int
) -> None:
    server.status = status
    with pytest.raises(RerankFailed) as failed:
        await remote.scores("rent", ["one", "two"])
    assert str(status) in str(failed.value)
    assert RAW not in str(failed.value) and KEY not in str(failed.value)


async def test_nobody_there_fails() -> None:
    opened = open_reranker(f"http://127.0.0.1:{free_port()}", RerankerSettings(api_key=KEY))
    with pytest.raises(RerankFailed, match="could not be reached"):
        await opened.scores("rent", ["one"])
    await opened.aclose()


# --- settings


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nosuch:thing", "onnx:/path/to/folder"),
        ("rerank-v3.5", "cohere:https://"),
        ("onnx:", "onnx:/path/to/folder"),
        ("onnx:/nowhere", "model.onnx"),
        ("tei:localhost:8080", "http://"),
        ("voyage:ftp://example.org", "https://"),
        ("http://", "https://"),
        ("http://example.org:99999", "[Pp]ort"),
        ("http://[", "IPv6"),
    ],
)
def test_what_can_be_no_reranker_is_said_at_once(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        open_reranker(spec, RerankerSettings())


def test_a_key_is_not_in_what_is_printed() -> None:
    assert KEY not in repr(RerankerSettings(api_key=KEY))


# --- the local one


async def local(folder: Path) -> Reranker:
    opened = open_reranker(f"onnx:{folder}", RerankerSettings())
    await opened.prepare()
    return opened


async def test_a_model_lies_in_its_folder_or_in_one_below(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "own", WORDS)
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    opened = await local(folder)
    assert opened.name == "onnx:own"
    assert await opened.scores("rent", ["lamp", "rent"]) == [0, 1]
    await opened.aclose()


async def test_a_score_does_not_depend_on_what_else_is_in_the_batch(tmp_path: Path) -> None:
    opened = await local(cross_encoder(tmp_path / "model", WORDS))
    texts = ["rent", "notice " * 20, "lamp", "rent notice period " * 4]
    together = await opened.scores("rent notice", texts)
    assert together == [(await opened.scores("rent notice", [text]))[0] for text in texts] == [1, 1, 0, 2]
    await opened.aclose()


async def test_a_model_without_token_types_and_one_with_two_labels(tmp_path: Path) -> None:
    plain = await local(cross_encoder(tmp_path / "plain", WORDS, types=False))
    assert await plain.scores("rent", ["lamp", "rent"]) == [2, 1], "it counts the words of both"
    two = await local(cross_encoder(tmp_path / "two", WORDS, outputs=2))
    assert await two.scores("rent", ["lamp", "rent"]) == [0, 1]
    for each in (plain, two):
        await each.aclose()


async def test_what_is_no_cross_encoder_is_found_out_while_loading(tmp_path: Path) -> None:
    labels = cross_encoder(tmp_path / "labels", WORDS, outputs=3)
    with pytest.raises(RerankFailed, match="3 outputs"):
        await local(labels)
    (labels / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(RerankFailed, match=r"model\.onnx can't be used"):
        await local(labels)
    broken = cross_encoder(tmp_path / "broken", WORDS)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(RerankFailed, match="can't be used"):
        await local(broken)
