"""What a caller asks in one turn."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from backend.chains.models.prompt import Effort, Image
from backend.config.groups.runs import OnDisconnect
from backend.messages import ImagePart
from backend.services.prompts.prompts import PromptChoice

IfBusy = Literal["reject", "queue", "replace"]
_PARAMETERS = (
    "temperature",
    "max_tokens",
    "top_p",
    "seed",
    "stop",
    "reasoning_effort",
    "response_schema",
    "images",
)


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """What a caller asks. `documents`: True all, False none, or the ids of some. `collections`, `model`, `prompt` and
    `system_prompt`: None is as the session says.

    `beside` is an earlier message of the user's: this one stands beside it, or with `again` it is answered once more.
    `images` are new pictures, `kept` those of that message which this one shows, too.
    """

    message: str
    session_id: str | None = None
    parent_id: str | None = None
    expect_head: str | None = None
    beside: str | None = None
    again: bool = False
    model: str | None = None
    documents: bool | tuple[str, ...] = True
    collections: tuple[str, ...] | None = None
    system_prompt: str | None = None
    prompt: PromptChoice | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: Effort | None = None
    response_schema: str | None = None
    images: tuple[Image, ...] | None = None
    kept: tuple[ImagePart, ...] = ()
    fallbacks: tuple[str, ...] | None = None
    fallback_after_output: bool = False
    if_busy: IfBusy = "reject"
    on_disconnect: OnDisconnect | None = None
    idempotency_key: str | None = None

    @property
    def shows(self) -> int:
        """How many pictures the message has."""
        return len(self.images or ()) + len(self.kept)

    def asked(self) -> dict[str, object]:
        """What is asked of the model, by name."""
        named = {name: getattr(self, name) for name in _PARAMETERS}
        return {name: said for name, said in named.items() if said not in (None, ())}

    def fingerprint(self) -> str:
        """Tells whether two requests ask the same (SHA-256, hex)."""
        told = hashlib.sha256(repr(self).encode("utf-8", "surrogatepass"))
        for image in self.images or ():
            told.update(hashlib.sha256(image.data).digest())
        return told.hexdigest()
