"""What is fetched and what is not: addresses, redirects, DNS that changes its mind, bodies without an end."""

import asyncio
import gzip
import ipaddress
import itertools
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.errors import StreamForgeError
from backend.services.fetching import Fetcher, is_public
from tests.site_server import Script, Site, answer, site

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "172.15.255.255", "100.63.255.255", "100.128.0.1",
          "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255", "169.253.1.1", "2606:4700::1111",
          "2a00:1450:4001:831::200e", "2001:4860:4860::8888", "3ffe::1"]  # fmt: skip
PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "127.0.0.1", "127.255.255.254", "172.16.0.1"),
    *("172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200"),
    *("100.127.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    "168.63.129.16",
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:7f00:1", "::127.0.0.1", "::8.8.8.8"),
    *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1"),
    *("4000::1", "5f00::1", "e000::1"),
]
NO_ADDRESS = [
    "",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0.0.1.",
    " 8.8.8.8",
    "8.8.8.8/32",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE + NO_ADDRESS)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_what_python_knows_as_private_is_private_here() -> None:
    """Both edges of every network that IANA's tables name, as far as this Python has them."""
    for first in range(256):
        for second in range(256):
            address = ipaddress.ip_address(f"{first}.{second}.0.5")
            assert is_public(str(address)) <= address.is_global, address


def infos(*addresses: str) -> Callable[[str, int], list[Any]]:
    """A DNS that gives every name these addresses."""
    return lambda _, port: [info for a in addresses for info in socket.getaddrinfo(a, port, type=socket.SOCK_STREAM)]


def refuse_names(name: str, port: int) -> list[Any]:
    raise AssertionError(f"{name}:{port} was looked up")


@asynccontextmanager
async def fetcher(folder: Path, **options: Any) -> AsyncIterator[Fetcher]:
    made = Fetcher(folder, **{"max_bytes": 1_000_000, "seconds": 10.0, "lookup": refuse_names, **options})
    try:
        yield made
    finally:
        made.close()


def local(served: Site, *hosts: str) -> dict[str, Any]:
    """Lets a fetcher reach a site by these names, or by its address."""
    return {"allowed": {(host, served.port) for host in hosts or ("127.0.0.1",)}, "lookup": infos("127.0.0.1")}


async def fetched(made: Fetcher, url: str) -> tuple[str, bytes]:
    async with made.fetch(url) as page:
        return page.name, page.file.read()


async def refusal(made: Fetcher, url: str) -> StreamForgeError:
    with pytest.raises(StreamForgeError) as raised:
        await fetched(made, url)
    assert len(raised.value.message) > 20
    return raised.value


# --- what works


async def test_a_page_is_fetched_as_it_is(tmp_path: Path) -> None:
    body = bytes(range(256)) * 3000
    async with site(data=answer(body=body)) as served, fetcher(tmp_path, **local(served)) as made:
        assert await fetched(made, served.url("/data")) == ("data", body)
        _, headers = served.asked[0]
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


async def test_five_redirects_are_followed_and_a_sixth_is_not(tmp_path: Path) -> None:
    async with site() as served, fetcher(tmp_path, **local(served)) as made:
        served.pages = {f"/{n}": answer(302, Location=f"/{n - 1}", Set_Cookie="a=b") for n in range(1, 7)}
        served.pages["/0"] = answer(body=b"here")
        assert await fetched(made, served.url("/5")) == ("0", b"here")
        assert not any("cookie" in headers for _, headers in served.asked)
        served.asked.clear()
        assert (await refusal(made, served.url("/6"))).code == "url_http_error"
        assert served.paths == ["/6", "/5", "/4", "/3", "/2", "/1"]


async def test_a_name_keeps_its_host_header(tmp_path: Path) -> None:
    async with site(page=answer(body=b"x")) as served, fetcher(tmp_path, **local(served, "docs.example")) as made:
        await fetched(made, served.url("/page", "docs.example"))
        assert served.asked[0][1]["host"] == f"docs.example:{served.port}"


