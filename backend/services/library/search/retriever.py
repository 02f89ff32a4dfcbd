"""What answers use to search: one owner's documents, within the scope of one request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from typing_extensions import override

from backend.chains.passages import Passage, Retriever, SearchTrace
from backend.services.library.search.search import LibrarySearch, Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_NAMES = 30


@dataclass(slots=True)
class LibraryRetriever(Retriever):
    """Searches what one request may see. `top_k` is the maximum number of passages."""

    search: LibrarySearch
    owner: str
    top_k: int
    scope: Scope
    vectors: "dict[str, NDArray[np.float32]]" = field(default_factory=dict[str, "NDArray[np.float32]"])
    """The vectors of texts that were compared before."""

    @override
    async def has_documents(self) -> bool:
        return await self.search.has_documents(self.owner)

    @override
    async def document_names(self) -> list[str]:
        return await self.search.document_names(self.owner, self.scope, _MAX_NAMES)

    @override
    async def retrieve(self, queries: Sequence[tuple[str, float]]) -> tuple[list[Passage], SearchTrace]:
        outcome = await self.search.search(self.owner, queries, self.top_k, self.scope)
        return outcome.passages, SearchTrace(msgspec.json.encode(outcome.explanation).decode())

    @override
    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        return await self.search.similarity(self.owner, text, others, self.vectors) if others else []

    @override
    async def page_at(self, version: str, offset: int) -> int | None:
        return await self.search.page_at(version, offset)
