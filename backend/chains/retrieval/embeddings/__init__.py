"""Text to vectors. One file a provider, found by its `PLUGIN`; a model is named `provider/model`.

embedder = open_embedder("minilm/all-MiniLM-L6-v2", settings)
await embedder.prepare()
vectors = await embedder.embed_passages(["one", "two"])     # float32 (2, embedder.dimension), rows of length
1
"""

import importlib
import pkgutil
from functools import cache

from backend.chains.retrieval.embeddings._base import Embedder, EmbeddingPlugin, EmbeddingSettings

__all__ = ["Embedder", "EmbeddingPlugin", "EmbeddingSettings", "open_embedder", "providers"]


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
