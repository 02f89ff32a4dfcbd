"""Search in the texts of an owner's messages."""

import re
from dataclasses import dataclass

from backend.storage.conversations.message_texts import MATCH_BEGIN, MATCH_END, MessageHit, MessageTexts

_WORD = re.compile(r"[^\W_]+")
_MAX_SNIPPET = 400
"""Characters of a snippet. A word may be longer."""


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """A message that fits, a piece of its text, and where the matches are in that piece, in code points."""

    hit: MessageHit
    snippet: str
    matches: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FoundMessages:
    """A page of messages, the last stored one first. `more` says whether there are more after them."""

    items: list[FoundMessage]
    more: bool


class MessageSearch:
    """Finds messages by their words."""

    def __init__(self, texts: MessageTexts) -> None:
        self._texts = texts

    async def search(self, owner: str, query: str, before: int | None, limit: int) -> FoundMessages:
        """At most `limit` messages that have all words of the query, after the one with the number `before`."""
        hits = await self._texts.search(owner, _WORD.findall(query), before, limit + 1)
        return FoundMessages([_found(hit) for hit in hits[:limit]], len(hits) > limit)


def _found(hit: MessageHit) -> FoundMessage:
    """The snippet without the marks around its matches, cut to its maximum length."""
    pieces = re.split(f"([{MATCH_BEGIN}{MATCH_END}])", hit.snippet)
    text, begin, matches = "", None, list[tuple[int, int]]()
    for piece in pieces:
        if piece == MATCH_BEGIN:
            begin = len(text)
        elif piece == MATCH_END:
            if begin is not None:
                matches.append((begin, len(text)))
            begin = None
        else:
            text += piece
    if len(text) > _MAX_SNIPPET:
        # A text may be one long word. The first match is shown.
        first = matches[0][0] if matches else 0
        start = max(0, min(first - 40, len(text) - _MAX_SNIPPET))
        text = text[start : start + _MAX_SNIPPET]
        matches = [(a - start, min(b - start, len(text))) for a, b in matches if 0 <= a - start < len(text)]
    return FoundMessage(hit, text, matches)
