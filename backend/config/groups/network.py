"""How the server reaches others: models, embeddings, rerankers, pages of the web."""

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from backend.config.fields import SettingsGroup
from backend.kit.network.addresses import check_netrc
from backend.kit.network.authorities import check_authorities
from backend.kit.network.network import Network
from backend.kit.network.proxies import Proxies, parse_exceptions, proxy_url


def _check_authorities(path: Path) -> Path:
    check_authorities(path.expanduser())
    return path


def _check_netrc(path: Path) -> Path:
    check_netrc(path.expanduser())
    return path


def _split(value: object) -> object:
    """The folders of SSL_CERT_DIR, which OpenSSL separates like those of PATH."""
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


def _check_folders(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(map(_check_authorities, paths))


Authorities = Annotated[Path, AfterValidator(_check_authorities)]
"""A file or folder with certificates of authorities."""


class NetworkSettings(SettingsGroup):
    """How the server reaches others: models, embeddings, rerankers, pages of the web."""

    ca_bundle: Authorities | None = Field(
        None,
        description="File or folder with certificates of your own authorities (PEM or DER), which are trusted in "
        "addition to the usual ones. See docs/networks.md.",
    )
    ssl_cert_file: Authorities | None = Field(None, description="The same as CA_BUNDLE, by OpenSSL's name.")
    ssl_cert_dir: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_folders)] = (
        Field((), description="The same as CA_BUNDLE, by OpenSSL's name; several folders are separated as in PATH.")
    )
    requests_ca_bundle: Authorities | None = Field(None, description="The same as CA_BUNDLE, by the name of requests.")
    curl_ca_bundle: Authorities | None = Field(None, description="The same as CA_BUNDLE, by curl's name.")
    http_proxy: SecretStr | None = Field(
        None, description="Proxy for http:// URLs, e.g. http://user:password@proxy.example.com:3128."
    )
    https_proxy: SecretStr | None = Field(None, description="Proxy for https:// URLs.")
    all_proxy: SecretStr | None = Field(None, description="Proxy for URLs whose own variable is unset.")
    no_proxy: str | None = Field(
        None,
        description="Hosts that are reached without a proxy, comma-separated: names (with all names below them), "
        "addresses, networks like 10.0.0.0/8, each with or without a port; `*` for all. This machine always is.",
    )
    netrc: Annotated[Path, AfterValidator(_check_netrc)] | None = Field(
        None,
        description="netrc file with users and passwords of hosts. Unset: .netrc in the home folder, if it exists.",
    )

    @model_validator(mode="after")
    def _check_proxies(self) -> Self:
        self._proxies()
        return self

    def network(self) -> Network:
        """The network that these settings describe."""
        files = (self.ca_bundle, self.ssl_cert_file, self.requests_ca_bundle, self.curl_ca_bundle)
        named = (*files, *self.ssl_cert_dir)
        authorities = dict.fromkeys(path.expanduser().resolve() for path in named if path is not None)
        netrc = self.netrc.expanduser() if self.netrc is not None else _home_netrc()
        return Network(tuple(authorities), self._proxies(), netrc)

    def _proxies(self) -> Proxies:
        return Proxies(
            http=self._proxy("http_proxy"),
            https=self._proxy("https_proxy"),
            exceptions=parse_exceptions(self.no_proxy or ""),
        )

    def _proxy(self, name: str) -> str | None:
        """The proxy of a variable, or else of ALL_PROXY. A proxy that is never used is not looked at."""
        for variable in (name, "all_proxy"):
            value: SecretStr | None = getattr(self, variable)
            if value is not None and (text := value.get_secret_value().strip()):
                try:
                    return proxy_url(text)
                except ValueError as error:
                    raise ValueError(f"{variable.upper()}: {error}") from None
        return None


def _home_netrc() -> Path | None:
    try:
        file = Path.home() / ".netrc"
        return file if file.is_file() else None
    except (OSError, RuntimeError):
        return None