async def test_an_international_name_is_one_in_ascii(tmp_path: Path) -> None:
    names: list[str] = []

    def lookup(name: str, port: int) -> list[Any]:
        names.append(name)
        return infos("127.0.0.1")(name, port)

    async with site(page=answer(body=b"x")) as served:
        allowed = {("xn--bcher-kva.example", served.port)}
        async with fetcher(tmp_path, allowed=allowed, lookup=lookup) as made:
            assert (await fetched(made, served.url("/page", "bücher.example")))[1] == b"x"
    assert names == ["xn--bcher-kva.example"]


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of docs.example in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=docs.example".split()
    extension = ["-addext", "subjectAltName=DNS:docs.example"]
    subprocess.run([*command, *extension, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_tls_is_for_the_name_although_the_address_is_pinned(
    tmp_path: Path, certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    named: list[str | None] = []
    tls.sni_callback = lambda _, name, __: named.append(name)
    async with (
        site(tls, page=answer(body=b"secret")) as served,
        fetcher(tmp_path, **local(served, "docs.example", "other.example")) as made,
    ):
        assert (await fetched(made, served.url("/page", "docs.example", "https")))[1] == b"secret"
        assert named == ["docs.example"]
        wrong = await refusal(made, served.url("/page", "other.example", "https"))
    assert wrong.code == "url_unreachable"
    assert "certificate" in wrong.message
    assert served.paths == ["/page"]


async def test_a_certificate_of_nobody_is_refused(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with site(tls, page=answer(body=b"x")) as served, fetcher(tmp_path, **local(served, "docs.example")) as made:
        assert (await refusal(made, served.url("/page", "docs.example", "https"))).code == "url_unreachable"
        assert served.asked == []


async def test_http_may_lead_to_https(
    tmp_path: Path, certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with site(tls, page=answer(body=b"safe")) as safe, site() as plain:
        plain.pages["/page"] = answer(301, Location=safe.url("/page", "docs.example", "https"))
        allowed = {("docs.example", safe.port), ("docs.example", plain.port)}
        async with fetcher(tmp_path, allowed=allowed, lookup=infos("127.0.0.1")) as made:
            assert (await fetched(made, plain.url("/page", "docs.example")))[1] == b"safe"


# --- where it does not go


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://example.com/a",
            "file:///etc/passwd",
            "gopher://example.com/",
            "data:text/plain,a",
            "ws://example.com/",
        ),
        *("example.com", "//example.com/a", "http:///a", "http://", "", " ", "http://exa mple.com/", "http://[::1/"),
        *("http://user@example.com/", "http://user:secret@example.com/", "http://:secret@example.com/"),
        *("http://example.com:22/", "http://example.com:8080/", "https://example.com:0/", "http://example.com:99999/"),
        *("http://example.com:a/", "javascript:alert(1)", "http://example.com:443:80/", "http://exam\x00ple.com/"),
    ],
)
async def test_urls_that_are_refused_by_their_form(tmp_path: Path, url: str) -> None:
    async with fetcher(tmp_path) as made:
        error = await refusal(made, url)
    assert error.code == "url_refused"
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001"),
        *("0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]"),
        *("[::127.0.0.1]", "[fe80::1%25lo]", "localhost", "LOCALHOST", "localhost.", "ｌｏｃａｌｈｏｓｔ"),
        *("①②⑦.⓪.⓪.①", "127。0。0。1", "%31%32%37.0.0.1", "127.0.0.1.", "10.0.0.1", "169.254.169.254"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fd00:ec2::254]", "255.255.255.255", "168.63.129.16"),
    ],
)
async def test_no_spelling_of_a_private_address_is_connected_to(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the system's own look-up, which knows spellings that `ipaddress` doesn't."""
    made_sockets: list[Any] = []
    real = socket.socket

    def counted(*args: Any, **kwargs: Any) -> socket.socket:
        made_sockets.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr("backend.services.fetching.socket.socket", counted)
    async with fetcher(tmp_path, lookup=system_names) as made:
        assert (await refusal(made, f"http://{host}/")).code in ("url_refused", "url_unreachable")
    assert made_sockets == []


def system_names(name: str, port: int) -> list[Any]:
    """The system's look-up of what needs no name server."""
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return infos("127.0.0.1")(name, port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "fd00::1"])
async def test_a_name_at_a_private_address_is_refused(tmp_path: Path, address: str) -> None:
    async with fetcher(tmp_path, lookup=infos(address)) as made:
        error = await refusal(made, "http://docs.example/")
    assert error.code == "url_refused"
    assert "URL_ALLOWED_HOSTS" in error.message
    assert address not in error.message


