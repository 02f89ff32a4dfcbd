"""The messages of a session as a tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.storage.conversations.messages import MessageRow


@dataclass(frozen=True, slots=True)
class PlacedMessage:
    """A message and its place in the tree. `siblings` are the ids of all messages with the same parent, with its own,
    oldest first; siblings share one list. `active` says whether the message is on the active path."""

    row: MessageRow
    siblings: Sequence[str]
    active: bool


class Tree:
    """The tree of `rows`, which are in order of creation. `unwritten` has the ids of answers that are still being
    written, with the id of the message that each of them answers."""

    def __init__(self, rows: Sequence[MessageRow], unwritten: Mapping[str, str]) -> None:
        self._rows = {row.id: row for row in rows}
        self._unwritten = unwritten
        self._children: dict[str | None, list[str]] = {}
        for row in rows:
            self._children.setdefault(row.parent_id, []).append(row.id)

    def path(self, head: str | None) -> list[MessageRow]:
        """The messages from the root to `head`, oldest first."""
        rows_by_id: dict[str, MessageRow] = {}
        visited: set[str] = set()
        message_id = head
        while message_id is not None and message_id not in visited:
            visited.add(message_id)
            row = self._rows.get(message_id)
            if row is not None:
                rows_by_id[message_id] = row
            # The parent of a queued message is an answer that isn't stored yet: go on at the message that it answers.
            message_id = row.parent_id if row is not None else self._unwritten.get(message_id)
        return list(reversed(rows_by_id.values()))

    def placed_messages(self, head: str | None, *, every_branch: bool) -> list[PlacedMessage]:
        """The messages of the active path, oldest first; with `every_branch` all messages, in order of creation."""
        active = {row.id: row for row in self.path(head)}
        rows = self._rows if every_branch else active
        return [PlacedMessage(row, self._children[row.parent_id], row.id in active) for row in rows.values()]

    def leaf(self, message_id: str) -> str:
        """The id of the last message of the newest branch from this message on."""
        visited: set[str] = set()
        while (children := self._children.get(message_id)) and message_id not in visited:
            visited.add(message_id)
            message_id = children[-1]
        return message_id
