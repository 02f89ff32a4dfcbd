"""Exports a session: as JSON that can be imported again, or as Markdown to read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from backend.kit.yielding import in_pieces
from backend.messages import CitationRef, SourcesPart, TextPart, decode_parts, images_of
from backend.services.conversations.sessions import SessionService
from backend.storage.conversations.feedback import FeedbackRow, Feedbacks
from backend.storage.conversations.messages import MessageRow
from backend.storage.conversations.sessions import SessionRow, Sessions

_MAX_TITLE = 300
"""Characters of a source's title: each citation of the source repeats it."""
_SPECIAL = re.compile(r"([\\`*_\[\]<>])")


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session with all its messages. `usage` has the usage of each run as JSON, by the run's id; `feedback` is by the
    message's id.
    """

    session: SessionRow
    messages: list[MessageRow]
    usage: Mapping[str, msgspec.Raw]
    feedback: Mapping[str, FeedbackRow]


class SessionExport:
    """Reads whole sessions, to be written to files."""

    def __init__(self, sessions: Sessions, service: SessionService, feedback: Feedbacks) -> None:
        self._sessions = sessions
        self._feedback = feedback
        self._service = service

    async def export(self, owner: str, session_id: str) -> Transcript:
        """All of a session. Raises NotFound."""
        session = await self._sessions.get(owner, session_id)
        messages = await self._sessions.messages(session_id)
        ids = {row.id for row in messages}
        # An answer that is still being written isn't in the file, so a message after it has no parent there.
        rows = [row if row.parent_id in ids else replace(row, parent_id=None) for row in messages]
        usage = {run: msgspec.Raw(text.encode()) for run, text in (await self._sessions.usage(session_id)).items()}
        return Transcript(session, rows, usage, await self._feedback.by_session(session_id))

    async def markdown(self, owner: str, session_id: str) -> str:
        """The active path as Markdown, citations as footnotes. Raises NotFound."""
        session, rows = await self._service.path(owner, session_id)
        return await markdown(session.title, rows)


async def markdown(title: str, rows: Sequence[MessageRow]) -> str:
    """Messages as Markdown, one after the other. Each citation is a footnote with the quote and its document."""
    notes: list[str] = []
    pieces = [f"# {_plain(title)}"]
    async for row in in_pieces(rows):
        parts = decode_parts(row.parts)
        author = "User" if row.role == "user" else f"Assistant ({_plain(row.model)})" if row.model else "Assistant"
        status_note = "" if row.status == "complete" else f" – {row.status}"
        pieces.append(f"## {author}{status_note}")
        sources = [item for part in parts if isinstance(part, SourcesPart) for item in part.items]
        titles = {item.source_id: item.title[:_MAX_TITLE] for item in sources}
        pieces += [_with_footnotes(part, titles, notes) for part in parts if isinstance(part, TextPart) and part.text]
        pieces += [f"![picture](/images/{part.image_id})" for part in images_of(parts)]
    return "\n\n".join([*pieces, *notes]) + "\n"


def _with_footnotes(part: TextPart, titles: Mapping[str, str], notes: list[str]) -> str:
    text: list[str] = []
    position = 0
    for citation in sorted(part.citations, key=lambda c: c.end):
        notes.append(f"[^{len(notes) + 1}]: {_note(citation, titles)}")
        text += [part.text[position : citation.end], f"[^{len(notes)}]"]
        position = citation.end
    return "".join([*text, part.text[position:]])


def _note(citation: CitationRef, titles: Mapping[str, str]) -> str:
    page = f", p. {citation.document.page}" if citation.document.page is not None else ""
    title = titles.get(citation.source_id, citation.document.document_id)
    return f"{_plain(title)}{page}: “{_plain(citation.quote)}”"


def _plain(text: str) -> str:
    """The text on one line, with Markdown's special characters escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
