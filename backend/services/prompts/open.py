"""Opens the prompts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from backend.services.foundation import Core
from backend.services.prompts.prompts import PromptService
from backend.storage.prompts import Prompts


@asynccontextmanager
async def opened(core: Core) -> AsyncGenerator[PromptService]:
    """The prompts of all owners. There is nothing to close."""
    yield PromptService(Prompts(core.database))
