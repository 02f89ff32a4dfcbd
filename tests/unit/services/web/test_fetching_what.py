"""What fetching brings: pages as they are, and nothing of those that are too large, too slow or broken."""

import asyncio
import gzip
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.fetching import fetched, fetcher, local, refusal
from tests.support.site_server import Script, answer, site

pytestmark = pytest.mark.slow


async def test_a_page_is_fetched_as_it_is(tmp_path: Path) -> None:
    body = bytes(range(256)) * 3000
    async with site(data=answer(body=body)) as served, fetcher(tmp_path, **local(served)) as made:
        assert await fetched(made, served.url("/data")) == ("data", body)
        _, headers = served.requests[0]
    assert headers["host"] == f"127.0.0.1:{served.port}"
    assert headers["user-agent"].startswith("StreamForge/")
    assert not {"cookie", "authorization", "referer"} & set(headers)
    assert list(tmp_path.iterdir()) == []


async def test_packed_pages_are_unpacked(tmp_path: Path) -> None:
    packed = answer(body=gzip.compress(b"words " * 1000), Content_Encoding="gzip")
    async with site(page=packed) as served, fetcher(tmp_path, **local(served)) as made:
        assert (await fetched(made, served.url("/page")))[1] == b"words " * 1000


@pytest.mark.parametrize(
    ("path", "header", "name"),
    [
        ("/a/b%20c.md?x=1", "", "b c.md"),
        ("/", "", "127.0.0.1"),
        ("/x", 'attachment; filename="report.pdf"', "report.pdf"),
        ("/x", "attachment; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("/x", "inline", "x"),
    ],
)
async def test_the_name(tmp_path: Path, path: str, header: str, name: str) -> None:
    async with site() as served, fetcher(tmp_path, **local(served)) as made:
        served.pages[path] = answer(body=b"x", Content_Disposition=header)
        assert (await fetched(made, served.url(path)))[0] == name


def endless(block: bytes, pause: float = 0.0, head: bytes = b"HTTP/1.1 200 X\r\n\r\n") -> Script:
    """A response without an end."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause)

    return write


async def test_a_body_without_an_end_stops_at_the_limit(tmp_path: Path) -> None:
    async with site(page=endless(b"x" * 10_000)) as served, fetcher(tmp_path, **local(served)) as made:
        error = await refusal(made, served.url("/page"))
    assert (error.code, error.status) == ("document_too_large", 413)
    assert "1 MB" in error.message and "MAX_UPLOAD_MB" in error.advice


async def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    async with site() as served, fetcher(tmp_path, **local(served)) as made:
        served.pages = {"/fits": answer(body=b"x" * 1_000_000), "/not": answer(body=b"x" * 1_000_001)}
        assert len((await fetched(made, served.url("/fits")))[1]) == 1_000_000
        assert (await refusal(made, served.url("/not"))).code == "document_too_large"


async def test_a_length_over_the_limit_is_believed(tmp_path: Path) -> None:
    """One byte of it comes, and then nothing: it isn't waited for."""
    head = b"HTTP/1.1 200 X\r\nContent-Length: 1000001\r\n\r\nx"
    async with site(page=endless(b"", 0.01, head)) as served, fetcher(tmp_path, **local(served)) as made:
        assert (await refusal(made, served.url("/page"))).code == "document_too_large"


async def test_a_gzip_bomb_counts_as_what_it_becomes(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, which would itself be below the limit."""
    bomb = gzip.compress(bytes(20_000_000)) * 50
    assert len(bomb) < 1_000_000
    packed = answer(body=bomb, Content_Encoding="gzip")
    async with site(page=packed) as served, fetcher(tmp_path, **local(served)) as made:
        assert (await refusal(made, served.url("/page"))).code == "document_too_large"


async def test_only_one_layer_is_unpacked(tmp_path: Path) -> None:
    inner = gzip.compress(bytes(20_000_000))
    packed = answer(body=gzip.compress(inner), Content_Encoding="gzip")
    async with site(page=packed) as served, fetcher(tmp_path, **local(served)) as made:
        assert (await fetched(made, served.url("/page")))[1] == inner


async def test_a_body_that_drips_is_given_up(tmp_path: Path) -> None:
    async with site(page=endless(b"x", 0.02)) as served, fetcher(tmp_path, **local(served), seconds=0.5) as made:
        error = await refusal(made, served.url("/page"))
    assert (error.code, error.retryable) == ("url_timeout", True)


async def test_the_time_is_for_all_redirects_together(tmp_path: Path) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(answer(302, Location="/page"))

    async with site(page=slow) as served, fetcher(tmp_path, **local(served), seconds=1.0) as made:
        assert (await refusal(made, served.url("/page"))).code == "url_timeout"


async def test_dns_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    end = threading.Event()

    def silent(name: str, port: int) -> list[Any]:
        end.wait(30)
        raise OSError("no answer")

    try:
        async with fetcher(tmp_path, lookup=silent, seconds=0.3) as made:
            assert (await refusal(made, "http://docs.example/")).code == "url_timeout"
    finally:
        end.set()


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\ncut off",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        answer(body=b"no gzip at all", Content_Encoding="gzip"),
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 X\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"",
    ],
)
async def test_what_breaks_off_or_is_no_answer_is_not_stored(tmp_path: Path, response: bytes) -> None:
    async with site(page=response) as served, fetcher(tmp_path, **local(served)) as made:
        assert (await refusal(made, served.url("/page"))).code == "url_unreachable"


@pytest.mark.parametrize("status", [204, 304, 401, 403, 404, 410, 418, 429, 500, 503])
async def test_a_page_that_is_not_there_is_said(tmp_path: Path, status: int) -> None:
    body = b"" if status in (204, 304) else b"sorry"
    async with site(page=answer(status, body)) as served, fetcher(tmp_path, **local(served)) as made:
        if status == 204:
            assert (await fetched(made, served.url("/page")))[1] == b""
            return
        error = await refusal(made, served.url("/page"))
    assert (error.code, error.status, error.extra) == ("url_http_error", 502, {"upstream_status": status})
    assert str(status) in error.message


async def test_nobody_listening_and_no_such_name(tmp_path: Path) -> None:
    async with site() as served:
        pass
    async with fetcher(tmp_path, **local(served)) as made:
        error = await refusal(made, served.url("/page"))
        assert (error.code, error.retryable) == ("url_unreachable", True)

    def unknown(name: str, port: int) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with fetcher(tmp_path, lookup=unknown) as made:
        assert (await refusal(made, "http://docs.example/")).code == "url_unreachable"
    async with fetcher(tmp_path, lookup=socket.getaddrinfo) as made:
        assert (await refusal(made, f"http://{'a' * 64}.example/")).code in ("url_unreachable", "url_refused")


async def test_more_than_a_few_at_once_wait_their_turn(tmp_path: Path) -> None:
    open_now, most = 0, 0
    go_on = asyncio.Event()

    async def held(writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await go_on.wait()
        open_now -= 1
        writer.write(answer(body=b"x"))

    async with site(page=held) as served, fetcher(tmp_path, **local(served)) as made:
        tasks = [asyncio.create_task(fetched(made, served.url("/page"))) for _ in range(20)]
        while open_now < 8:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        go_on.set()
        assert [body for _, body in await asyncio.gather(*tasks)] == [b"x"] * 20
    assert most == 8
