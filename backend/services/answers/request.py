"""Everything that a caller asks for when a message is to be answered."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from backend.chains.models.parameters import ModelOptions
from backend.chains.models.prompt import Image
from backend.config.groups.runs import OnDisconnect
from backend.messages import ImagePart
from backend.services.prompts.prompts import PromptChoice

IfBusy = Literal["reject", "queue", "replace"]


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A message to answer, and how to answer it. Without `session_id` and `sibling_of` it begins a new session.

    `sibling_of` is the id of an earlier message with the same parent. With `regenerate`, that earlier message is
    answered again, and `message` is ignored. `images` are new images; `kept_images` are images of the earlier message
    that this message has, too. `documents` is True for all documents, False for none, or a tuple of ids. If
    `collections`, `model`, `prompt` or `system_prompt` is None, the session's value is used.
    """

    message: str = ""
    session_id: str | None = None
    parent_id: str | None = None
    expect_head: str | None = None
    sibling_of: str | None = None
    regenerate: bool = False
    model: str | None = None
    options: ModelOptions = field(default_factory=ModelOptions)
    documents: bool | tuple[str, ...] = True
    collections: tuple[str, ...] | None = None
    system_prompt: str | None = None
    prompt: PromptChoice | None = None
    images: tuple[Image, ...] | None = None
    kept_images: tuple[ImagePart, ...] = ()
    fallbacks: tuple[str, ...] | None = None
    fallback_after_output: bool = False
    if_busy: IfBusy = "reject"
    on_disconnect: OnDisconnect | None = None
    idempotency_key: str | None = None

    @property
    def image_count(self) -> int:
        """How many images the message has."""
        return len(self.images or ()) + len(self.kept_images)

    def fingerprint(self) -> str:
        """A hash that is equal for equal requests (SHA-256, hex)."""
        digest = hashlib.sha256(repr(self).encode("utf-8", "surrogatepass"))
        for image in self.images or ():
            digest.update(hashlib.sha256(image.data).digest())
        return digest.hexdigest()
