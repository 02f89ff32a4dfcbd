"""Text to vectors. One file a provider, found by its `PLUGIN`; a model is named `provider/model`.

embedder = open_embedder("minilm/all-MiniLM-L6-v2", settings)
await embedder.prepare()
vectors = await embedder.embed_passages(["one", "two"])     # float32 (2, embedder.dimension), rows of length
1
"""

import importlib
import pkgutil
from functools import cache

from backend.chains.retrieval.embeddings._base import (
    Embedded,
    EmbeddedText,
    Embedder,
    EmbeddingPlugin,
    EmbeddingSettings,
    paid_by,
)
from backend.errors import EmbeddingMismatch

__all__ = [
    "Embedded",
    "EmbeddedText",
    "Embedder",
    "Embedders",
    "EmbeddingPlugin",
    "EmbeddingSettings",
    "open_embedder",
    "paid_by",
    "providers",
]


@cache
def providers() -> dict[str, EmbeddingPlugin]:
    """Every provider by its name: the modules of this folder, less those whose name begins with an
    underscore.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    plugins: list[EmbeddingPlugin] = [importlib.import_module(f"{__name__}.{name}").PLUGIN for name in names]
    return {plugin.name: plugin for plugin in plugins}


def open_embedder(name: str, settings: EmbeddingSettings) -> Embedder:
    """The embedder called `provider/model`. Loads nothing and calls nobody yet: that is `prepare()`.

    Raises ValueError, with what is allowed, for a name of another form or an unknown provider or model.
    """
    provider, slash, model = name.partition("/")
    plugin = providers().get(provider)
    if not slash or not model or plugin is None:
        allowed = ", ".join(sorted(plugin.example for plugin in providers().values()))
        raise ValueError(f"unknown embedding model {name!r}: write provider/model, for example {allowed}")
    return plugin.open(model, settings)


class Embedders:
    """Embedders by what they made: a collection is searched with the model that embedded it, whatever is set now."""

    def __init__(self, default: str, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self.name = default
        self.default = open_embedder(default, settings)
        self._open: dict[str, Embedder] = {default: self.default}

    async def of(self, fingerprint: str | None) -> Embedder:
        """The embedder of a collection, prepared; the default one for a collection that holds nothing yet.

        Raises EmbeddingMismatch when this server can't embed as the collection was embedded, EmbeddingFailed.
        """
        if fingerprint is None:
            await self.default.prepare()
            return self.default
        name = fingerprint.rpartition(":")[0]
        try:
            embedder = self._open.get(name) or self._open.setdefault(name, open_embedder(name, self._settings))
        except ValueError as error:
            raise EmbeddingMismatch(_cannot(fingerprint, str(error))) from None
        await embedder.prepare()
        if embedder.fingerprint != fingerprint:
            raise EmbeddingMismatch(_cannot(fingerprint, f"it now makes {embedder.fingerprint}"))
        return embedder

    async def named(self, name: str) -> Embedder:
        """The embedder called `provider/model`, prepared. Raises ValueError (see `open_embedder`), EmbeddingFailed."""
        embedder = self._open.get(name) or self._open.setdefault(name, open_embedder(name, self._settings))
        await embedder.prepare()
        return embedder

    async def aclose(self) -> None:
        """Close every embedder."""
        for embedder in self._open.values():
            await embedder.aclose()


def _cannot(fingerprint: str, why: str) -> str:
    return (
        f"This collection was embedded by {fingerprint}, which this server can't use: {why}. Make that model available "
        "again, or embed the collection anew (POST /collections/{id}/embed)."
    )
