"""The interface of dialects: a dialect makes encoders, and an encoder turns a run's events into bytes for clients."""

from dataclasses import dataclass, field
from typing import Protocol

from backend.services.runs.fold import RunFold


class Encoder(Protocol):
    """Turns a run's events into bytes. It must be given every event, in order."""

    def event(self, seq: int, line: bytes) -> bytes:
        """The bytes that a client is sent for the event `seq`, whose JSON is `line`; may be empty."""
        ...


class Dialect(Protocol):
    """One way to send events to clients. Equal events give equal bytes, so that a resumed stream continues exactly
    where it ended."""

    @property
    def media_type(self) -> str:
        """The content type of the stream."""
        ...

    @property
    def is_stateless(self) -> bool:
        """Whether an event's bytes depend on that event alone. If not, the encoder of a watcher that resumes needs a
        fold of the run's earlier events."""
        ...

    def encoder(self, run_id: str, before: RunFold) -> Encoder:
        """An encoder for the events after those in `before`. The fold is empty at the start of a run, and always for a
        stateless dialect."""
        ...


@dataclass(slots=True)
class Watcher:
    """A client that follows a live run: its cursor and its encoder.

    `encoder` was given all events up to `cursor`. It is None while a watcher of a stateful dialect uses the pieces that
    the watchers of its dialect share.
    """

    run_id: str
    cursor: int
    dialect: Dialect
    encoder: Encoder | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.dialect.is_stateless or self.cursor == 0:
            self.encoder = self.dialect.encoder(self.run_id, RunFold())


class SharedPieces:
    """The newest pieces of one dialect, which watchers at the same cursor share. `encoder` was given all events up to
    `seq`."""

    __slots__ = ("by_cursor", "encoder", "seq")

    def __init__(self) -> None:
        self.by_cursor: dict[int | tuple[int, int], tuple[int, bytes]] = {}
        self.encoder: Encoder | None = None
        self.seq = -1

    def put(self, key: int | tuple[int, int], piece: tuple[int, bytes], encoder: Encoder) -> None:
        """Keep a piece: the seq of its last event, and its bytes. Keep its encoder, too, if it has the highest seq."""
        if len(self.by_cursor) >= 8:
            self.by_cursor.clear()
        self.by_cursor[key] = piece
        if piece[0] > self.seq:
            self.encoder, self.seq = encoder, piece[0]
