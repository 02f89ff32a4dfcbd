"""How a run's log becomes the bytes of one protocol of clients: a dialect makes encoders, an encoder makes bytes."""

from dataclasses import dataclass, field
from typing import Protocol

from backend.services.runs.fold import RunFold


class Encoder(Protocol):
    """Makes bytes of a run's events, one after the other, without a gap."""

    def event(self, seq: int, line: bytes) -> bytes:
        """The bytes that the client gets for the event `seq`, whose JSON is `line`; may be empty."""
        ...


class Dialect(Protocol):
    """One protocol of clients. Equal events give equal bytes, so that a resumed stream joins without a seam."""

    @property
    def media_type(self) -> str:
        """The content type of the stream."""
        ...

    @property
    def is_stateless(self) -> bool:
        """Whether an event's bytes depend on that event alone. If not, a watcher that resumes costs a look at the run
        from its start."""
        ...

    def encoder(self, run_id: str, before: RunFold) -> Encoder:
        """An encoder that goes on after the events that `before` holds: none at the start of a run, and none ever for
        a stateless dialect."""
        ...


@dataclass(slots=True)
class Watcher:
    """One stream of a live run: where it is, and what makes its bytes.

    `encoder` has seen all events until `cursor`. It is None while a watcher of a stateful dialect lives on the pieces
    that the watchers of its dialect share.
    """

    run_id: str
    cursor: int
    dialect: Dialect
    encoder: Encoder | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.dialect.is_stateless or self.cursor == 0:
            self.encoder = self.dialect.encoder(self.run_id, RunFold())


class SharedPieces:
    """The newest pieces of one dialect, for watchers at equal cursors; `encoder` has seen all events until `seq`."""

    __slots__ = ("by_cursor", "encoder", "seq")

    def __init__(self) -> None:
        self.by_cursor: dict[int | tuple[int, int], tuple[int, bytes]] = {}
        self.encoder: Encoder | None = None
        self.seq = -1

    def put(self, key: int | tuple[int, int], piece: tuple[int, bytes], encoder: Encoder) -> None:
        """Keep a piece, which is the seq that it leads to and its bytes; and its encoder, if no other is as far."""
        if len(self.by_cursor) >= 8:
            self.by_cursor.clear()
        self.by_cursor[key] = piece
        if piece[0] > self.seq:
            self.encoder, self.seq = encoder, piece[0]
