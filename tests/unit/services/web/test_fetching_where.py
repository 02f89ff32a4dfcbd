"""Where fetching goes and where it doesn't: addresses, redirects, DNS that changes its mind, TLS."""

import asyncio
import ipaddress
import itertools
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.services.web.fetching import is_public
from tests.support.fetching import fetched, fetcher, infos, local, refusal
from tests.support.harness import free_port
from tests.support.networks import ForwardProxy
from tests.support.site_server import answer, site

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

    monkeypatch.setattr("backend.services.web.fetching.socket.socket", counted)
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
    assert "URL_ALLOWED_HOSTS" in error.advice
    assert address not in error.message


async def test_a_site_on_loopback_is_reached_only_when_it_is_allowed(tmp_path: Path) -> None:
    """The same site, the same name; only the setting differs. Port 80 is not ours to listen on."""
    async with site(page=answer(body=b"x")) as served:
        async with fetcher(tmp_path, lookup=to_port(served.port)) as made:
            assert (await refusal(made, "http://docs.example/page")).code == "url_refused"
            assert served.requests == []
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
        assert inner.requests == []


async def test_an_allowed_host_does_not_vouch_for_where_it_redirects(tmp_path: Path) -> None:
    """Allowed is a host with a port; its neighbour on another port isn't."""
    async with site(page=answer(body=b"inner")) as inner, site() as outer:
        outer.pages["/page"] = answer(307, Location=inner.url("/page"))
        async with fetcher(tmp_path, **local(outer)) as made:
            assert (await refusal(made, outer.url("/page"))).code == "url_refused"
        assert inner.requests == []


async def test_an_allowed_host_is_private_again_on_another_port(tmp_path: Path) -> None:
    async with fetcher(tmp_path, allowed={("127.0.0.1", 8080)}) as made:
        assert (await refusal(made, "http://127.0.0.1/")).code == "url_refused"


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


async def test_a_redirect_to_another_name_is_looked_up_and_checked(tmp_path: Path) -> None:
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


async def test_a_proxy_leads_to_allowed_hosts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ForwardProxy() as proxy, site(page=answer(body=b"x")) as served:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        options = local(served, "docs.example", "127.0.0.1")
        async with fetcher(tmp_path, **options) as made:
            assert (await fetched(made, served.url("/page", "docs.example")))[1] == b"x"
            assert proxy.targets == ["docs.example"]
            assert (await fetched(made, served.url("/page")))[1] == b"x"
            # Everybody else is reached directly, so that the address can be checked.
            assert (await refusal(made, "http://other.example/")).code == "url_refused"
            assert (await refusal(made, "http://10.0.0.1/")).code == "url_refused"
        assert proxy.targets == ["docs.example"]


async def test_a_trusted_proxy_leads_to_all_that_is_not_known_to_be_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(name: str, port: int) -> list[Any]:
        if name == "unknown.example":
            raise OSError("no such name")
        return infos({"public.example": "8.8.8.8", "half.example": "10.0.0.1"}.get(name, name))(name, port)

    async with site() as proxy:
        proxy.pages = {
            "http://public.example/": answer(body=b"public"),
            "http://unknown.example/": answer(302, Location="http://half.example/"),
        }
        monkeypatch.setenv("ALL_PROXY", proxy.url(""))
        async with fetcher(tmp_path, lookup=lookup, trusts_proxy=True) as made:
            assert (await fetched(made, "http://public.example/"))[1] == b"public"
            for url in ("http://unknown.example/", "http://half.example/", "http://10.0.0.1/", "http://[fd00::1]/"):
                assert (await refusal(made, url)).code == "url_refused"
            assert (await refusal(made, "http://localhost/")).code != "url_http_error"
        assert proxy.paths == ["http://public.example/", "http://unknown.example/"]


async def test_a_proxy_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://user:secret@127.0.0.1:{free_port()}")
    async with fetcher(tmp_path, lookup=infos("8.8.8.8"), trusts_proxy=True) as made:
        for scheme in ("http", "https"):
            refused = await refusal(made, f"{scheme}://docs.example/")
            assert (refused.code, "secret" in refused.message) == ("url_unreachable", False)
            assert "proxy" in refused.message


async def test_five_redirects_are_followed_and_a_sixth_is_not(tmp_path: Path) -> None:
    async with site() as served, fetcher(tmp_path, **local(served)) as made:
        served.pages = {f"/{n}": answer(302, Location=f"/{n - 1}", Set_Cookie="a=b") for n in range(1, 7)}
        served.pages["/0"] = answer(body=b"here")
        assert await fetched(made, served.url("/5")) == ("0", b"here")
        assert not any("cookie" in headers for _, headers in served.requests)
        served.requests.clear()
        assert (await refusal(made, served.url("/6"))).code == "url_http_error"
        assert served.paths == ["/6", "/5", "/4", "/3", "/2", "/1"]


async def test_a_name_keeps_its_host_header(tmp_path: Path) -> None:
    async with site(page=answer(body=b"x")) as served, fetcher(tmp_path, **local(served, "docs.example")) as made:
        await fetched(made, served.url("/page", "docs.example"))
        assert served.requests[0][1]["host"] == f"docs.example:{served.port}"


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
        assert served.requests == []


async def test_http_may_lead_to_https(
    tmp_path: Path, certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with site(tls, page=answer(body=b"safe")) as safe, site() as plain:
        plain.pages["/page"] = answer(301, Location=safe.url("/page", "docs.example", "https"))
        allowed = {("docs.example", safe.port), ("docs.example", plain.port)}
        async with fetcher(tmp_path, allowed=allowed, lookup=infos("127.0.0.1")) as made:
            assert (await fetched(made, plain.url("/page", "docs.example")))[1] == b"safe"