async def test_a_site_on_loopback_is_reached_only_when_it_is_allowed(tmp_path: Path) -> None:
    """The same site, the same name; only the setting differs. Port 80 is not ours to listen on."""
    async with site(page=answer(body=b"x")) as served:
        async with fetcher(tmp_path, lookup=to_port(served.port)) as made:
            assert (await refusal(made, "http://docs.example/page")).code == "url_refused"
            assert served.asked == []
        async with fetcher(tmp_path, lookup=to_port(served.port), allowed={("docs.example", served.port)}) as made:
            assert await fetched(made, served.url("/page", "docs.example")) == ("page", b"x")


def to_port(port: int) -> Callable[[str, int], list[Any]]:
    return lambda name, _: infos("127.0.0.1")(name, port)


async def test_every_redirect_is_checked_again(tmp_path: Path) -> None:
    async with site(page=answer(body=b"inner")) as inner, site() as outer:
        async with fetcher(tmp_path, **local(outer, "docs.example")) as made:
            for location in (
                *(
                    "http://127.0.0.1/",
                    "http://localhost/",
                    "http://[::1]/",
                    "//169.254.169.254/latest/",
                    "file:///etc/passwd",
                ),
                *(
                    "ftp://docs.example/",
                    "http://user:pw@docs.example/",
                    inner.url("/page"),
                    "http://[",
                    "http://0x7f.1/",
                ),
            ):
                outer.pages["/page"] = answer(302, Location=location)
                error = await refusal(made, outer.url("/page", "docs.example"))
                assert error.code == "url_refused", location
        assert inner.asked == []


async def test_an_allowed_host_does_not_vouch_for_where_it_redirects(tmp_path: Path) -> None:
    """Allowed is a host with a port; its neighbour on another port isn't."""
    async with site(page=answer(body=b"inner")) as inner, site() as outer:
        outer.pages["/page"] = answer(307, Location=inner.url("/page"))
        async with fetcher(tmp_path, **local(outer)) as made:
            assert (await refusal(made, outer.url("/page"))).code == "url_refused"
        assert inner.asked == []


class Rebinding:
    """A DNS that is public when it is asked first, and loopback from then on."""

    def __init__(self, first: str) -> None:
        self.answers = itertools.chain([first], itertools.repeat("127.0.0.1"))
        self.asked = 0

    def __call__(self, name: str, port: int) -> list[Any]:
        self.asked += 1
        return infos(next(self.answers))(name, port)


async def test_dns_that_changes_its_mind_is_asked_once_and_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it connects is what was checked. The first answer is a public address; nothing leaves this machine."""
    connected: list[str] = []
    loop = asyncio.get_running_loop()

    async def no_network(sock: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise OSError("no network in tests")

    monkeypatch.setattr(loop, "sock_connect", no_network)
    dns = Rebinding("8.8.8.8")
    async with fetcher(tmp_path, lookup=dns) as made:
        assert (await refusal(made, "http://docs.example/")).code == "url_unreachable"
        assert (connected, dns.asked) == (["8.8.8.8"], 1)
        assert (await refusal(made, "http://docs.example/")).code == "url_refused"
    assert (connected, dns.asked) == (["8.8.8.8"], 2)


async def test_a_redirect_to_the_same_name_asks_dns_again_and_checks_its_new_answer(tmp_path: Path) -> None:
    asked: list[str] = []

    def lookup(name: str, port: int) -> list[Any]:
        asked.append(name)
        return infos("127.0.0.1" if name == "docs.example" else "10.0.0.1")(name, port)

    async with site() as served:
        served.pages["/page"] = answer(302, Location="http://inner.example/")
        async with fetcher(tmp_path, allowed={("docs.example", served.port)}, lookup=lookup) as made:
            assert (await refusal(made, served.url("/page", "docs.example"))).code == "url_refused"
    assert asked == ["docs.example", "inner.example"]


async def test_of_several_addresses_the_private_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    async def no_network(sock: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise OSError("no network in tests")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", no_network)
    async with fetcher(tmp_path, lookup=infos("127.0.0.1", "8.8.8.8", "10.0.0.1", "::1")) as made:
        await refusal(made, "http://docs.example/")
    assert set(connected) == {"8.8.8.8"}


async def test_proxies_of_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as proxy, site(page=answer(body=b"x")) as served:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        async with fetcher(tmp_path, **local(served)) as made:
            assert (await fetched(made, served.url("/page")))[1] == b"x"
        assert proxy.asked == []


# --- bodies


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
    assert "1 MB (MAX_UPLOAD_MB)" in error.message


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
