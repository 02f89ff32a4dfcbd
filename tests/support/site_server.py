"""A web server on loopback that responds as a test tells it, also with wrong HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a response; `_` in a header's name is `-`."""
    fields = {"Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body


@dataclass
class Site:
    """A running server. `pages` maps a path to a response, or to a script that writes one. `requests` has path and
    headers of each request.
    """

    pages: dict[str, bytes | Script] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    fallback: bytes = answer(404)
    port: int = 0

    @property
    def paths(self) -> list[str]:
        """The paths of the requests, in order."""
        return [path for path, _ in self.requests]

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        """The URL of a page."""
        return f"{scheme}://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
            path = head[0].split(" ")[1]
            fields = (line.partition(": ") for line in head[1:] if line)
            self.requests.append((path, {name.lower(): value for name, _, value in fields}))
            page = self.pages.get(path, self.fallback)
            if isinstance(page, bytes):
                writer.write(page)
            else:
                await page(writer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None, **pages: bytes | Script) -> AsyncIterator[Site]:
    """A server on a free port of 127.0.0.1. `name=page` is the page with the path `/name`."""
    new_site = Site({f"/{name}": page for name, page in pages.items()})
    server = await asyncio.start_server(new_site._serve, "127.0.0.1", 0, ssl=tls)
    new_site.port = server.sockets[0].getsockname()[1]
    try:
        yield new_site
    finally:
        server.close()
