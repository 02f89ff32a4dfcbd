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

pytestmark = pytest.mark.slow

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
    await index.upsert("c-1", PRINT, range(100, 150), stored)
    query = vectors(1, seed=2)[0]
    hits = await index.query("c-1", PRINT, query, 5)
    expected = np.argsort(-(stored @ query))[:5]
    assert [n for n, _ in hits] == [100 + place for place in expected]
    assert np.allclose([score for _, score in hits], (stored @ query)[expected], atol=1e-5)
    assert len(await index.query("c-1", PRINT, query, 1000)) == 50


async def test_an_upsert_replaces(index: VectorIndex) -> None:
    await index.upsert("c-1", PRINT, [1, 2], vectors(2))
    await index.upsert("c-1", PRINT, [2, 3], vectors(2, 3))
    assert await index.numbers("c-1") == [1, 2, 3]
    assert (await index.query("c-1", PRINT, vectors(2, 3)[0], 1))[0][0] == 2


async def test_upserts_at_the_same_time_are_all_stored(index: VectorIndex) -> None:
    """They go to Chroma together; one that must not be stored doesn't harm the others."""
    each = [vectors(2, seed) for seed in range(30)]
    calls = [index.upsert("c-1" if n % 2 else "d-1", PRINT, [2 * n, 2 * n + 1], v) for n, v in enumerate(each)]
    wrong = index.upsert("c-1", "openai/other:8", [999], vectors(1))
    *_, refused = await asyncio.gather(*calls, wrong, return_exceptions=True)
    assert isinstance(refused, EmbeddingMismatch)
    assert await index.count("c-1") == await index.count("d-1") == 30
    for n, v in enumerate(each):
        assert (await index.query("c-1" if n % 2 else "d-1", PRINT, v[1], 1))[0][0] == 2 * n + 1


async def test_a_caller_that_leaves_does_not_harm_the_others(index: VectorIndex) -> None:
    left = asyncio.create_task(index.upsert("c-1", PRINT, [1], vectors(1)))
    stays = asyncio.create_task(index.upsert("c-1", PRINT, [2], vectors(1, 2)))
    await asyncio.sleep(0)
    left.cancel()
    await stays
    assert 2 in await index.numbers("c-1")


async def test_vectors_come_back_as_they_were(index: VectorIndex) -> None:
    stored = vectors(5)
    await index.upsert("c-1", PRINT, range(5), stored)
    numbers, found = await index.vectors("c-1", [4, 1, 77])
    assert set(numbers) == {1, 4}
    assert np.allclose(found, stored[numbers], atol=1e-6)


async def test_chunks_are_deleted_and_counted(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_BATCH", 7)
    await index.upsert("c-1", PRINT, range(20), vectors(20))
    assert await index.present("c-1", range(15, 25)) == set(range(15, 20))
    assert await index.delete("c-1", range(1, 40)) == 19
    assert await index.delete("c-1", range(1, 40)) == 0
    assert await index.numbers("c-1") == [0]
    assert [n for n, _ in await index.query("c-1", PRINT, vectors(1)[0], 10)] == [0]


async def test_what_is_not_there_is_empty(index: VectorIndex) -> None:
    assert await index.query("none", PRINT, vectors(1)[0], 5) == []
    assert await index.count("none") == 0
    assert await index.numbers("none") == []
    assert await index.present("none", [1]) == set()
    assert await index.delete("none", [1]) == 0
    assert (await index.vectors("none", [1]))[0] == []
    await index.drop("none")
    assert await index.keys() == set()
    await index.upsert("c-1", PRINT, [], vectors(0))
    assert await index.query("c-1", PRINT, vectors(1)[0], 5) == []


async def test_keys_are_apart(index: VectorIndex) -> None:
    await index.upsert("c-1", PRINT, [1], vectors(1))
    await index.upsert("c-2", PRINT, [2], vectors(1, 2))
    assert [n for n, _ in await index.query("c-2", PRINT, vectors(1)[0], 9)] == [2]
    assert await index.keys() == {"c-1", "c-2"}
    await index.drop("c-1")
    assert await index.count("c-1") == 0 and await index.count("c-2") == 1


async def test_another_embedding_is_refused_with_what_to_do(index: VectorIndex) -> None:
    await index.upsert("c-1", PRINT, [1], vectors(1))
    for call in (
        index.query("c-1", "openai/other:8", vectors(1)[0], 1),
        index.upsert("c-1", "openai/other:8", [2], vectors(1)),
    ):
        with pytest.raises(EmbeddingMismatch, match=r"minilm/test:8.*openai/other:8.*embed"):
            await call
    await index.drop("c-1")
    await index.upsert("c-1", "openai/other:8", [2], vectors(1))


async def test_numbers_and_vectors_must_match(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="2 numbers for 1"):
        await index.upsert("c-1", PRINT, [1, 2], vectors(1))


def open_files(folder: Path) -> list[str]:
    """The files below `folder` that this process has open."""
    links = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return [link for link in links if link.startswith(str(folder))]


async def test_lasts_and_lets_go_of_its_files(tmp_path: Path) -> None:
    one, two = VectorIndex(tmp_path / "one"), VectorIndex(tmp_path / "two")
    await asyncio.gather(one.open(), two.open())
    await one.upsert("c-1", PRINT, [1], vectors(1))
    assert await two.count("c-1") == 0
    await one.close()
    await one.close()
    for call in (one.count("c-1"), one.upsert("c-1", PRINT, [2], vectors(1))):
        with pytest.raises(RuntimeError, match="not open"):
            await call
    await two.close()
    if Path("/proc/self/fd").exists():
        for _ in range(500):  # the index's thread ends by itself, and with it what it had open
            if not open_files(tmp_path):
                break
            await asyncio.sleep(0.01)
        assert not open_files(tmp_path)
    await one.open()
    assert [n for n, _ in await one.query("c-1", PRINT, vectors(1)[0], 1)] == [1]
    await one.close()


async def test_calls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: called.append(arguments) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: called.append(address))
    index = VectorIndex(tmp_path / "chroma")
    await index.open()
    await index.upsert("c-1", PRINT, [1], vectors(1))
    await index.query("c-1", PRINT, vectors(1)[0], 1)
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
        await index.upsert("needles", "model:64", [int(i) for i in order], vectors[order])
        wanted = range(len(crowd), len(vectors))
        found = [(await index.query("needles", "model:64", vectors[i], 10))[0][0] == i for i in wanted]
        assert sum(found) >= 38
    finally:
        await index.close()
