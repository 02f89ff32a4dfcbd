"""Where the server listens and who may call it."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from backend.config.fields import Names, SettingsGroup
from backend.config.groups.accounts import MIN_KEY_LENGTH, parse_keys


class ServerSettings(SettingsGroup):
    """Where the server listens and who may call it."""

    config_file: Path | None = Field(
        None, description="A YAML or TOML file with any of these settings. The environment and `.env` win over it."
    )
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, API_KEYS must be set.")
    port: int = Field(8001, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    reload: bool = Field(False, description="1 restarts the server when its code changes (for development).")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("http://localhost:3000", "http://localhost:5173"),
        description="Web origins whose pages may call the API, comma-separated. `*` is refused: list each origin.",
    )
    trusted_hosts: Names = Field(
        (),
        description="Names of this server that a `Host` header may have, besides localhost: what people type, or what "
        "a proxy passes on; `*.example.com` for all names below. Unset: beyond loopback, any name.",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="`name:key,name:key`; a key has at least 24 characters. Each name has its own sessions and "
        "documents. Unset: only programs on this machine may call, as the owner `local`.",
    )
    shutdown_grace: float = Field(
        5.0, ge=0, le=60, description="Seconds that live answers get to finish when the server is asked to stop."
    )

    trusted_proxies: Names = Field(
        (),
        description="Addresses or networks of reverse proxies, comma-separated, e.g. `10.0.0.2,172.18.0.0/16`: the "
        "server believes their X-Forwarded-For and X-Forwarded-Proto, and doesn't count their connections per peer. "
        "Unset: the headers of loopback are believed.",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        le=100_000,
        description="Maximum number of connections. Fewer if `ulimit -n` allows fewer: an eighth of it, 12 to 256 "
        "descriptors, is kept back for providers, database and files.",
    )
    max_connections_per_peer: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Maximum number of connections from one address (IPv6: from one /64 network). Unset: 256, and any "
        "number from loopback. Set: for loopback, too.",
    )
    head_timeout: float = Field(
        10.0, gt=0, le=3600, description="Seconds that the head of a request (its URL and headers) may take to arrive."
    )
    body_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds of silence within the body of a request after which it is refused. A body that takes "
        "longer in total must bring 500 bytes a second on average.",
    )
    keep_alive_timeout: float = Field(
        65.0, gt=0, le=3600, description="Seconds for which a connection without a request stays open."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return tuple(o.strip().rstrip("/") for o in value.split(",") if o.strip()) if isinstance(value, str) else value

    @field_validator("trusted_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+", name):
                raise ValueError("must be names like rag.example.com, comma-separated, without http:// and port")
        return tuple(name.lower() for name in value)

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise ValueError("must be origins like http://localhost:3000, comma-separated; `*` is refused")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                ipaddress.ip_network(name, strict=False)
            except ValueError:
                raise ValueError("must be addresses or networks like 10.0.0.2 or 172.18.0.0/16") from None
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keys(value)
        return value

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _check_reach(self) -> Self:
        if not self.is_loopback and self.api_keys is None:
            raise ValueError(
                f"HOST={self.host} can be reached from other machines, so API_KEYS must be set "
                f"(name:key, at least {MIN_KEY_LENGTH} characters a key); or use HOST=127.0.0.1"
            )
        return self
