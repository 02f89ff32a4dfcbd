"""Opens the fetcher of web pages."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.config.fields import parse_hosts
from backend.config.groups.library import LibrarySettings
from backend.services.foundation import Core

if TYPE_CHECKING:
    from backend.services.web.fetching import Fetcher


@asynccontextmanager
async def opened(settings: LibrarySettings, core: Core) -> "AsyncGenerator[Fetcher | None]":
    """The fetcher, or None if URL_FETCH is off; then its modules are not imported."""
    if not settings.url_fetch:
        yield None
        return
    from backend.services.web.fetching import Fetcher

    fetcher = Fetcher(
        core.data_dir,
        max_bytes=settings.max_upload_mb * 1_000_000,
        allowed=parse_hosts(settings.url_allowed_hosts),
        seconds=settings.url_timeout,
        network=core.network,
        trusts_proxy=settings.url_proxy,
    )
    try:
        yield fetcher
    finally:
        fetcher.close()
