"""Rerankers: models that read the question and a passage together. One file a kind, found by its `PLUGIN`.

reranker = open_reranker("https://api.jina.ai/v1", RerankerSettings(model="jina-reranker-v2-base-multilingual"))
await reranker.scores("notice period", ["A month.", "The lighthouse."])     # [0.81, 0.03]
"""

import importlib
import pkgutil
from functools import cache

from backend.chains.retrieval.rerankers._base import Reranker, RerankerPlugin, RerankerSettings, RerankFailed

__all__ = ["RerankFailed", "Reranker", "RerankerPlugin", "RerankerSettings", "kinds", "open_reranker"]

# What a URL without a kind in front of it is taken for.
_USUAL = "cohere"


@cache
def kinds() -> dict[str, RerankerPlugin]:
    """Every kind by its name: the modules of this folder, less those whose name begins with an underscore."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    plugins: list[RerankerPlugin] = [importlib.import_module(f"{__name__}.{name}").PLUGIN for name in names]
    return {plugin.name: plugin for plugin in plugins}


def open_reranker(spec: str, settings: RerankerSettings) -> Reranker:
    """The reranker called `kind:url` or `kind:path`. Loads nothing and calls nobody yet: that is `prepare()`.

    Raises ValueError, with what is allowed, for another form, an unknown kind, or a path where no model is.
    """
    kind, _, where = spec.partition(":")
    if kind in ("http", "https"):
        kind, where = _USUAL, spec
    plugin = kinds().get(kind)
    if plugin is None or not where:
        allowed = ", ".join(plugin.example for plugin in kinds().values())
        raise ValueError(f"must be one of these forms: {allowed}; {_USUAL}: may be left out")
    return plugin.open(where, settings)
