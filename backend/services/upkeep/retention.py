"""Deletes what is older than the settings say, and gives its space back, in steps that hold up nobody."""

import asyncio

import structlog

from backend.kit.times import now_ms
from backend.storage.conversations.sessions import Sessions
from backend.storage.engine.database import Database
from backend.storage.usage.ledger import Ledger

log = structlog.get_logger(__name__)

_DAY_MS = 86_400_000
_PAUSE_SECONDS = 0.05
_KEPT_PAGES = 1_000
"""Free pages (4 MB) that the database keeps, because it fills them again soon."""
_PAGES = 256


class Retention:
    """Sessions that were idle for `session_days`, and calls that were booked `usage_days` ago, are deleted. None: they
    are kept."""

    def __init__(self, database: Database, session_days: float | None, usage_days: float | None) -> None:
        self._database = database
        self._sessions = Sessions(database)
        self._ledger = Ledger(database)
        self._session_days = session_days
        self._usage_days = usage_days

    async def clean(self) -> None:
        """Delete what is too old, then give free space back."""
        if self._session_days is not None:
            await self._delete_sessions(now_ms() - int(self._session_days * _DAY_MS))
        if self._usage_days is not None:
            await self._forget_calls(now_ms() - int(self._usage_days * _DAY_MS))
        await self._give_space_back()

    async def _delete_sessions(self, before: int) -> None:
        deleted = 0
        while idle := await self._sessions.idle(before):
            count = await self._sessions.delete_idle([session_id for _, session_id in idle], before)
            deleted += count
            if not count:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        if deleted:
            log.info("sessions_expired", sessions=deleted)

    async def _forget_calls(self, before: int) -> None:
        forgotten = 0
        while count := await self._ledger.forget(before):
            forgotten += count
            await asyncio.sleep(_PAUSE_SECONDS)
        if forgotten:
            log.info("usage_expired", calls=forgotten)

    async def _give_space_back(self) -> None:
        free = await self._database.free_pages()
        while free > _KEPT_PAGES:
            await self._database.give_back(_PAGES)
            before, free = free, await self._database.free_pages()
            if free >= before:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
