"""What a provider is to the rest: it lists models and opens them; a model streams its answer to a prompt."""

import importlib.util
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from backend.chains.passages import Passage, Similarity
from backend.config.settings import ModelSettings

Grounding = Literal["off", "no_documents", "nothing_relevant", "passages"]


@dataclass(frozen=True, slots=True)
class Message:
    """An earlier message of the conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of a model. `content` is the last user message as the model should see it, passages and all; `question`
    is what the person asks, a follow-up with the turns before it for a model that can't read the history."""

    system: str
    history: tuple[Message, ...]
    content: str
    question: str
    temperature: float
    max_tokens: int
    grounding: Grounding = "off"
    passages: tuple[Passage, ...] = ()
    similarity: Similarity | None = None


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
class Plugin:
    """A provider's entry in the registry. `needs` are the modules of its SDK, `install` the pip line that adds them;
    `default_rank` orders the search for a default model (None: never by itself)."""

    name: str
    summary: str
    create: Callable[[ModelSettings], Provider]
    default_rank: int | None = None
    needs: tuple[str, ...] = ()
    install: str = ""
    settings: tuple[str, ...] = field(default=())

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


def chat_messages(prompt: Prompt) -> list[tuple[str, str]]:
    """The prompt as (role, text) pairs, with the roles of OpenAI's API, which LangChain takes too."""
    head = [("system", prompt.system)] if prompt.system else []
    return [*head, *((m.role, m.text) for m in prompt.history), ("user", prompt.content)]


def langchain_outputs(chunk: Any) -> list[Output]:
    """What a LangChain message chunk holds, but for its end: each provider tells that in its own way."""
    outputs: list[Output] = []
    if reasoning := chunk.additional_kwargs.get("reasoning_content"):
        outputs.append(Reasoning(str(reasoning)))
    if text := chunk.text:
        outputs.append(Text(str(text)))
    if usage := chunk.usage_metadata:
        outputs.append(_langchain_tokens(usage))
    return outputs


def _langchain_tokens(usage: Mapping[str, Any]) -> Tokens:
    """LangChain's usage metadata as Tokens."""
    details: Mapping[str, Any] = {**usage.get("output_token_details", {}), **usage.get("input_token_details", {})}
    return Tokens(
        input=usage.get("input_tokens", 0),
        output=usage.get("output_tokens", 0),
        reasoning=details.get("reasoning"),
        cached=details.get("cache_read"),
    )
