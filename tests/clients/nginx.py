"""A real nginx in front of a server, with the `server` block that docs/clients.md shows."""

import asyncio
import getpass
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.clients.docs import snippet
from tests.support.harness import free_port

# Around it what Debian's nginx.conf says, but for the folders: nothing of this touches buffering or timeouts.
CONF = """
user {user};
pid nginx.pid;
error_log stderr;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    gzip on;
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {extra}
    {server}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, upstream: str, extra: str = "", shown: str | None = None) -> AsyncIterator[str]:
    """nginx in front of `upstream` (an address) with `extra` directives for all of it; yields its own address. `shown`
    is the server block, if it is another one than that of docs/clients.md."""
    port = free_port()
    shown = shown or snippet("docs/clients.md", "nginx", "nginx")
    server = re.sub(r"listen (?:80|443)( ssl)?;", rf"listen 127.0.0.1:{port}\1;", shown)
    server = server.replace("http://127.0.0.1:8001", upstream)
    assert str(port) in server
    assert upstream in server
    folder.mkdir()
    (folder / "nginx.conf").write_text(CONF.format(user=getpass.getuser(), extra=extra, server=server))
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program is not None, "nginx is not installed"
    with (folder / "errors").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            program, "-p", folder, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;", stderr=errors
        )
    try:
        await _listening(port)
        yield f"http{'s' if ' ssl;' in server else ''}://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
