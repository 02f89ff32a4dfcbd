"""What a model is sent, and what it streams back: the same for every provider."""

import base64
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, cast

from backend.chains.models.tokenizers import Count
from backend.chains.passages import Passage, Similarity

Grounding = Literal["off", "no_documents", "nothing_relevant", "passages"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the user sent."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """As a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the conversation. `images` are shown to the model; `unseen` further images are only
    mentioned in a note. `count` is the model's own tokenizer, if the server has it; it is slow, and is used only for
    messages that may fit."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[Image, ...] = ()
    unseen: int = 0
    count: Count | None = field(default=None, repr=False, compare=False)

    @property
    def note(self) -> str:
        """A note about the images that the model isn't sent; empty if there are none."""
        if not self.unseen:
            return ""
        return "[1 picture, not shown here]" if self.unseen == 1 else f"[{self.unseen} pictures, not shown here]"

    @property
    def text_for_model(self) -> str:
        """The text with the note about hidden images."""
        return f"{self.text}\n{self.note}" if self.text and self.unseen else self.text or self.note

    def blind(self) -> Self:
        """The message for a model that can't see images: with a note instead."""
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
        """How many images the prompt has."""
        return sum(len(message.images) for message in self.messages)

    def blind(self) -> Self:
        """The prompt for a model that can't see images: with notes instead."""
        if not self.pictures:
            return self
        *history, last = (message.blind() for message in self.messages)
        return replace(self, history=tuple(history), content=last.text_for_model, images=())


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
            # A provider that reports negative tokens must not lower the bill.
            object.__setattr__(self, "input", max(self.input, 0))
            object.__setattr__(self, "output", max(self.output, 0))


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete. An answer that ends without one was cut."""

    reason: str


Output = Text | Reasoning | Quote | Tokens | Finish


def chat_messages(prompt: Prompt) -> list[tuple[str, Any]]:
    """The prompt as (role, content) pairs of OpenAI's API, which LangChain takes too and translates for each provider:
    content is text, or a list of parts where there are pictures."""
    head = [("system", prompt.system)] if prompt.system else []
    return [*head, *((message.role, _content(message)) for message in prompt.messages)]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text_for_model
    shown = [{"type": "image_url", "image_url": {"url": image.url}} for image in message.images]
    # A part without text is refused by some.
    return [*([{"type": "text", "text": message.text_for_model}] if message.text_for_model else []), *shown]
