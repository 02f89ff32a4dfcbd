"""The messages of a session as the tree that they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.storage.conversations.messages import MessageRow


@dataclass(frozen=True, slots=True)
class Placed:
    """A message and where it stands: `siblings` are the ids of all that follow the same message, itself too, oldest
    first, one list for all of them; `active` tells whether it is on the active path."""

    row: MessageRow
    siblings: Sequence[str]
    active: bool


class Tree:
    """`rows` in order of creation. `unwritten`: answers that are still being written, and what each answers."""

    def __init__(self, rows: Sequence[MessageRow], unwritten: Mapping[str, str]) -> None:
        self._rows = {row.id: row for row in rows}
        self._unwritten = unwritten
        self._children: dict[str | None, list[str]] = {}
        for row in rows:
            self._children.setdefault(row.parent_id, []).append(row.id)

    def path(self, head: str | None) -> list[MessageRow]:
        """From the root to `head`, oldest first."""
        found: dict[str, MessageRow] = {}
        seen: set[str] = set()
        at = head
        while at is not None and at not in seen:
            seen.add(at)
            row = self._rows.get(at)
            if row is not None:
                found[at] = row
            # A queued message follows an answer that is still being written: the path goes on at what that one answers.
            at = row.parent_id if row is not None else self._unwritten.get(at)
        return list(reversed(found.values()))

    def placed(self, head: str | None, *, every_branch: bool) -> list[Placed]:
        """The messages of the active path, oldest first, or all, in order of creation."""
        active = {row.id: row for row in self.path(head)}
        rows = self._rows if every_branch else active
        return [Placed(row, self._children[row.parent_id], row.id in active) for row in rows.values()]

    def leaf(self, message_id: str) -> str:
        """The last message of the newest branch that goes on from this one."""
        seen: set[str] = set()
        while (children := self._children.get(message_id)) and message_id not in seen:
            seen.add(message_id)
            message_id = children[-1]
        return message_id
