"""A network for tests: an authority of one's own with the certificate of a server, and a proxy."""

import asyncio
import ssl
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

NAME = "provider.test"
"""A host that only the proxy knows: there is no such name in DNS."""


@dataclass(frozen=True)
class Authority:
    """An authority, and a server with a certificate from it for `localhost`, 127.0.0.1 and `provider.test`."""

    file: Path
    server: ssl.SSLContext

    @classmethod
    def make(cls, folder: Path) -> Self:
        """A new authority, whose files are in the folder."""

        def openssl(command: str, *words: str) -> None:
            subprocess.run(["openssl", *command.split(), *words], cwd=folder, check=True, capture_output=True)

        openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2", "-subj", "/CN=Our Company")
        openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost")
        (folder / "names").write_text(f"subjectAltName=DNS:localhost,DNS:{NAME},IP:127.0.0.1")
        signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names"
        openssl(f"x509 -req -in server.csr -out server.pem {signed}")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        return cls(folder / "ca.pem", context)


@dataclass
class ForwardProxy:
    """A proxy that leads every host to this machine. `targets` has the hosts that it was asked for, `logins` the
    `Proxy-Authorization` of each request."""

    tls: ssl.SSLContext | None = None
    targets: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _connections: "set[asyncio.Task[None]]" = field(default_factory=set[Any])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def url(self, userinfo: str = "") -> str:
        """The URL of the proxy; `userinfo` is `user:password@`."""
        assert self._server is not None
        scheme = "https" if self.tls is not None else "http"
        return f"{scheme}://{userinfo}127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio logs an error if its own task is cancelled (Python 3.11).
        self._connections.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, url, version = first.split(" ")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            authority, _, path = url.removeprefix("http://").partition("/")
            host, _, port = authority.rpartition(":")
            self.targets.append(host)
            self.logins.append(fields.get("proxy-authorization"))
            there, back = await asyncio.open_connection("127.0.0.1", int(port))
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                # One request a connection: what follows would need another look at its target.
                kept = [line for line in lines if not line.lower().startswith(("connection:", "proxy-"))]
                back.write("\r\n".join([f"{method} /{path} {version}", "Connection: close", *kept]).encode("latin-1"))
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                back.close()
                writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    with suppress(ConnectionError):
        sink.close()
