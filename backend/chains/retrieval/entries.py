"""What the indexes store of a chunk: its vectors, the offsets of its sentences, its terms."""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backend.chains.reading.parsed import ParsedDocument
from backend.chains.retrieval.chunking import Chunk
from backend.chains.retrieval.embeddings import Embedder, EmbeddingInput
from backend.chains.text.sentences import sentences
from backend.chains.text.terms import about_terms, body_terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

SentenceOffsets = list[tuple[int, int]]

_SHORT_SENTENCE = 12
"""Characters. A shorter sentence is joined with its neighbour."""


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A chunk with what gives its text a meaning: the document's title, the headings, a table's header (`context`)."""

    text: str
    title: str | None
    heading: str | None
    context: str | None

    @classmethod
    def from_document(cls, parsed: ParsedDocument, chunk: Chunk) -> Self:
        """The text of a chunk of a document."""
        return cls(parsed.text[chunk.start : chunk.end], parsed.title, chunk.heading, chunk.context)

    def indexed(self) -> str:
        """The text that is embedded: title, headings and context as lines above the chunk's own text."""
        above = [part for part in (self.title, self.heading, self.context) if part]
        if self.title and self.heading and self.heading.split(" > ", 1)[0] == self.title:
            del above[0]
        return "\n".join([*above, self.text])


def terms(chunk: ChunkText, offsets: SentenceOffsets, name: str, language: str | None) -> tuple[str, str]:
    """The terms of title, name, headings and context, and those of the chunk's own text, one line per sentence."""
    about = about_terms(language, chunk.title, name, chunk.heading, chunk.context)
    return about, body_terms([chunk.text[start:end] for start, end in offsets], language)


def sentence_offsets(text: str) -> SentenceOffsets:
    """The offsets of a chunk's sentences. Very short ones are joined with a neighbour, because each costs a vector."""
    offsets: SentenceOffsets = []
    for start, end in sentences(text):
        if offsets and offsets[-1][1] - offsets[-1][0] < _SHORT_SENTENCE:
            offsets[-1] = (offsets[-1][0], end)
        else:
            offsets.append((start, end))
    if len(offsets) > 1 and offsets[-1][1] - offsets[-1][0] < _SHORT_SENTENCE:
        start, end = offsets.pop()
        offsets[-1] = (offsets[-1][0], end)
    return offsets or [(0, len(text))]


async def embed(embedder: Embedder, chunks: Sequence[ChunkText], offsets: Sequence[SentenceOffsets]) -> "list[Vectors]":
    """One matrix per chunk: the chunk's vector, then one for each of its sentences (see `Embedder.embed_chunks`)."""
    texts: list[EmbeddingInput] = []
    for chunk, own in zip(chunks, offsets, strict=True):
        text = chunk.indexed()
        above = len(text) - len(chunk.text)
        texts.append(EmbeddingInput(text, [(above + start, above + end) for start, end in own]))
    return await embedder.embed_chunks(texts)


def pack_offsets(offsets: SentenceOffsets) -> bytes:
    """The offsets as stored: pairs of little-endian uint32."""
    numbers = array("I", [number for pair in offsets for number in pair])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpack_offsets(stored: bytes) -> SentenceOffsets:
    """The offsets that `pack_offsets` stored."""
    numbers = array("I", stored)
    if sys.byteorder == "big":
        numbers.byteswap()
    return [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)]


def pack_vectors(vectors: "Vectors") -> bytes:
    """The rows as int8: they take a quarter of the space, and cosines change by less than half a percent."""
    import numpy as np

    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
    scaled = vectors * (127.0 / largest)
    return np.asarray(np.rint(scaled), np.int8).tobytes()


def unpack_vectors(stored: bytes, dimension: int) -> "Vectors":
    """The rows that `pack_vectors` stored, as float32 rows of length 1."""
    import numpy as np

    rows = np.frombuffer(stored, np.int8).reshape(-1, dimension).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows
