"""The vector index against real Chroma on disk."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.chains.retrieval import index as index_module
from backend.chains.retrieval.index import VectorIndex
from backend.errors import EmbeddingMismatch

PRINT = "minilm/test:8"


def vectors(count: int, seed: int = 1) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[VectorIndex]:
    index = VectorIndex(tmp_path / "chroma")
    await index.open()
    yield index
    await index.close()


async def test_finds_the_nearest_with_its_cosine(index: VectorIndex) -> None:
    stored = vectors(50)
    await index.upsert("c", PRINT, [f"k{number}" for number in range(50)], stored, "doc", "ver")
    query = vectors(1, seed=2)[0]
    hits = await index.query("c", PRINT, query, 5)
    expected = np.argsort(-(stored @ query))[:5]
    assert [hit.chunk_id for hit in hits] == [f"k{number}" for number in expected]
    assert np.allclose([hit.score for hit in hits], (stored @ query)[expected], atol=1e-5)
    assert {(hit.document_id, hit.version_id) for hit in hits} == {("doc", "ver")}
    assert len(await index.query("c", PRINT, query, 1000)) == 50


async def test_an_upsert_replaces(index: VectorIndex) -> None:
    await index.upsert("c", PRINT, ["a", "b"], vectors(2), "doc", "v1")
    await index.upsert("c", PRINT, ["b", "c"], vectors(2, 3), "doc", "v2")
    assert await index.count("c") == 3
    assert await index.versions("c") == {"v1", "v2"}
    assert (await index.query("c", PRINT, vectors(2, 3)[0], 1))[0].version_id == "v2"


async def test_a_version_is_deleted(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_BATCH", 7)
    await index.upsert("c", PRINT, [f"a{number}" for number in range(20)], vectors(20), "doc", "v1")
    await index.upsert("c", PRINT, ["b"], vectors(1, 3), "doc", "v2")
    assert await index.versions("c") == {"v1", "v2"}
    assert await index.delete_version("c", "v1") == 20
    assert await index.delete_version("c", "v1") == 0
    assert await index.count("c") == 1
    assert [hit.chunk_id for hit in await index.query("c", PRINT, vectors(1)[0], 10)] == ["b"]


async def test_what_is_not_there_is_empty(index: VectorIndex) -> None:
    assert await index.query("none", PRINT, vectors(1)[0], 5) == []
    assert await index.count("none") == 0
    assert await index.versions("none") == set()
    assert await index.delete_version("none", "v") == 0
    await index.drop("none")
    assert await index.collections() == set()
    await index.upsert("c", PRINT, [], vectors(0), "d", "v")
    assert await index.query("c", PRINT, vectors(1)[0], 5) == []


async def test_collections_are_apart(index: VectorIndex) -> None:
    await index.upsert("one", PRINT, ["a"], vectors(1), "d", "v")
    await index.upsert("two", PRINT, ["a"], vectors(1, 2), "e", "w")
    assert [hit.document_id for hit in await index.query("two", PRINT, vectors(1)[0], 9)] == ["e"]
    assert await index.collections() == {"one", "two"}
    await index.drop("one")
    assert await index.count("one") == 0 and await index.count("two") == 1


async def test_another_embedding_is_refused_with_what_to_do(index: VectorIndex) -> None:
    await index.upsert("c", PRINT, ["a"], vectors(1), "d", "v")
    for call in (
        index.query("c", "openai/other:8", vectors(1)[0], 1),
        index.upsert("c", "openai/other:8", ["b"], vectors(1), "d", "v"),
    ):
        with pytest.raises(EmbeddingMismatch, match=r"minilm/test:8.*openai/other:8.*again"):
            await call
    await index.drop("c")
    await index.upsert("c", "openai/other:8", ["b"], vectors(1), "d", "v")


async def test_ids_and_vectors_must_match(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="2 ids for 1"):
        await index.upsert("c", PRINT, ["a", "b"], vectors(1), "d", "v")


async def test_lasts_and_lets_go_of_its_files(tmp_path: Path) -> None:
    one, two = VectorIndex(tmp_path / "one"), VectorIndex(tmp_path / "two")
    await asyncio.gather(one.open(), two.open())
    await one.upsert("c", PRINT, ["a"], vectors(1), "d", "v")
    assert await two.count("c") == 0
    await one.close()
    await one.close()
    with pytest.raises(RuntimeError, match="not open"):
        await one.count("c")
    await two.close()
    if Path("/proc/self/fd").exists():
        links = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert not [link for link in links if link.startswith(str(tmp_path))]
    await one.open()
    assert [hit.chunk_id for hit in await one.query("c", PRINT, vectors(1)[0], 1)] == ["a"]
    await one.close()


async def test_calls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: called.append(arguments) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: called.append(address))
    index = VectorIndex(tmp_path / "chroma")
    await index.open()
    await index.upsert("c", PRINT, ["a"], vectors(1), "d", "v")
    await index.query("c", PRINT, vectors(1)[0], 1)
    await index.close()
    assert called == []


async def test_passages_unlike_all_others_are_found(tmp_path: Path) -> None:
    """With Chroma's own HNSW settings more are lost. The graph is random: now and then one is, with ours too."""
    rng = np.random.default_rng(5)
    theme = rng.normal(size=64)
    crowd = theme + 0.25 * rng.normal(size=(6_000, 64))
    needles = 0.3 * theme + rng.normal(size=(40, 64)) * np.linalg.norm(theme) / 8
    vectors = np.concatenate([crowd, needles]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation(len(vectors))
    index = VectorIndex(tmp_path)
    await index.open()
    try:
        ids = [f"c{i}" for i in order]
        await index.upsert("needles", "model:64", ids, vectors[order], "doc", "ver")
        wanted = range(len(crowd), len(vectors))
        found = [(await index.query("needles", "model:64", vectors[i], 10))[0].chunk_id == f"c{i}" for i in wanted]
        assert sum(found) >= 38
    finally:
        await index.close()
