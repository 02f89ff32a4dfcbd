"""Vectors that are damaged or gone are rebuilt from the database, without a model, while the server answers."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.chains.retrieval.index import VectorIndex
from backend.services.library import restore
from tests.scenarios.support import ask, only_terminal, rows
from tests.support.harness import Running, serving

TEXTS = {f"{n}.txt": f"The harbour number {n} closes at {n} o'clock in winter." for n in range(1, 4)}


class Panic(BaseException):
    """What Chroma's native code raises when it panics: no Exception."""


async def filled(server: Running) -> None:
    for name, text in TEXTS.items():
        assert (await server.upload(name, text.encode()))["status"] == "ready"


async def found(server: Running, mode: str = "dense") -> set[str]:
    response = await server.client.post("/search", json={"query": "When does the harbour close?", "mode": mode})
    assert response.status_code == 200, response.text
    return {passage["filename"] for passage in response.json()["passages"]}


async def until_found(server: Running) -> None:
    async with asyncio.timeout(15):
        while await found(server) != set(TEXTS):
            await asyncio.sleep(0.05)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "gone": shutil.rmtree,
    "empty": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    "database cut": lambda folder: os.truncate(folder / "chroma.sqlite3", 10_000),
    "database empty": lambda folder: os.truncate(folder / "chroma.sqlite3", 0),
    "no database": lambda folder: (folder / "chroma.sqlite3").write_bytes(b"no database at all" * 1_000),
    "a file": lambda folder: [shutil.rmtree(folder), folder.write_text("a file")],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_start_with_damaged_vectors_restores_them_without_a_model(
    tmp_path: Path, damage: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "data") as server:
        await filled(server)
    damage(tmp_path / "data" / "vectors")
    async with serving(tmp_path / "data") as server:
        await until_found(server)
        assert rows(server, "SELECT count(*) FROM jobs WHERE stage != 'ready'") == [(0,)], "nothing is embedded again"
        assert only_terminal(await server.events(ask()))["type"] == "run.completed"
        assert set((await server.client.post("/documents/sweep")).json().values()) == {0}


@pytest.mark.parametrize("error", [RuntimeError("graph"), Panic()], ids=["error", "panic"])
async def test_damage_while_the_server_runs_is_repaired(
    server: Running, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    await filled(server)
    monkeypatch.setattr(restore, "_RETRY_SECONDS", 0.05)
    query, broken = VectorIndex._query, True

    def damaged(index: VectorIndex, *arguments: Any) -> Any:
        if broken:
            raise error
        return query(index, *arguments)

    monkeypatch.setattr(VectorIndex, "_query", damaged)
    assert await found(server) == set()
    assert await found(server, "hybrid") == set(TEXTS), "the words still find"
    assert only_terminal(await server.events(ask()))["type"] == "run.completed"
    broken = False
    await until_found(server)
    assert (await server.upload("new.txt", b"Another harbour."))["status"] == "ready"


async def test_vectors_that_the_database_lacks_are_embedded_again(tmp_path: Path) -> None:
    import sqlite3

    async with serving(tmp_path / "data") as server:
        await filled(server)
    shutil.rmtree(tmp_path / "data" / "vectors")
    connection = sqlite3.connect(tmp_path / "data" / "streamforge.db")
    with connection:
        connection.execute("DELETE FROM chunk_vectors WHERE n = (SELECT min(n) FROM chunk_vectors)")
    connection.close()
    async with serving(tmp_path / "data") as server:
        await until_found(server)
