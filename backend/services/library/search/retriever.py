"""What answers use to search: one owner's documents, within the scope of one request."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from typing_extensions import override

from backend.chains.passages import Passage, Retriever, SearchTrace
from backend.services.library.search.search import LibrarySearch, Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LibraryRetriever(Retriever):
    """Searches what one request may see. `top_k` is the maximum number of passages."""

    def __init__(self, search: LibrarySearch, owner: str, top_k: int, scope: Scope) -> None:
        self._search = search
        self._owner = owner
        self._top_k = top_k
        self._scope = scope
        self._known: dict[str, NDArray[np.float32]] = {}

    @override
    async def has_documents(self) -> bool:
        return await self._search.has_documents(self._owner)

    @override
    async def retrieve(self, queries: Sequence[tuple[str, float]]) -> tuple[list[Passage], SearchTrace]:
        outcome = await self._search.search(self._owner, queries, self._top_k, self._scope)
        return outcome.passages, SearchTrace(msgspec.json.encode(outcome.explanation).decode())

    @override
    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        return await self._search.similarity(self._owner, text, others, self._known) if others else []

    @override
    async def page_at(self, version: str, offset: int) -> int | None:
        return await self._search.page_at(version, offset)
