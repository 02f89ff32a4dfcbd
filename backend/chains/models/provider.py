"""What a provider is: it lists models and opens them. A model streams its answer to a prompt."""

import importlib.util
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import SecretStr

from backend.chains.models.prompt import Output, Prompt
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ModelSpec, Price, variable
from backend.config.quirks import ModelQuirks
from backend.kit.network.network import DIRECT, Network, merge_headers

EXTRA = "pip install --no-deps -r backend/requirements-providers.txt"
"""The command that installs the packages of optional providers."""
_NO_QUIRKS = ModelQuirks()
FREE = Price(input=Decimal(0), output=Decimal(0))
"""The price of models that are part of this server."""


def _ignore() -> None:
    pass


bytes_came: ContextVar[Callable[[], None]] = ContextVar("bytes_came", default=_ignore)
"""Whom a protocol calls when bytes of an answer have come, also if they hold no output: the provider is not silent."""


class ChatModel(Protocol):
    """An opened model. `writes`: whether it follows instructions, as language models do."""

    writes: bool

    def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        """The answer, piece by piece. Raises RunError with our own message, never the provider's text."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What a provider can do now. `models` may be incomplete; the first one that chats is used if none is named, unless
    StreamForge recommends one of a vendor's models: `default`."""

    available: bool
    reason: str
    models: tuple[str, ...] = ()
    default: str | None = None
    specs: Mapping[str, ModelSpec] = field(default_factory=dict[str, ModelSpec])
    """What the provider says about its models."""


class Provider(Protocol):
    """A configured provider."""

    async def listing(self) -> Listing:
        """What can be used now. Returns within seconds, never raises."""
        ...

    def open(self, model: str) -> ChatModel:
        """The named model, also if it is not listed. Raises RunError if the provider isn't available."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of provider: a row in the table of a protocol's module."""

    name: str
    summary: str
    """What people read about the kind in GET /models."""
    base_url: str | None = None
    """The address. None: it must be set."""
    key: bool = True
    """Whether a key is required."""
    refuses: frozenset[str] = frozenset()
    """The fields of `Parameters`, and `images`, that the provider's API doesn't have."""
    profiles: str | None = None
    """The LangChain package that lists the abilities of its models."""
    prices: str | None = None
    """The provider's name in genai-prices."""
    price: Price | None = None
    """The price of all its models, if it is the same for all."""
    default_rank: int | None = None
    """The lowest rank is tried first when the server looks for a default model. None: never."""
    hides_reasoning: Literal["if_asked", "by_model"] | None = None
    """When its models bill reasoning tokens that the stream doesn't contain: `if_asked`, only with `reasoning_effort`;
    `by_model`, whenever the model reasons."""
    quirks: Any = None
    """Details that only the protocol's own module reads."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider as it is set up: its name, and how it is reached. The lowest `rank` is tried first when the server
    looks for a default model; None: never."""

    name: str
    kind: Kind
    base_url: str | None = None
    key: SecretStr | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    rank: int | None = None
    quirks: ModelQuirks = _NO_QUIRKS
    """Those of all its models, from MODELS_FILE."""
    specs: Mapping[str, ModelSpec] = field(default_factory=dict[str, ModelSpec])
    """What MODELS_FILE says about its models."""
    file: Path | None = None
    """The file of a model that this server runs itself."""
    login: str | None = field(default=None, repr=False)
    """The `Authorization` header of a user and password, which are not in `base_url`."""
    network: Network = DIRECT

    def quirks_of(self, model: str, usual: ModelQuirks | None = None) -> ModelQuirks:
        """The quirks of a model, as MODELS_FILE says; else the usual ones, which are those of the provider."""
        usual, spec = usual or self.quirks, self.specs.get(model)
        return usual if spec is None or spec.quirks is None else spec.quirks.over(usual)

    @property
    def own_address(self) -> bool:
        """Whether the address is not the usual one of its kind."""
        return self.base_url != self.kind.base_url

    @property
    def set_up(self) -> str:
        """Which setting makes the provider available, for people."""
        if self.name != self.kind.name:
            return f"set up at {self.shown}"
        own = self.own_address or self.key is None
        return f"{self.url_setting if own else self.key_setting} is set"

    @property
    def root(self) -> str:
        """The address without a slash at its end; empty if none is set."""
        return (self.base_url or "").rstrip("/")

    @property
    def listed_as(self) -> str | None:
        """Its name in genai-prices. None at another address: a user's own server has its own prices."""
        return self.kind.prices if self.kind.base_url in (None, self.base_url) else None

    @property
    def shown(self) -> str:
        """The address for people."""
        return self.root

    @property
    def key_text(self) -> str:
        """The key, or a placeholder: some servers and SDKs need one, whatever it is."""
        return self.key.get_secret_value() if self.key is not None else "none"

    def request_headers(self, key_headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of a request: those with the key, over them the user and password, over them MODELS_FILE's."""
        return merge_headers(key_headers, {"Authorization": self.login} if self.login else {}, self.headers)

    @property
    def key_setting(self) -> str:
        """The variable that holds its key."""
        return variable(self.name, "API_KEY")

    @property
    def url_setting(self) -> str:
        """The variable that holds its address."""
        return variable(self.name, "BASE_URL")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A protocol's entry in the registry: the kinds of provider that speak it. `needs` are the modules of its SDK,
    `install` is the command that installs them."""

    name: str
    kinds: tuple[Kind, ...]
    create: Callable[[Endpoint, ModelSettings], Provider]
    needs: tuple[str, ...] = ()
    install: str = ""
    runs_apart: bool = False
    """Whether only child processes import the SDK."""

    def missing(self) -> str | None:
        """Why the SDK can't be used, or None if it can."""
        absent = [m for m in self.needs if importlib.util.find_spec(m) is None]
        return f"{', '.join(absent)} is not installed: {self.install}" if absent else None
