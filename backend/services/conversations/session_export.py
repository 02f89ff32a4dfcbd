"""A session as a file: JSON that can be imported again, or Markdown to read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from backend.errors import Invalid
from backend.kit.ids import new_id
from backend.kit.text import clean_text
from backend.kit.times import now_ms
from backend.kit.yielding import in_pieces
from backend.messages import CitationRef, SourcesPart, TextPart, decode_parts, images_of
from backend.services.conversations.session_file import ReadSession
from backend.services.conversations.sessions import SessionService
from backend.storage.conversations.messages import MessageRow
from backend.storage.conversations.sessions import SessionRow, Sessions
from backend.storage.runs.turns import MAX_BRANCHES


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session with all its messages; `usage` by run, JSON."""

    session: SessionRow
    messages: list[MessageRow]
    usage: Mapping[str, msgspec.Raw]


class Transcripts:
    """Export and import."""

    def __init__(self, sessions: Sessions, service: SessionService) -> None:
        self._sessions = sessions
        self._service = service

    async def export(self, owner: str, session_id: str) -> Transcript:
        """All of a session. Raises NotFound."""
        session = await self._sessions.get(owner, session_id)
        found = await self._sessions.messages(session_id)
        known = {row.id for row in found}
        # What follows an answer that is still being written stands alone until that one is there.
        rows = [row if row.parent_id in known else replace(row, parent_id=None) for row in found]
        usage = {run: msgspec.Raw(text.encode()) for run, text in (await self._sessions.usage(session_id)).items()}
        return Transcript(session, rows, usage)

    async def markdown(self, owner: str, session_id: str) -> str:
        """The active path as Markdown, citations as footnotes. Raises NotFound."""
        session, rows = await self._service.path(owner, session_id)
        return await markdown(session.title, rows)

    async def bring_in(self, owner: str, file: ReadSession) -> SessionRow:
        """A new session of a file's messages, with ids of their own. Raises Invalid."""
        check_tree(file.messages)
        ids = {row.id: new_id("msg") for row in file.messages}
        if file.head is not None and file.head not in ids:
            raise Invalid("head_message_id: is no message of this file.")
        last = file.head or (file.messages[-1].id if file.messages else None)
        session = SessionRow(
            id=new_id("ses"),
            title=" ".join(clean_text(file.title).split())[:200] or "Imported",
            head_message_id=ids[last] if last is not None else None,
            settings={},
            created_at=min(file.created_at, now_ms()),
            updated_at=now_ms(),
        )
        fresh = [
            replace(
                row,
                id=ids[row.id],
                session_id=session.id,
                parent_id=ids[row.parent_id] if row.parent_id is not None else None,
                created_at=min(row.created_at, now_ms()),
            )
            async for row in in_pieces(file.messages)
        ]
        await self._sessions.insert(owner, session, fresh, file.images)
        return await self._sessions.get(owner, session.id)


def check_tree(rows: Sequence[MessageRow]) -> None:
    """Whether messages follow each other as those of a session do. Raises Invalid."""
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
    if max(map(len, children.values()), default=0) > MAX_BRANCHES:
        raise Invalid(f"messages: more than {MAX_BRANCHES} follow the same one, or begin the session.")
    reached, ahead = 0, list(children.get(None, ()))
    while ahead:
        reached += 1
        ahead += children.get(ahead.pop(), ())
    if reached != len(rows):
        raise Invalid("messages: follow each other in a circle.")


# --- Markdown

_MAX_TITLE = 300
"""Characters: each citation of a source repeats it."""
_SPECIAL = re.compile(r"([\\`*_\[\]<>])")


async def markdown(title: str, rows: Sequence[MessageRow]) -> str:
    """Messages one after the other; footnotes say what a citation quotes, and where it stands."""
    notes: list[str] = []
    pieces = [f"# {_plain(title)}"]
    async for row in in_pieces(rows):
        parts = decode_parts(row.parts)
        who = "User" if row.role == "user" else f"Assistant ({_plain(row.model)})" if row.model else "Assistant"
        ended = "" if row.status == "complete" else f" – {row.status}"
        pieces.append(f"## {who}{ended}")
        sources = [item for part in parts if isinstance(part, SourcesPart) for item in part.items]
        titles = {item.source_id: item.title[:_MAX_TITLE] for item in sources}
        pieces += [_noted(part, titles, notes) for part in parts if isinstance(part, TextPart) and part.text]
        pieces += [f"![picture](/images/{part.image_id})" for part in images_of(parts)]
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
