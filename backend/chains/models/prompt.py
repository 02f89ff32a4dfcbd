"""What a model is sent, and what it streams back: the same for every provider."""

import base64
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, cast

from backend.chains.models.tokenizers import Count
from backend.chains.passages import Passage, Similarity

Grounding = Literal["off", "no_documents", "nothing_relevant", "passages"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a message."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """The image as a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the conversation."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[Image, ...] = ()
    """The images that the model is sent."""
    hidden_images: int = 0
    """The number of further images, which the model is not sent; `note` mentions them."""
    count: Count | None = field(default=None, repr=False, compare=False)
    """Counts tokens with the model's own tokenizer, if there is one. It is slow: call it only for what may fit."""

    @property
    def note(self) -> str:
        """A line for the model that stands for the hidden images; empty without any."""
        if not self.hidden_images:
            return ""
        return (
            "[1 picture, not shown here]"
            if self.hidden_images == 1
            else f"[{self.hidden_images} pictures, not shown here]"
        )

    @property
    def text_for_model(self) -> str:
        """What the model reads: the text, and the note about hidden images."""
        return f"{self.text}\n{self.note}" if self.text and self.hidden_images else self.text or self.note

    def without_images(self) -> Self:
        """This message for a model that can't read images."""
        return replace(self, images=(), hidden_images=self.hidden_images + len(self.images)) if self.images else self


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
    def image_count(self) -> int:
        """The number of images in all messages."""
        return sum(len(message.images) for message in self.messages)

    def without_images(self) -> Self:
        """This prompt for a model that can't read images."""
        if not self.image_count:
            return self
        *history, last = (message.without_images() for message in self.messages)
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
            # Nobody is paid for reading.
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
