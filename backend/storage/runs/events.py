"""The stored events of runs, as the lines that clients get. Only this module writes the table run_events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backend.storage.engine.tx import Tx


@dataclass(slots=True, frozen=True)
class EventLines:
    """Events first_seq..last_seq of a run, one JSON line each, joined by newlines."""

    run_id: str
    first_seq: int
    last_seq: int
    lines: bytes

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """The seq and the line of each event. A damaged row may hold fewer lines than seqs, or more."""
        return zip(range(self.first_seq, self.last_seq + 1), self.lines.split(b"\n"), strict=False)


def append(tx: Tx, batch: Sequence[EventLines]) -> None:
    """Store events. Events of runs that were deleted meanwhile are left out."""
    # If a run ends while its checkpoint is being written, its last write begins at the same seq and has more events.
    tx.execute_many(
        "INSERT INTO run_events (run_id, first_seq, last_seq, v, lines) "
        "SELECT :run_id, :first_seq, :last_seq, 1, :lines WHERE EXISTS (SELECT 1 FROM runs WHERE id = :run_id) "
        "ON CONFLICT (run_id, first_seq) DO UPDATE SET last_seq = excluded.last_seq, lines = excluded.lines",
        [{"run_id": e.run_id, "first_seq": e.first_seq, "last_seq": e.last_seq, "lines": e.lines} for e in batch],
    )


def replace(tx: Tx, events: EventLines) -> None:
    """Replace the run's whole log by `events`."""
    tx.execute("DELETE FROM run_events WHERE run_id = :run_id", run_id=events.run_id)
    append(tx, [events])


def after(tx: Tx, run_id: str, seq: int, limit: int) -> list[EventLines]:
    """The events after `seq`, at most `limit` rows. The first row may also contain earlier events."""
    rows = tx.rows(
        "SELECT run_id, first_seq, last_seq, lines FROM run_events WHERE run_id = :run_id AND last_seq > :seq "
        "ORDER BY first_seq LIMIT :limit",
        run_id=run_id,
        seq=seq,
        limit=limit,
    )
    return [EventLines(*row) for row in rows]


def last(tx: Tx, run_id: str) -> EventLines | None:
    """The last stored row of a run; None if nothing was stored."""
    row = tx.one(
        "SELECT run_id, first_seq, last_seq, lines FROM run_events WHERE run_id = :run_id "
        "ORDER BY first_seq DESC LIMIT 1",
        run_id=run_id,
    )
    return None if row is None else EventLines(*row)
