"""What the indexes hold of a chunk: its vectors, where its sentences stand, its terms. And how that is stored."""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backend.chains.reading.parsed import ParsedDocument
from backend.chains.retrieval.chunking import Chunk
from backend.chains.retrieval.embeddings import EmbeddedText, Embedder
from backend.chains.text.sentences import sentences
from backend.chains.text.terms import about_terms, body_terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

SentenceOffsets = list[tuple[int, int]]

_SHORT = 12
"""Characters."""


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A chunk as it is read: its own text below what stands above it (title, headings, a table's header)."""

    text: str
    title: str | None
    heading: str | None
    context: str | None

    @classmethod
    def of(cls, parsed: ParsedDocument, chunk: Chunk) -> Self:
        """A chunk of a document."""
        return cls(parsed.text[chunk.start : chunk.end], parsed.title, chunk.heading, chunk.context)

    def indexed(self) -> str:
        """What is embedded."""
        above = [part for part in (self.title, self.heading, self.context) if part]
        if self.title and self.heading and self.heading.split(" > ", 1)[0] == self.title:
            del above[0]
        return "\n".join([*above, self.text])


def terms(chunk: ChunkText, spans: SentenceOffsets, name: str, language: str | None) -> tuple[str, str]:
    """Terms of what stands above a chunk (and the document's name), and of its own text, a line a sentence."""
    about = about_terms(language, chunk.title, name, chunk.heading, chunk.context)
    return about, body_terms([chunk.text[start:end] for start, end in spans], language)


def spans_of(text: str) -> SentenceOffsets:
    """Where the sentences of a chunk stand in it. Those that are too short to say something go with their neighbours:
    each costs a vector."""
    spans: SentenceOffsets = []
    for start, end in sentences(text):
        if spans and spans[-1][1] - spans[-1][0] < _SHORT:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] < _SHORT:
        start, end = spans.pop()
        spans[-1] = (spans[-1][0], end)
    return spans or [(0, len(text))]


async def embed(embedder: Embedder, chunks: Sequence[ChunkText], spans: Sequence[SentenceOffsets]) -> "list[Vectors]":
    """A matrix a chunk: its vector, then one for each of its sentences (see `Embedder.embed_chunks`)."""
    texts: list[EmbeddedText] = []
    for chunk, own in zip(chunks, spans, strict=True):
        text = chunk.indexed()
        above = len(text) - len(chunk.text)
        texts.append(EmbeddedText(text, [(above + start, above + end) for start, end in own]))
    return await embedder.embed_chunks(texts)


def pack_spans(spans: SentenceOffsets) -> bytes:
    """Pairs of little-endian uint32."""
    offsets = array("I", [offset for span in spans for offset in span])
    if sys.byteorder == "big":
        offsets.byteswap()
    return offsets.tobytes()


def unpack_spans(stored: bytes) -> SentenceOffsets:
    """See `pack_spans`."""
    offsets = array("I", stored)
    if sys.byteorder == "big":
        offsets.byteswap()
    return [(offsets[i], offsets[i + 1]) for i in range(0, len(offsets), 2)]


def pack_vectors(vectors: "Vectors") -> bytes:
    """Rows as int8: a quarter of the room, and cosines within half a percent."""
    import numpy as np

    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
    scaled = vectors * (127.0 / largest)
    return np.asarray(np.rint(scaled), np.int8).tobytes()


def unpack_vectors(stored: bytes, dimension: int) -> "Vectors":
    """Stored rows as float32 rows of length 1."""
    import numpy as np

    rows = np.frombuffer(stored, np.int8).reshape(-1, dimension).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows
