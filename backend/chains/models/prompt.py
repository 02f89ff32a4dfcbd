"""What a model is sent, and what it streams back: the same for every provider."""

import base64
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, cast

from backend.chains.models.tokenizers import Count
from backend.chains.passages import Passage, Similarity
from backend.kit.numbers import bounded

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
"""The parameters that only a language model understands. Every model accepts temperature, also one that ignores it."""


Effort = Literal["minimal", "low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The options of a call. None: the model decides. `max_tokens` limits the answer; `response_schema` is a JSON
    schema, as text, that the answer must follow."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: Effort | None = None
    response_schema: str | None = None

    def named(self, **names: str) -> dict[str, Any]:
        """Those of these fields that are set, under a provider's names for them: `named(top_p="p")`."""
        values = {theirs: getattr(self, ours) for ours, theirs in names.items()}
        return {
            name: list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value != ()
        }


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that a model is sent in one call. `content` is the last user message with its passages. `question` is
    the user's question alone; for a model that can't read the history, a follow-up includes the turns before it."""

    system: str
    history: tuple[Message, ...]
    content: str
    question: str
    parameters: Parameters
    images: tuple[Image, ...] = ()
    grounding: Grounding = "off"
    passages: tuple[Passage, ...] = ()
    similarity: Similarity | None = None
    document_names: tuple[str, ...] = ()
    """The names of the user's documents, for a model that doesn't write and is asked about them."""
    shows_advice: bool = True
    """Whether the answer may say which settings to change, for a model that doesn't write."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history, and the message to answer."""
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
    """More of the answer's text, which may hold `[n]` marks."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of the model's reasoning."""

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
    """The tokens of the call, as the provider counted them."""

    input: int
    output: int
    reasoning: int | None = None
    cached: int | None = None
    is_doubtful: bool = False
    """Whether the provider's counts contradict each other."""
    prompt_cut: bool = False
    """Whether the model was given only a part of the prompt, because the rest had no room in its context."""

    def __post_init__(self) -> None:
        # A provider that reports negative tokens must not lower the bill, and one that reports absurd ones must not
        # break the sums.
        object.__setattr__(self, "input", bounded(self.input))
        object.__setattr__(self, "output", bounded(self.output))
        if self.reasoning is not None:
            object.__setattr__(self, "reasoning", bounded(self.reasoning))
        if self.cached is not None:
            object.__setattr__(self, "cached", bounded(self.cached))


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete. A stream without `Finish` broke off."""

    reason: str


@dataclass(frozen=True, slots=True)
class ThoughtEnd:
    """All text so far was a thought of the model, and the answer begins now. That shows only at the thought's end if
    its beginning was part of the prompt."""


Output = Text | Reasoning | Quote | Tokens | Finish | ThoughtEnd
