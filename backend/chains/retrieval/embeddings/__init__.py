"""Computes vectors of texts. There is one file per provider, with a `PLUGIN`; a model is named `provider/model`.

embedder = open_embedder("minilm/all-MiniLM-L6-v2", settings)
await embedder.prepare()
vectors = await embedder.embed_passages(["one", "two"])  # float32 (2, embedder.dimension), rows of length 1
"""

import importlib
import pkgutil
from functools import cache

from backend.chains.retrieval.embeddings._base import (
    Embedder,
    EmbeddingInput,
    EmbeddingPlugin,
    EmbeddingSettings,
    EmbeddingUsage,
    charge_embeddings_to,
)
from backend.errors import EmbeddingMismatch

__all__ = [
    "Embedder",
    "Embedders",
    "EmbeddingInput",
    "EmbeddingPlugin",
    "EmbeddingSettings",
    "EmbeddingUsage",
    "charge_embeddings_to",
    "open_embedder",
    "providers",
]


@cache
def providers() -> dict[str, EmbeddingPlugin]:
    """All providers by name: the modules of this folder whose name doesn't begin with an underscore."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    plugins: list[EmbeddingPlugin] = [importlib.import_module(f"{__name__}.{name}").PLUGIN for name in names]
    return {plugin.name: plugin for plugin in plugins}


def open_embedder(name: str, settings: EmbeddingSettings) -> Embedder:
    """The embedder of a name `provider/model`. `prepare()` loads it later; this sends no request.

    Raises ValueError with the allowed names for another form, or an unknown provider or model.
    """
    provider, slash, model = name.partition("/")
    plugin = providers().get(provider)
    if not slash or not model or plugin is None:
        allowed = ", ".join(sorted(plugin.example for plugin in providers().values()))
        raise ValueError(f"unknown embedding model {name!r}: write provider/model, for example {allowed}")
    return plugin.open(model, settings)


class Embedders:
    """The open embedders: a collection is searched with the model that embedded it, not with EMBEDDING_MODEL."""

    def __init__(self, default: str, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self.name = default
        self.default = open_embedder(default, settings)
        self._open: dict[str, Embedder] = {default: self.default}

    async def by_fingerprint(self, fingerprint: str | None) -> Embedder:
        """The prepared embedder of a collection. An empty collection has the fingerprint None: the default embedder.

        Raises EmbeddingMismatch if this server can't use the collection's model, EmbeddingFailed.
        """
        if fingerprint is None:
            await self.default.prepare()
            return self.default
        name = fingerprint.rpartition(":")[0]
        try:
            embedder = self._open.get(name) or self._open.setdefault(name, open_embedder(name, self._settings))
        except ValueError as error:
            raise EmbeddingMismatch(_mismatch(fingerprint, str(error))) from None
        await embedder.prepare()
        if embedder.fingerprint != fingerprint:
            raise EmbeddingMismatch(_mismatch(fingerprint, f"it now makes {embedder.fingerprint}"))
        return embedder

    async def by_name(self, name: str) -> Embedder:
        """The prepared embedder called `provider/model`. Raises ValueError (see `open_embedder`), EmbeddingFailed."""
        embedder = self._open.get(name) or self._open.setdefault(name, open_embedder(name, self._settings))
        await embedder.prepare()
        return embedder

    async def aclose(self) -> None:
        """Close every embedder."""
        for embedder in self._open.values():
            await embedder.aclose()


def _mismatch(fingerprint: str, why: str) -> str:
    return (
        f"This collection was embedded by {fingerprint}, which this server can't use: {why}. Make that model available "
        "again, or embed the collection anew (POST /collections/{id}/embed)."
    )
