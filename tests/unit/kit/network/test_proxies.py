"""Which proxy leads where."""

import pytest

from backend.kit.network.proxies import Proxies, parse_exceptions, proxy_url

PROXIES = Proxies("http://plain:1", "http://safe:2")


@pytest.mark.parametrize(
    ("exceptions", "direct", "proxied"),
    [
        ("example.com", ["example.com", "a.example.com", "EXAMPLE.com", "example.com."], ["badexample.com", "com"]),
        (".example.com", ["example.com", "a.b.example.com"], ["example.com.evil.test"]),
        ("*.example.com", ["a.example.com"], ["example.org"]),
        ("a.test, b.test c.test", ["a.test", "b.test", "c.test"], ["d.test"]),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "10.example.com"]),
        ("192.168.1.7", ["192.168.1.7"], ["192.168.1.70"]),
        ("fd00::/8,2001:db8::1", ["[fd12::1]", "[2001:db8::1]"], ["[2001:db8::2]"]),
        ("llm.test:8080", ["llm.test:8080"], ["llm.test", "llm.test:80"]),
        ("llm.test:443", [], ["llm.test"]),
        ("10.0.0.1:8080,[fd00::1]:99", ["10.0.0.1:8080", "[fd00::1]:99"], ["10.0.0.1", "[fd00::1]"]),
        ("http://llm.test/", ["llm.test"], ["other.test"]),
        ("*", ["anything.test", "8.8.8.8"], []),
        (",, ,a/b/c,:,[", [], ["anything.test"]),
        ("", ["localhost", "a.localhost", "127.0.0.1:80", "127.9.9.9", "[::1]:5", "0.0.0.0"], ["localhost.test"]),
    ],
)
def test_no_proxy(exceptions: str, direct: list[str], proxied: list[str]) -> None:
    proxies = Proxies(PROXIES.http, PROXIES.https, parse_exceptions(exceptions))
    assert [host for host in direct if proxies.proxy_for(f"http://{host}/v1") is not None] == []
    assert [host for host in proxied if proxies.proxy_for(f"http://{host}/v1") is None] == []


def test_each_scheme_has_its_proxy() -> None:
    assert PROXIES.proxy_for("https://llm.test/v1") == "http://safe:2"
    assert PROXIES.proxy_for("http://llm.test/v1") == "http://plain:1"
    assert Proxies(http="http://plain:1").proxy_for("https://llm.test") is None


@pytest.mark.parametrize("value", ["proxy.test:3128", " http://proxy.test:3128 ", "https://u:p@proxy.test"])
def test_a_proxy_is_a_url_or_a_host(value: str) -> None:
    assert proxy_url(value).endswith(value.strip())


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("socks5://secret@127.0.0.1:1080", "SOCKS"),
        ("socks5h://secret@127.0.0.1:1080", "SOCKS"),
        ("ftp://secret@proxy.test", "must be the URL of a proxy"),
        ("http://user:secret/word@proxy.test", "must be the URL of a proxy"),
        ("http://", "must be the URL of a proxy"),
    ],
)
def test_what_is_no_proxy_is_not_quoted(value: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        proxy_url(value)
    assert "secret" not in str(refused.value)


def test_a_password_is_in_no_repr() -> None:
    assert "secret" not in repr(Proxies("http://u:secret@a", "http://u:secret@b"))
