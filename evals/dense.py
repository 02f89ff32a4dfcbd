"""The plain dense recipe, as most people write it: RecursiveCharacterTextSplitter 1000/200, MiniLM in fp32, Chroma
with cosine, the top k. In this process, without a server; the reader of files and the embedder are StreamForge's, so
that only the retrieval differs."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings
from langchain_text_splitters import RecursiveCharacterTextSplitter

from backend.chains.reading.parser import Parser
from backend.chains.retrieval.embeddings import EmbeddingSettings, open_embedder

from .metrics import DEPTH, Passage
from .questions import Question

_BATCH = 5000  # rows that Chroma takes at once


class DenseRecipe:
    """Documents and the search in them. Closed by `with`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner = asyncio.Runner()
        threads = max(1, (os.cpu_count() or 2) // 2)  # as the server takes
        self._embedder = open_embedder("minilm/all-MiniLM-L6-v2", EmbeddingSettings(folder, threads=threads))
        self._runner.run(self._embedder.prepare())
        self._parser = Parser()
        self._splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200, add_start_index=True)
        settings = Settings(_env_file=None, anonymized_telemetry=False)  # pyright: ignore[reportCallIssue]
        self._chroma = chromadb.PersistentClient(str(folder / "chroma"), settings)
        self._vectors = self._chroma.create_collection(
            "documents", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def __enter__(self) -> "DenseRecipe":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._parser.aclose())
        self._runner.run(self._embedder.aclose())
        self._runner.close()

    def add(self, files: Mapping[str, tuple[str, bytes]]) -> float:
        """Make files (name and content, by document id) searchable; the seconds that it took."""
        began = time.perf_counter()
        for document, (name, content) in files.items():
            self._runner.run(self._add(document, name, content))
        return time.perf_counter() - began

    async def _add(self, document: str, name: str, content: bytes) -> None:
        path = self._folder / "file"
        path.write_bytes(content)
        parsed = await self._parser.parse(path, name)
        pieces = self._splitter.create_documents([parsed.text])
        rows: list[dict[str, Any]] = []
        for piece in pieces:
            start = piece.metadata["start_index"]
            row = {"document": document, "start": start, "end": start + len(piece.page_content)}
            page = parsed.page_at(start)
            rows.append(row if page is None else {**row, "page": page})
        vectors = await self._embedder.embed_passages([piece.page_content for piece in pieces])
        for at in range(0, len(rows), _BATCH):
            part = slice(at, at + _BATCH)
            ids = [f"{document}-{number}" for number in range(at, at + len(rows[part]))]
            self._vectors.add(ids=ids, embeddings=vectors[part], metadatas=rows[part])  # pyright: ignore[reportArgumentType]

    def search(self, question: Question) -> tuple[list[Passage], float]:
        """The nearest passages and how many seconds it took."""
        began = time.perf_counter()
        vector = self._runner.run(self._embedder.embed_query(question.text))
        found = self._vectors.query(query_embeddings=[vector], n_results=DEPTH, include=["metadatas"])
        seconds = time.perf_counter() - began
        rows: list[Any] = (found["metadatas"] or [[]])[0]
        return [Passage(row["document"], row["start"], row["end"], row.get("page")) for row in rows], seconds
