"""What the indexes hold of a chunk, and that it comes back as it was stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.chains.reading.parsed import ParsedDocument
from backend.chains.retrieval.chunking import chunk
from backend.chains.retrieval.entries import (
    ChunkText,
    pack_offsets,
    pack_vectors,
    sentence_offsets,
    terms,
    unpack_offsets,
    unpack_vectors,
)

OFFSET = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(OFFSET, OFFSET), max_size=20))
def test_spans_come_back(spans: list[tuple[int, int]]) -> None:
    assert unpack_offsets(pack_offsets(spans)) == spans


def test_spans_are_stored_little_endian_whatever_the_machine_is() -> None:
    assert pack_offsets([(1, 258)]) == bytes([1, 0, 0, 0, 2, 1, 0, 0])


def rows(seed: int, count: int, dimension: int, length: float) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return (found * (length / np.linalg.norm(found, axis=1, keepdims=True))).astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([8, 384, 1536]), st.sampled_from([1e-3, 1.0, 50.0]))
def test_vectors_come_back_with_length_one_and_nearly_their_direction(
    seed: int, count: int, dimension: int, length: float
) -> None:
    vectors = rows(seed, count, dimension, length)
    stored = pack_vectors(vectors)
    assert len(stored) == count * dimension
    found = unpack_vectors(stored, dimension)
    assert found.shape == vectors.shape and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.all((found * vectors).sum(axis=1) / length > 0.999)


def test_a_vector_of_zeros_stays_one() -> None:
    assert not unpack_vectors(pack_vectors(np.zeros((2, 8), np.float32)), 8).any()


def test_the_cosines_of_stored_vectors_are_those_of_the_vectors() -> None:
    one, other = rows(1, 50, 384, 1.0), rows(2, 50, 384, 1.0)
    stored = unpack_vectors(pack_vectors(one), 384)
    assert np.abs(stored @ other.T - one @ other.T).max() < 0.005


@pytest.mark.parametrize(
    ("title", "heading", "context", "expected"),
    [
        (None, None, None, "Text."),
        ("Lease", None, None, "Lease\nText."),
        ("Lease", "Rent", "Month | Sum", "Lease\nRent\nMonth | Sum\nText."),
        ("Lease", "Lease > Rent", None, "Lease > Rent\nText."),
        ("Lease", "Leases > Rent", None, "Lease\nLeases > Rent\nText."),
        (None, None, "Month | Sum", "Month | Sum\nText."),
    ],
)
def test_what_stands_above_a_chunk_is_embedded_with_it_the_title_once(
    title: str | None, heading: str | None, context: str | None, expected: str
) -> None:
    assert ChunkText("Text.", title, heading, context).indexed() == expected


def test_terms_of_a_chunk_are_a_line_a_sentence_and_the_name_stands_above() -> None:
    text = "The rent is due. It is 40 crowns."
    chunk_text = ChunkText(text, "Lease", "Payments", None)
    about, body = terms(chunk_text, sentence_offsets(text), "my-lease.pdf", "english")
    assert about == "leas my pdf payment"
    assert body == "the rent i due\nit i 40 crown"


@given(st.text(alphabet="ab. \n!。A", max_size=60))
def test_every_chunk_has_a_sentence_and_a_line_for_each(text: str) -> None:
    spans = sentence_offsets(text)
    assert spans
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert len(terms(ChunkText(text, None, None, None), spans, "a", None)[1].split("\n")) == len(spans)


def test_a_chunk_of_a_document_is_its_slice() -> None:
    text = "One sentence is here. " * 60
    parsed = ParsedDocument(text=text, media_type="text/plain", title="Title")
    pieces = chunk(parsed, 300)
    assert len(pieces) > 2
    for piece in pieces:
        found = ChunkText.from_document(parsed, piece)
        assert (found.text, found.title) == (text[piece.start : piece.end], "Title")


def test_what_is_too_short_to_say_something_goes_with_its_neighbours() -> None:
    letters = " ".join(f"{letter}!" for letter in "ABCDEFGH" * 50)
    spans = sentence_offsets(letters)
    assert (spans[0][0], spans[-1][1]) == (0, len(letters))
    assert len(spans) <= len(letters) / 12
    assert all(end - start < 40 for start, end in spans)
    yes = "Yes. The lighthouse keeper leaves at nine in the morning. No."
    assert [yes[start:end] for start, end in sentence_offsets(yes)] == [yes]
