"""What a provider is to the rest: it lists models and opens them; a model streams its answer to a prompt."""

import base64
import importlib.util
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol, Self, cast

from pydantic import SecretStr

from backend.chains.models.tokenizers import Count
from backend.chains.passages import Passage, Similarity
from backend.config.models_file import Price, variable
from backend.config.settings import ModelSettings

EXTRA = "pip install --no-deps -r backend/requirements-providers.txt"
"""The line that adds what doesn't come with the server."""
FREE = Price(input=Decimal(0), output=Decimal(0))
"""Of models that are a part of this server."""
Grounding = Literal["off", "no_documents", "nothing_relevant", "passages"]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that the user shows."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """As a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the conversation. `images` are shown to the model; of `unseen` further ones it is only told.
    `count`: the model's own tokenizer, where that is at hand; it is slow, and asked only of what may fit."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[Image, ...] = ()
    unseen: int = 0
    count: Count | None = field(default=None, repr=False, compare=False)

    @property
    def note(self) -> str:
        """What stands in the place of the pictures that aren't shown."""
        if not self.unseen:
            return ""
        return "[1 picture, not shown here]" if self.unseen == 1 else f"[{self.unseen} pictures, not shown here]"

    @property
    def told(self) -> str:
        """The text with the note."""
        return f"{self.text}\n{self.note}" if self.text and self.unseen else self.text or self.note

    def blind(self) -> Self:
        """The message for one who can't see."""
        return replace(self, images=(), unseen=self.unseen + len(self.images)) if self.images else self


WRITING = frozenset({"top_p", "seed", "stop", "reasoning_effort", "response_schema", "images"})
"""What only a model that writes can heed; temperature is taken everywhere, and means nothing to one that doesn't."""
Effort = Literal["minimal", "low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a model is to write. None is left to the model; `max_tokens` limits what it writes. `response_schema` is a
    JSON schema that the answer must follow, as text."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: Effort | None = None
    response_schema: str | None = None

    def named(self, **names: str) -> dict[str, Any]:
        """What was asked for of these fields, by a provider's names of them: `named(top_p="p")`."""
        asked = {theirs: getattr(self, ours) for ours, theirs in names.items()}
        found = {name: said for name, said in asked.items() if said is not None and said != ()}
        return {
            name: list(cast("tuple[str, ...]", said)) if isinstance(said, tuple) else said
            for name, said in found.items()
        }


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of a model. `content` is the last user message as the model should see it, passages and all; `question`
    is what the person asks, a follow-up with the turns before it for a model that can't read the history."""

    system: str
    history: tuple[Message, ...]
    content: str
    question: str
    parameters: Parameters
    images: tuple[Image, ...] = ()
    grounding: Grounding = "off"
    passages: tuple[Passage, ...] = ()
    similarity: Similarity | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation with the message that is to be answered."""
        return (*self.history, Message("user", self.content, self.images))

    @property
    def pictures(self) -> int:
        """How many pictures it shows."""
        return sum(len(message.images) for message in self.messages)

    def blind(self) -> Self:
        """The prompt for a model that can't see."""
        if not self.pictures:
            return self
        *history, last = (message.blind() for message in self.messages)
        return replace(self, history=tuple(history), content=last.told, images=())


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer, maybe with `[n]` marks."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thinks aloud."""

    text: str


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence taken verbatim from passage `n` (from 1); `start`/`end` lie in the document's canonical text."""

    text: str
    n: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the provider counted for this call."""

    input: int
    output: int
    reasoning: int | None = None
    cached: int | None = None

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            # Nobody is paid for reading.
            object.__setattr__(self, "input", max(self.input, 0))
            object.__setattr__(self, "output", max(self.output, 0))


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete. An answer that ends without one was cut."""

    reason: str


Output = Text | Reasoning | Quote | Tokens | Finish


class ChatModel(Protocol):
    """An opened model. `writes`: it follows instructions, so it may rewrite a question or be given passages."""

    writes: bool

    def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        """The answer as it comes. Raises RunError with a message for the caller, never the provider's own text."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What a provider can do now. `models` may be incomplete; `default` is the model to use when none is asked for."""

    available: bool
    reason: str
    models: tuple[str, ...] = ()
    default: str | None = None


class Provider(Protocol):
    """A configured provider."""

    async def listing(self) -> Listing:
        """What is usable now, and why. Answers within seconds, never raises."""
        ...

    def open(self, model: str) -> ChatModel:
        """The named model. It need not be listed. Raises RunError when the provider isn't available."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of provider: a row of a wire's table. `base_url` None: it must be set. `key`: it wants one. `refuses` are
    the fields of `Parameters` (and `images`) that it has no word for. `profiles` is the LangChain package that knows
    what its models can, `prices` its name in genai-prices; `price` is what all of its models cost where that is sure.
    `unseen`: when its models think what isn't shown, or only summed up, yet paid for: where reasoning is `asked` for,
    or as each `model` is used to. `quirks` is read by the wire alone."""

    name: str
    summary: str
    base_url: str | None = None
    key: bool = True
    refuses: frozenset[str] = frozenset()
    profiles: str | None = None
    prices: str | None = None
    price: Price | None = None
    default_rank: int | None = None
    unseen: Literal["asked", "model"] | None = None
    quirks: Any = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider as it is set up: its name, and where and how it is reached. `rank`: whose turn it is when a default
    model is looked for, the lowest first; None, and it is never asked."""

    name: str
    kind: Kind
    base_url: str | None = None
    key: SecretStr | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    rank: int | None = None

    @property
    def own_address(self) -> bool:
        """It listens where somebody said, not where everybody's does."""
        return self.base_url != self.kind.base_url

    @property
    def set_up(self) -> str:
        """By what it is there, for people."""
        if self.name != self.kind.name:
            return f"set up at {self.shown}"
        own = self.own_address or self.key is None
        return f"{self.url_setting if own else self.key_setting} is set"

    @property
    def root(self) -> str:
        """The address without a slash at its end; empty where none is set."""
        return (self.base_url or "").rstrip("/")

    @property
    def listed_as(self) -> str | None:
        """Its name in genai-prices. A server of one's own has its own prices, whatever its models are called."""
        return self.kind.prices if self.kind.base_url in (None, self.base_url) else None

    @property
    def shown(self) -> str:
        """The address for people: without what may be a password in it."""
        return re.sub(r"//[^/@]*@", "//", self.root)

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
    """A wire's entry in the registry: the kinds of provider that speak it. `needs` are the modules of its SDK,
    `install` the pip line that adds them."""

    name: str
    kinds: tuple[Kind, ...]
    create: Callable[[Endpoint, ModelSettings], Provider]
    needs: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str | None:
        """Why its SDK can't be used, or None."""
        absent = [m for m in self.needs if importlib.util.find_spec(m) is None]
        return f"{', '.join(absent)} is not installed: {self.install}" if absent else None


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a refusal's `Retry-After` asks to wait, which is a number or a date; 0 without one."""
    given = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def chat_messages(prompt: Prompt) -> list[tuple[str, Any]]:
    """The prompt as (role, content) pairs of OpenAI's API, which LangChain takes too and translates for each provider:
    content is text, or a list of parts where there are pictures."""
    head = [("system", prompt.system)] if prompt.system else []
    return [*head, *((message.role, _content(message)) for message in prompt.messages)]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.told
    shown = [{"type": "image_url", "image_url": {"url": image.url}} for image in message.images]
    # A part without text is refused by some.
    return [*([{"type": "text", "text": message.told}] if message.told else []), *shown]
