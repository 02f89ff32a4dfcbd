"""User and password: from an address, from a netrc file, never in a message."""

import base64
from pathlib import Path

import pytest

from backend.kit.network.addresses import Address, check_netrc
from backend.kit.network.network import Network, merge_headers


def decoded(login: str | None) -> str:
    assert login is not None and login.startswith("Basic ")
    return base64.b64decode(login.removeprefix("Basic ")).decode()


@pytest.mark.parametrize(
    ("url", "without", "login"),
    [
        ("http://user:password@host/v1", "http://host/v1", "user:password"),
        ("https://user:p%40ss%2F%C3%BC@host:8443/v1/?a=b", "https://host:8443/v1/?a=b", "user:p@ss/ü"),
        ("http://user:p@ss:word@host", "http://host", "user:p@ss:word"),
        ("http://token@host", "http://host", "token:"),
        ("http://:password@[::1]:80/v1", "http://[::1]:80/v1", ":password"),
    ],
)
def test_a_password_is_taken_out_of_the_url(url: str, without: str, login: str) -> None:
    address = Address.parse(url)
    assert (address.url, decoded(address.login)) == (without, login)
    assert str(address.login) not in repr(address)


def test_an_address_without_one_stays_as_it_is() -> None:
    assert Address.parse("https://host/a@b") == Address("https://host/a@b")


@pytest.mark.parametrize(
    "url",
    ["", "host/v1", "ftp://host", "http://", "http://user:sec/ret@host", "http://user:secret@", "http://[secret",
     "http://user:secret@host:99999", "http://user:secret@host:0"],
)  # fmt: skip
def test_what_is_no_url_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="http:// or https:// URL") as refused:
        Address.parse(url)
    assert "secret" not in str(refused.value) and "sec" not in str(refused.value)


def test_a_netrc_file_is_for_the_hosts_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine llm.test login me password it's\ndefault login all password secret\n")
    network = Network(netrc=file)
    assert decoded(network.address("http://llm.test:8080/v1").login) == "me:it's"
    assert decoded(network.address("http://a:b@llm.test").login) == "a:b"
    assert network.address("http://llm.test", has_key=True).login is None
    assert network.address("http://other.test").login is None


@pytest.mark.parametrize("content", [b"machine a login b password secret nonsense", b"\xff\xfe\x00"])
def test_a_broken_netrc_file_is_not_quoted(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="netrc") as refused:
        check_netrc(file)
    assert "secret" not in str(refused.value)
    assert Network(netrc=file).address("http://a").login is None


def test_headers_have_one_value_whatever_their_case() -> None:
    merged = merge_headers({"Authorization": "key", "A": "1"}, {}, {"authorization": "own"})
    assert merged == {"authorization": "own", "A": "1"}
