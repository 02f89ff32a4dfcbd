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
    """A message to answer, and how. Without `session_id` and `sibling_of` the message begins a new session.

    `sibling_of` is the id of an earlier message, which has the same parent as this one. With `regenerate`, the earlier
    message is answered again; then `message` is ignored. `images` are new images; `kept_images` are the images of the
    earlier message that this one has, too. `documents`: True means all, False none; a tuple has the ids of some.
    For `collections`, `model`, `prompt` and `system_prompt`, None means: as the session says.
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
