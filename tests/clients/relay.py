"""A connection that breaks: a relay in front of a server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Relay:
    """`left`: how many more connections it will cut, `cut`: how many it has cut, `short`: how many bytes before the end
    of an event."""

    base: str
    left: int
    short: int
    cut: int = 0


@asynccontextmanager
async def cutting(upstream: str, times: int = 2, short: int = 10) -> AsyncIterator[Relay]:
    """Ends that many connections `short` bytes before the end of an event with text, then relays faithfully."""
    host, port = upstream.removeprefix("http://").split(":")

    async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, int(port))
        up = asyncio.create_task(_copy(reader, to_server))
        try:
            while data := await from_server.read(65536):
                if relay.left and b"text.delta" in data:
                    relay.left, relay.cut = relay.left - 1, relay.cut + 1
                    # Each event is one chunk of HTTP, which ends with CRLF.
                    writer.write(data[: -relay.short - len(b"\r\n")])
                    await writer.drain()
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            up.cancel()
            writer.close()
            to_server.close()

    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(relayed(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    relay = Relay(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", times, short)
    try:
        yield relay
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
