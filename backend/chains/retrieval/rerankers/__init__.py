"""Rerankers: models that read the question and a passage together. One file a kind, found by its `PLUGIN`.

reranker = open_reranker("https://api.jina.ai/v1", RerankerSettings(model="jina-reranker-v2-base-multilingual"))
await reranker.scores("notice period", ["A month.", "The lighthouse."])     # [0.81, 0.03]
"""

import importlib
import pkgutil
from functools import cache

from backend.chains.retrieval.rerankers._base import Reranker, RerankerPlugin, RerankerSettings, RerankFailed

__all__ = ["RerankFailed", "Reranker", "RerankerPlugin", "RerankerSettings", "kinds", "open_reranker"]

# The kind of a URL that names none.
_DEFAULT_KIND = "cohere"


@cache
def kinds() -> dict[str, RerankerPlugin]:
    """All kinds by name: the modules of this folder whose name doesn't begin with an underscore."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    plugins: list[RerankerPlugin] = [importlib.import_module(f"{__name__}.{name}").PLUGIN for name in names]
    return {plugin.name: plugin for plugin in plugins}


def open_reranker(spec: str, settings: RerankerSettings) -> Reranker:
    """The reranker of a setting `kind:url` or `kind:path`. `prepare()` loads it later; this sends no request.

    Raises ValueError with the allowed forms for another form, an unknown kind, or a path without a model.
    """
    kind, _, where = spec.partition(":")
    if kind in ("http", "https"):
        kind, where = _DEFAULT_KIND, spec
    plugin = kinds().get(kind)
    if plugin is None or not where:
        allowed = ", ".join(plugin.example for plugin in kinds().values())
        raise ValueError(f"must be one of these forms: {allowed}; {_DEFAULT_KIND}: may be left out")
    return plugin.open(where, settings)
