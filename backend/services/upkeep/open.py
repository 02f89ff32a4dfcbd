"""Opens the upkeep of DATA_DIR: the watch over its lock, files and disk, and the deletion of what is too old."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from backend.config.settings import Settings
from backend.errors import StreamForgeError
from backend.services.foundation import Core
from backend.services.upkeep.retention import Retention
from backend.services.upkeep.watch import DataWatch
from backend.storage.engine.lock import DataDirLock

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_CLEAN_SECONDS = 3_600.0
_FIRST_CLEAN_SECONDS = 60.0


@asynccontextmanager
async def opened(
    settings: Settings,
    core: Core,
    lock: DataDirLock,
    has_vectors: Callable[[], bool],
    repair_vectors: Callable[[str], None],
) -> AsyncGenerator[None]:
    """The upkeep, until the end of the block. It reads two groups of settings: each names how long its data is kept."""
    watch = DataWatch(core.database, lock, core.data_dir, has_vectors, repair_vectors)
    days = settings.conversations.session_retention_days, settings.usage.usage_retention_days
    retention = Retention(core.database, *days)
    await _try(watch.look)
    tasks = [
        asyncio.create_task(_repeat(watch.look, _LOOK_SECONDS, _LOOK_SECONDS), name="data-watch"),
        asyncio.create_task(_repeat(retention.clean, _FIRST_CLEAN_SECONDS, _CLEAN_SECONDS), name="retention"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(work: Callable[[], Awaitable[None]], first: float, pause: float) -> None:
    await asyncio.sleep(first)
    while True:
        await _try(work)
        await asyncio.sleep(pause)


async def _try(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except StreamForgeError as error:
        log.warning("upkeep_failed", code=error.code)
    except Exception:
        log.exception("upkeep_failed")
