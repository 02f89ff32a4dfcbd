"""Chunks in the database, and the lexical index of a collection."""

import pytest

from backend.chains.retrieval.entries import unpack_spans
from backend.storage.engine.database import Database
from backend.storage.library.chunks import Chunks
from backend.storage.library.collections import Collections
from backend.storage.library.versions import Versions
from tests.support.storing import MODEL, VECTORS, ingested, new_chunk


async def test_a_chunk_comes_back_as_it_was_stored(database: Database) -> None:
    collection, document, version, n = await ingested(database, "a")
    chunks = Chunks(database)
    (row,) = (await chunks.rows([n, n + 1])).values()
    assert (row.n, row.collection_id, row.document_id, row.version_id) == (n, collection, document, version)
    assert (row.name, row.title, row.text, row.after) == ("a.txt", None, "words", None)
    assert (row.start, row.end, unpack_spans(row.spans)) == (0, 5, [(0, 5)])
    (found,) = await chunks.candidates("a", collection, [collection], MODEL, [n, n + 1])
    assert (found.document_id, found.about, found.body, found.vectors) == (document, "a txt", "words", VECTORS)
    assert await chunks.vectors(MODEL, n, n) == [(n, VECTORS)]
    assert await chunks.vectors("other/model:4", n, n) == []
    assert await chunks.stored(version) == {(n, 0, 5)}


async def test_candidates_are_of_active_versions_in_the_collections_asked_for(database: Database) -> None:
    collection, document, version, n = await ingested(database, "a")
    chunks = Chunks(database)
    assert await chunks.candidates("a", collection, [collection], MODEL, [n])
    assert await chunks.candidates("a", collection, ["col_other"], MODEL, [n]) == []
    assert await chunks.candidates("a", "col_other", [collection], MODEL, [n]) == []
    assert await chunks.candidates("a", collection, [collection], "other/model:4", [n]) == []
    await Versions(database).begin_delete([document])
    assert await chunks.candidates("a", collection, [collection], MODEL, [n]) == []
    assert await chunks.rows([n]) == {}
    assert await chunks.stored(version), "still there to be removed"


async def test_storing_again_replaces_and_a_version_that_is_gone_is_told(database: Database) -> None:
    collection, _, version, n = await ingested(database, "a")
    chunks = Chunks(database)
    assert await chunks.add(collection, MODEL, version, [new_chunk(n, "others")])
    assert await chunks.match(collection, ["words"], 9) == []
    assert [hit for hit, _ in await chunks.match(collection, ["others"], 9)] == [n]
    assert not await chunks.add(collection, MODEL, "ver_gone", [new_chunk(n + 1)])
    assert await chunks.vectors(MODEL, 0, 99) == [(n, VECTORS)]


async def texts(database: Database, *bodies: str) -> tuple[str, int]:
    """A collection with chunks of these terms; the number of the first."""
    collection, _, version, _ = await ingested(database, "a")
    first = await Chunks(database).reserve(version, len(bodies))
    assert first is not None
    rows = [new_chunk(first + at, body, at) for at, body in enumerate(bodies)]
    assert await Chunks(database).add(collection, MODEL, version, rows)
    return collection, first


async def test_terms_match_whole_best_first_and_any_of_them(database: Database) -> None:
    collection, first = await texts(database, "rent due", "rent rent", "cat", "rental")
    chunks = Chunks(database)
    found = await chunks.match(collection, ["rent", "due"], 9)
    assert [n - first for n, _ in found] == [0, 1]
    assert found[0][1] > found[1][1] > 0
    assert [n - first for n, _ in await chunks.match(collection, ["rent", "due"], 1)] == [0]
    in_range = await chunks.match(collection, ["rent", "cat"], 9, [(first + 1, first + 1), (first + 2, first + 3)])
    assert {n - first for n, _ in in_range} == {1, 2}
    assert await chunks.match(collection, ["rent"], 9, []) == []
    assert await chunks.match(collection, [], 9) == await chunks.match("col_empty", ["rent"], 9) == []


@pytest.mark.parametrize("term", ["東京", "किताब", "strass", "½", "v2", "صلىاللهعليهوسلم", "ͺ", "\u0e31\u0e2a", "i"])
async def test_the_index_takes_every_term_as_it_is(database: Database, term: str) -> None:
    collection, first = await texts(database, f"before {term} behind", "cat")
    assert [n for n, _ in await Chunks(database).match(collection, [term], 9)] == [first]


@pytest.mark.parametrize("term", ['"', '""', "*", "NEAR", "a OR b", "-", "(", "about:a", "^word", "word*"])
async def test_a_term_is_no_query_language(database: Database, term: str) -> None:
    collection, _ = await texts(database, "cat", "wordsmith")
    assert await Chunks(database).match(collection, [term], 9) == []


@pytest.mark.parametrize("id_", ["col_1; DROP TABLE chunks", "", 'a"b', "a-b", "a b"])
async def test_nothing_but_an_id_becomes_the_name_of_a_table(database: Database, id_: str) -> None:
    with pytest.raises(ValueError, match="collection"):
        await Chunks(database).match(id_, ["words"], 9)


async def test_vectors_of_another_embedding_lie_beside_the_first(database: Database) -> None:
    _, _, version, n = await ingested(database, "a")
    chunks = Chunks(database)
    await chunks.add_vectors("other/model:4", [(n, b"abcd"), (n + 1, b"gone")])
    assert await chunks.vectors("other/model:4", 0, 99) == [(n, b"abcd")]
    assert await chunks.vectors(MODEL, 0, 99) == [(n, VECTORS)]
    await chunks.remove_vectors(MODEL, [n])
    assert await chunks.vectors(MODEL, 0, 99) == []
    assert [c.text for c in await chunks.texts(version, 0, 9)] == ["words"]


async def test_terms_are_copied_to_another_collection_and_removed_from_one(database: Database) -> None:
    source, _, version, n = await ingested(database, "a")
    target = (await Collections(database).create("a", "other")).id
    chunks = Chunks(database)
    await chunks.copy_terms(version, source, target)
    assert [hit for hit, _ in await chunks.match(target, ["words"], 9)] == [n]
    await chunks.set_about(target, [(n, "renamed")])
    assert [hit for hit, _ in await chunks.match(target, ["renamed"], 9)] == [n]
    assert await chunks.match(source, ["renamed"], 9) == []
    await chunks.remove_terms(source, [n])
    assert await chunks.match(source, ["words"], 9) == []
    assert await chunks.match(target, ["words"], 9)


async def test_numbers_of_chunks_are_never_used_twice(database: Database) -> None:
    _, document, version, n = await ingested(database, "a")
    changes, chunks = Versions(database), Chunks(database)
    assert await chunks.reserve(version, 1) == n, "asked again, the same"
    (gone,) = await changes.begin_delete([document])
    assert (gone.id, gone.first, gone.chunks) == (version, n, 1)
    assert await chunks.remove(gone.collection_id, [version]) == 1
    await changes.end_delete([document])
    assert (await ingested(database, "a"))[3] > n
    assert await chunks.reserve("ver_unknown", 1) is None
