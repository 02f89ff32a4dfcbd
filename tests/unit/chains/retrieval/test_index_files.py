"""Damage of the index's files is found before Chroma opens them: it would end the process."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from backend.chains.retrieval import index_files
from backend.chains.retrieval.index import IndexDamaged, VectorIndex

COUNT = 1_100
"""More vectors than Chroma keeps without writing the graph."""
pytestmark = pytest.mark.asyncio(loop_scope="module")


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def written(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """The folder of an index with a written graph."""
    folder = tmp_path_factory.mktemp("index") / "vectors"
    index = VectorIndex(folder)
    await index.open()
    await index.upsert("c-0", "test:8", range(1, COUNT + 1), vectors(COUNT))
    await index.close()
    assert list(folder.glob("*/header.bin")), "without a graph on disk this tests nothing"
    yield folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "vectors"))


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for file in folder.glob(f"*/{name}"):
            os.truncate(file, file.stat().st_size // 2)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for file in folder.glob(f"*/{name}"):
            file.unlink()

    return damage


def scramble(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for file in folder.glob(name):
            file.write_bytes(os.urandom(file.stat().st_size))

    return damage


def half_zeros(file: Path) -> None:
    """What a power cut leaves: the file has its size, but not its end."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


DAMAGE = {
    **{f"{name} cut": cut(name) for name in ("data_level0.bin", "length.bin", "link_lists.bin", "header.bin")},
    **{f"{name} gone": remove(name) for name in ("data_level0.bin", "length.bin", "link_lists.bin")},
    "elements scrambled": scramble("*/data_level0.bin"),
    "elements half written": lambda folder: [half_zeros(file) for file in folder.glob("*/data_level0.bin")] and None,
    "header scrambled": scramble("*/header.bin"),
    "database scrambled": scramble("chroma.sqlite3"),
    "database cut": lambda folder: os.truncate(folder / "chroma.sqlite3", 20_000),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_damaged_files_are_not_opened_and_can_be_replaced(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    index = VectorIndex(folder)
    with pytest.raises(IndexDamaged):
        await index.open()
    await index.reset()
    try:
        assert await index.keys() == set()
        await index.upsert("c-0", "test:8", [1, 2], vectors(2))
        assert [n for n, _ in await index.query("c-0", "test:8", vectors(1)[0], 5)] == [1, 2]
    finally:
        await index.close()


async def test_whole_files_are_opened(folder: Path) -> None:
    assert index_files.find_damage(folder) is None
    index = VectorIndex(folder)
    await index.open()
    assert await index.count("c-0") == COUNT
    await index.close()
    assert index_files.find_damage(folder.with_name("none")) is None


async def test_damage_that_only_use_shows_is_reported(folder: Path) -> None:
    for file in folder.glob("*/index_metadata.pickle"):
        file.write_bytes(os.urandom(1_000))
    index, reports = VectorIndex(folder), list[str]()
    index.on_damage = reports.append
    await index.open()
    with pytest.raises(IndexDamaged):
        await index.query("c-0", "test:8", vectors(1)[0], 5)
    assert len(reports) == 1 and reports[0]
    await index.reset()
    assert await index.keys() == set()
    await index.close()


async def test_a_wrong_dimension_is_damage(folder: Path) -> None:
    index = VectorIndex(folder)
    await index.open()
    with pytest.raises(IndexDamaged):
        await index.query("c-0", "test:8", np.ones(5, np.float32), 5)
    await index.close()


async def test_starts_that_die_while_they_load_are_counted(folder: Path) -> None:
    for _ in range(2):
        assert index_files.find_damage(folder) is None
        index_files.begin_loading(folder)
    assert "died" in (index_files.find_damage(folder) or "")
    index_files.end_loading(folder)
    assert index_files.find_damage(folder) is None
