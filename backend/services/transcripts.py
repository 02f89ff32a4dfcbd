"""A session as a file: JSON that can be imported again, or Markdown to read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from backend.errors import Invalid
from backend.events import clean_text
from backend.services.run_state import CitationRef, SourcesPart, TextPart, decode_parts, encode_parts
from backend.services.sessions import SessionService
from backend.storage.ids import new_id, now_ms
from backend.storage.sessions import MessageRow, SessionRow, Sessions

MAX_MESSAGES = 5_000


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session with all its messages; `usage` by run, JSON values."""

    session: SessionRow
    messages: list[MessageRow]
    usage: Mapping[str, Any]


class Transcripts:
    """Export and import."""

    def __init__(self, sessions: Sessions, service: SessionService) -> None:
        self._sessions = sessions
        self._service = service

    async def export(self, owner: str, session_id: str) -> Transcript:
        """All of a session. Raises NotFound."""
        session = await self._sessions.get(owner, session_id)
        found = await self._service.conversation(owner, session_id, every_branch=True)
        known = {each.row.id for each in found.messages}
        # What follows an answer that is still being written stands alone until that one is there.
        rows = [
            each.row if each.row.parent_id in known else replace(each.row, parent_id=None) for each in found.messages
        ]
        usage = {run: msgspec.json.decode(text) for run, text in (await self._sessions.usage(session_id)).items()}
        return Transcript(session, rows, usage)

    async def markdown(self, owner: str, session_id: str) -> str:
        """The active path as Markdown, citations as footnotes. Raises NotFound."""
        session = await self._sessions.get(owner, session_id)
        found = await self._service.conversation(owner, session_id, every_branch=False)
        return markdown(session.title, [each.row for each in found.messages])

    async def bring_in(
        self, owner: str, title: str, head: str | None, created_at: int, rows: Sequence[MessageRow]
    ) -> SessionRow:
        """A new session of these messages, with ids of their own. Raises Invalid."""
        checked = checked_rows(rows)
        ids = {row.id: new_id("msg") for row in checked}
        if head is not None and head not in ids:
            raise Invalid("head_message_id: is no message of this file.")
        session = SessionRow(
            id=new_id("ses"),
            title=" ".join(clean_text(title).split())[:200] or "Imported",
            head_message_id=ids[head] if head is not None else (ids[checked[-1].id] if checked else None),
            settings={},
            created_at=min(created_at, now_ms()),
            updated_at=now_ms(),
        )
        fresh = [
            replace(
                row,
                id=ids[row.id],
                session_id=session.id,
                parent_id=ids[row.parent_id] if row.parent_id is not None else None,
                run_id=None,
                created_at=min(row.created_at, now_ms()),
            )
            for row in checked
        ]
        await self._sessions.insert(owner, session, fresh)
        return await self._sessions.get(owner, session.id)


def checked_rows(rows: Sequence[MessageRow]) -> list[MessageRow]:
    """Messages that are fit to be stored: a tree, with parts that can be read. Raises Invalid."""
    if len(rows) > MAX_MESSAGES:
        raise Invalid(f"messages: are {len(rows)}, at most {MAX_MESSAGES} can be imported.")
    roles = {row.id: row.role for row in rows}
    if len(roles) != len(rows):
        raise Invalid("messages: an id occurs twice.")
    children: dict[str | None, list[str]] = {}
    for row in rows:
        if row.parent_id is not None and row.parent_id not in roles:
            raise Invalid(f"messages: {row.id} follows a message that isn't there.")
        if row.role == "assistant" and (row.parent_id is None or roles[row.parent_id] != "user"):
            raise Invalid(f"messages: {row.id} is an answer and follows no message of the user's.")
        children.setdefault(row.parent_id, []).append(row.id)
    reached, ahead = 0, list(children.get(None, ()))
    while ahead:
        reached += 1
        ahead += children.get(ahead.pop(), ())
    if reached != len(rows):
        raise Invalid("messages: follow each other in a circle.")
    return [replace(row, parts=_checked_parts(row)) for row in rows]


def _checked_parts(row: MessageRow) -> str:
    try:
        parts = decode_parts(encode_parts(decode_parts(row.parts)))
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise Invalid(f"messages: the parts of {row.id} can't be read: {error}") from None
    for part in parts:
        if isinstance(part, TextPart) and any(not 0 <= c.start <= c.end <= len(part.text) for c in part.citations):
            raise Invalid(f"messages: a citation of {row.id} lies outside its text.")
    return encode_parts(parts)


# --- Markdown

_SPECIAL = re.compile(r"([\\`*_\[\]<>])")


def markdown(title: str, rows: Sequence[MessageRow]) -> str:
    """Messages one after the other; footnotes say what a citation quotes, and where it stands."""
    notes: list[str] = []
    pieces = [f"# {_plain(title)}"]
    for row in rows:
        parts = decode_parts(row.parts)
        who = "User" if row.role == "user" else f"Assistant ({row.model})" if row.model else "Assistant"
        ended = "" if row.status == "complete" else f" – {row.status}"
        pieces.append(f"## {who}{ended}")
        titles = {item.source_id: item.title for part in parts if isinstance(part, SourcesPart) for item in part.items}
        pieces += [_noted(part, titles, notes) for part in parts if isinstance(part, TextPart) and part.text]
    return "\n\n".join([*pieces, *notes]) + "\n"


def _noted(part: TextPart, titles: Mapping[str, str], notes: list[str]) -> str:
    text: list[str] = []
    at = 0
    for citation in sorted(part.citations, key=lambda c: c.end):
        notes.append(f"[^{len(notes) + 1}]: {_note(citation, titles)}")
        text += [part.text[at : citation.end], f"[^{len(notes)}]"]
        at = citation.end
    return "".join([*text, part.text[at:]])


def _note(citation: CitationRef, titles: Mapping[str, str]) -> str:
    page = f", p. {citation.document.page}" if citation.document.page is not None else ""
    title = titles.get(citation.source_id, citation.document.document_id)
    return f"{_plain(title)}{page}: “{_plain(citation.quote)}”"


def _plain(text: str) -> str:
    """Text on one line that Markdown takes as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
