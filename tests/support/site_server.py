"""A web server on loopback that answers as a test says, also in ways that no proper server does."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole response; `_` in a header's name is `-`."""
    named = {"Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body


@dataclass
class Site:
    """`pages` maps a path to a response, or to a script that writes one. `asked` is what came: (path, headers)."""

    pages: dict[str, bytes | Script] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for path, _ in self.asked]

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Where a page is."""
        return f"{scheme}://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
            path = head[0].split(" ")[1]
            named = (line.partition(": ") for line in head[1:] if line)
            self.asked.append((path, {name.lower(): value for name, _, value in named}))
            page = self.pages.get(path, answer(404))
            if isinstance(page, bytes):
                writer.write(page)
            else:
                await page(writer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None, **pages: bytes | Script) -> AsyncIterator[Site]:
    """Serve on a free port of 127.0.0.1; `pages` by name are paths of one part."""
    served = Site({f"/{name}": page for name, page in pages.items()})
    server = await asyncio.start_server(served._serve, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
