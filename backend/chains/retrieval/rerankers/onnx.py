"""A cross-encoder in this process: a folder with `model.onnx` and `tokenizer.json`, as model hubs have them."""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from backend.chains.retrieval.local_models import batches, open_session, tokenizable
from backend.chains.retrieval.rerankers._base import RerankerSettings, RerankFailed

_MODELS = ("model.onnx", "onnx/model.onnx")
# Tokens of query and text together; more is cut off, of the longer one first.
_MAX_TOKENS = 512


class _OnnxPlugin:
    name = "onnx"
    example = "onnx:/path/to/folder"

    def open(self, where: str, settings: RerankerSettings) -> "OnnxReranker":
        folder = Path(where).expanduser()
        model = next((folder / name for name in _MODELS if (folder / name).is_file()), None)
        if model is None or not (folder / "tokenizer.json").is_file():
            raise ValueError(f"{folder} must hold {' or '.join(_MODELS)}, and tokenizer.json")
        return OnnxReranker(folder, model, settings)


PLUGIN = _OnnxPlugin()


class OnnxReranker:
    """A cross-encoder in this process. It has one thread of its own; searches take turns on it."""

    def __init__(self, folder: Path, model: Path, settings: RerankerSettings) -> None:
        self.name = f"onnx:{folder.resolve().name}"
        self._folder = folder
        self._file = model
        self._threads = settings.threads
        self._executor = ThreadPoolExecutor(1, "rerank")
        self._loading = asyncio.Lock()
        self._model: _Model | None = None

    async def prepare(self) -> None:
        """Load the model, and try it."""
        await self._loaded()

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """A finite score for each text, in the order of `texts`. Raises RerankFailed."""
        model = await self._loaded()
        loop = asyncio.get_running_loop()
        pairs = [(query, text) for text in texts]
        tokens = await loop.run_in_executor(self._executor, model.tokenize, pairs)
        found: dict[int, float] = {}
        # One batch at a time, so that giving up takes effect and searches take turns.
        for batch in batches([len(each.ids) for each in tokens]):
            rows = [tokens[row] for row in batch]
            found.update(zip(batch, await loop.run_in_executor(self._executor, model.run, rows), strict=True))
        if not all(map(math.isfinite, found.values())):
            raise RerankFailed("its model gives scores that are no numbers")
        return [found[row] for row in range(len(texts))]

    async def aclose(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._model = None

    async def _loaded(self) -> "_Model":
        async with self._loading:
            if self._model is None:
                loop = asyncio.get_running_loop()
                try:
                    load = loop.run_in_executor(self._executor, _Model, self._folder, self._file, self._threads)
                    self._model = await load
                except Exception as error:
                    said = str(error).partition("\n")[0][:200]
                    raise RerankFailed(f"{self._file} can't be used as a reranker: {said}") from error
        return self._model


class _Model:
    """Tokenizer and session, for one thread."""

    def __init__(self, folder: Path, file: Path, threads: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.no_padding()
        # Models may tell from a token's id that it only pads.
        self._padding: int = next((n for n in map(self._tokenizer.token_to_id, ("[PAD]", "<pad>")) if n is not None), 0)
        self._session = open_session(file, threads)
        self._inputs = {each.name for each in self._session.get_inputs()}
        # As long as it gets: a model for shorter texts is found out here.
        self.run(self.tokenize([("warm", "up " * _MAX_TOKENS)]))

    def tokenize(self, pairs: list[tuple[str, str]]) -> list[Any]:
        return [self._tokenizer.encode(*(tokenizable(text, _MAX_TOKENS) for text in pair)) for pair in pairs]

    def run(self, texts: list[Any]) -> list[float]:
        """One batch: a score a text."""
        import numpy as np

        shape = (len(texts), max(len(tokens.ids) for tokens in texts))
        ids, mask, types = np.full(shape, self._padding, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, tokens in enumerate(texts):
            end = len(tokens.ids)
            ids[row, :end], mask[row, :end], types[row, :end] = tokens.ids, 1, tokens.type_ids
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        inputs = {name: value for name, value in given.items() if name in self._inputs}
        scores = np.asarray(self._session.run(None, inputs)[0], np.float32).reshape(len(texts), -1)
        match scores.shape[1]:
            case 1:
                return scores[:, 0].tolist()
            case 2:
                # One for "no", one for "yes".
                return (scores[:, 1] - scores[:, 0]).tolist()
            case labels:
                raise ValueError(f"it has {labels} outputs a text, a cross-encoder has 1 or 2")
