"""The messages of a prompt as every server takes them, also the strict ones.

Many templates of open models, and some vendors, refuse a history in which one role speaks twice in a row, a blank
message, or an answer without a question before it. Histories have all of these: after answers that failed, were
stopped, refused or empty, and in imported sessions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from backend.chains.models.prompt import Message, Prompt
from backend.config.quirks import ModelQuirks

_USUAL = ModelQuirks()


def chat_messages(prompt: Prompt, quirks: ModelQuirks = _USUAL) -> list[tuple[str, Any]]:
    """The prompt as (role, content) pairs of OpenAI's API, which LangChain translates for each provider. Content is
    text, or a list of parts if there are images. No message is blank, and the first one after the system prompt is the
    user's; roles alternate, unless the quirks say that messages are not merged."""
    messages = alternating(prompt.messages) if quirks.merge is not False else _sendable(prompt.messages)
    system = prompt.system if prompt.system.strip() else ""
    role = quirks.system_role or "system"
    if system and role == "user":
        first = messages[0] if messages else Message("user", "")
        messages = [replace(first, text=_joined(system, first.text)), *messages[1:]]
    head = [(role, system)] if system and role != "user" else []
    return [*head, *((message.role, _content(message)) for message in messages)]


def alternating(messages: Sequence[Message]) -> list[Message]:
    """The messages with alternating roles, the user's first. What one role says in a row is one message, in paragraphs;
    what it says twice is said once."""
    merged: list[Message] = []
    for message in _sendable(messages):
        if merged and merged[-1].role == message.role:
            merged[-1] = _merged(merged[-1], message)
        else:
            merged.append(message)
    return merged


def _sendable(messages: Iterable[Message]) -> list[Message]:
    """The messages that aren't blank, from the user's first one on."""
    sendable = [message for message in messages if message.images or message.text_for_model.strip()]
    begin = next((n for n, message in enumerate(sendable) if message.role == "user"), len(sendable))
    # A prompt always ends with a message of the user.
    return sendable[begin:]


def _merged(first: Message, second: Message) -> Message:
    is_repeated = first.text.strip() == second.text.strip()
    return replace(
        second,
        text=second.text if is_repeated else _joined(first.text, second.text),
        images=tuple(dict.fromkeys((*first.images, *second.images))),
        hidden_images=max(first.hidden_images, second.hidden_images)
        if is_repeated
        else first.hidden_images + second.hidden_images,
    )


def _joined(first: str, second: str) -> str:
    return "\n\n".join(text for text in (first, second) if text.strip())


def _content(message: Message) -> str | list[dict[str, Any]]:
    text = message.text_for_model
    if not message.images:
        return text
    images = [{"type": "image_url", "image_url": {"url": image.url}} for image in message.images]
    # Some providers refuse a blank text part.
    return [*([{"type": "text", "text": text}] if text.strip() else []), *images]
