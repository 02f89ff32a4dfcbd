"""Stored runs: replays and folds them, ends those that a crash interrupted, shortens old logs to a snapshot.

Damaged events are left out, with a line in the log: one of them must not hide the others.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import msgspec
import structlog

from backend import events as ev
from backend.chains.history.images import IMAGE_TOKENS
from backend.chains.text.tokens import estimate_tokens
from backend.errors import ServerRestarted, StreamForgeError
from backend.events import status_of
from backend.messages import decode_parts, encode_parts, images_of, text_of
from backend.services.runs.dialect import Dialect, Encoder
from backend.services.runs.fold import RunFold
from backend.services.usage.metering import calls_of
from backend.storage.runs.events import EventLines
from backend.storage.runs.turns import ClosedTurn, StoredRun, Turns

log = structlog.get_logger(__name__)

RECOVERY_GAP = 1_001
"""The distance from the last stored seq to the snapshot of a recovered run. Watchers are sent fewer events than this
that are not stored, so the snapshot is ahead of every cursor."""
MAX_CHUNK_BYTES = 262_144
"""The most that a watcher is sent at once, so that the socket of a slow client holds only a piece of the log."""

ReadStored = Callable[[str, int], Awaitable[list[EventLines]]]
"""Reads the stored events of a run (its id) after a seq, in order; an empty list if there are none."""


class RunArchive:
    """The runs in the database that no task works on. `charge` puts the cost into a usage."""

    def __init__(self, turns: Turns, charge: Callable[[ev.Usage], None]) -> None:
        self._turns = turns
        self._charge = charge
        self._set_aside: set[str] = set()
        """Runs whose log can't be shortened."""

    async def fold(self, stored: StoredRun) -> RunFold:
        """The fold of the run's stored events."""
        state, _ = await self._fold(stored)
        state.started = state.started or _started(stored)
        state.terminal = state.terminal or stored_terminal(stored)
        return state

    async def recover(self, abandoned: Sequence[StoredRun], began_at: int) -> None:
        """End the runs that an earlier process left unfinished. This process began at `began_at` (ms)."""
        for stored in abandoned:
            try:
                await self._end(stored)
            except StreamForgeError:
                raise
            except Exception:
                await self._end_bare(stored)
        await self._turns.drop_reservations(began_at)

    async def expire(self, finished_before: int) -> None:
        """Shorten the logs of runs that finished before this time (ms since 1970) to a snapshot and the terminal
        event."""
        for stored in await self._turns.expired_logs(finished_before, self._set_aside):
            try:
                state, last = await self._fold(stored)
                terminal = state.terminal or stored_terminal(stored)
                if terminal is None:
                    raise ValueError("a run that is over without an end")
                events: list[ev.AnyEvent] = [state.snapshot(_started(stored)), terminal]
                await self._turns.replace_log(_lines(stored.id, last + 1, events))
            except StreamForgeError:
                raise
            except Exception:
                # Others would never be shortened if this one came first each time.
                self._set_aside.add(stored.id)
                log.exception("log_not_shortened", run_id=stored.id)

    async def _fold(self, stored: StoredRun) -> tuple[RunFold, int]:
        state, last = RunFold(), 0
        while rows := await self._turns.events(stored.id, last):
            for row in rows:
                last = apply_row(state, row, last, row.last_seq)
        return state, last

    async def _end(self, stored: StoredRun) -> None:
        """Store the end of a run: a snapshot that is ahead of every client's cursor, then the terminal event."""
        state, last = await self._fold(stored)
        await self._add_missing_usage(stored, state)
        snapshot = state.snapshot(_started(stored))
        terminal = _restarted()
        for part in snapshot.parts:
            part.open = False
        events = _lines(stored.id, last + RECOVERY_GAP, [snapshot, terminal])
        await self._turns.close(closed_turn(stored, state, terminal, [events]))
        log.info("run_recovered", run_id=stored.id, events=last)

    async def _end_bare(self, stored: StoredRun) -> None:
        """Store the end of a run whose events can't be used: the failure alone. If that fails, too, it is left."""
        log.exception("run_set_aside", run_id=stored.id)
        last = await self._turns.last_events(stored.id)
        terminal = _restarted()
        events = _lines(stored.id, (last.last_seq if last is not None else 0) + RECOVERY_GAP, [terminal])
        try:
            await self._turns.close(bare_end(closed_turn(stored, RunFold(), terminal, [events])))
        except StreamForgeError:
            raise
        except Exception:
            log.exception("run_not_recovered", run_id=stored.id)

    async def _add_missing_usage(self, stored: StoredRun, state: RunFold) -> None:
        """Add an estimate of the usage of the interrupted call, since the provider charges for it: at least for the
        question, the snippets of the sources, and the text."""
        if not (output_text := state.uncounted_text()):
            return
        history = await self._turns.history(stored.session_id, stored.user_message_id)
        question_parts = decode_parts(history[-1].parts) if history else []
        input_text = "".join([text_of(question_parts), *(source.snippet for source in state.sources)])
        usage = ev.Usage(
            model=state.model or stored.model,
            status="failed",
            input_tokens=estimate_tokens(input_text) + IMAGE_TOKENS * len(images_of(question_parts)),
            output_tokens=estimate_tokens(output_text),
            estimated=True,
        )
        self._charge(usage)
        state.apply(usage)


def _started(stored: StoredRun) -> ev.RunStarted:
    return ev.RunStarted(
        run_id=stored.id,
        session_id=stored.session_id,
        user_message_id=stored.user_message_id,
        message_id=stored.message_id,
        model=stored.model,
        v=ev.PROTOCOL_VERSION,
    )


def _restarted() -> ev.RunFailed:
    error = ServerRestarted("The server restarted while it answered. Ask again; what had been stored is kept.")
    return ev.RunFailed(error=ev.RunFault(code=error.code, message=error.message, retryable=error.retryable))


def stored_terminal(stored: StoredRun) -> ev.Terminal | None:
    """The terminal event that the run's row describes, for a log without one; None if the run is live."""
    try:
        usage = msgspec.json.decode(stored.usage or "{}", type=ev.TokenUsage)
        error = msgspec.json.decode(stored.error or "null", type=ev.RunFault | None)
    except ValueError:
        usage, error = ev.TokenUsage(), None
    match stored.status:
        case "completed":
            return ev.RunCompleted(finish_reason="stop", usage=usage)
        case "cancelled":
            return ev.RunCancelled(by="user", usage=usage)
        case "failed":
            lost = ev.RunFault(code="internal", message="The answer failed; its reason is lost.", retryable=False)
            return ev.RunFailed(error=error or lost)
        case _:
            return None


def apply_row(fold: RunFold, row: EventLines, after: int, upto: int) -> int:
    """Apply the row's events after `after` up to `upto`. Returns the seq that is reached."""
    for seq, line in row.numbered():
        if after < seq <= upto and not fold.apply_line(line):
            log.error("stored_event_unreadable", run_id=row.run_id, seq=seq)
    return max(after, min(row.last_seq, upto))


async def stored_pieces(
    run_id: str, cursor: int, encoder: Encoder, read_stored: ReadStored
) -> AsyncGenerator[tuple[int, bytes]]:
    """The bytes of the next few stored rows in pieces of bounded size, each with the seq of its last event."""
    chunks: list[bytes] = []
    size, begin = 0, cursor
    for row in await read_stored(run_id, cursor):
        for seq, line in row.numbered():
            if seq <= cursor:
                continue
            cursor = seq
            chunks.append(_encoded(encoder, run_id, seq, line))
            size += len(chunks[-1])
            if size > MAX_CHUNK_BYTES:
                yield cursor, b"".join(chunks)
                await asyncio.sleep(0)
                chunks, size, begin = [], 0, cursor
        cursor = max(cursor, row.last_seq)
    if cursor > begin:
        yield cursor, b"".join(chunks)


def _encoded(encoder: Encoder, run_id: str, seq: int, line: bytes) -> bytes:
    """The bytes of one stored event for a client; nothing if it is damaged."""
    try:
        ev.check(line)
        return encoder.event(seq, line)
    except ValueError:
        log.error("stored_event_unreadable", run_id=run_id, seq=seq)
        return b""


async def replay(
    run_id: str,
    cursor: int,
    dialect: Dialect,
    read_stored: ReadStored,
    lost_end: tuple[int, ev.Terminal] | None = None,
) -> AsyncGenerator[bytes]:
    """The bytes of a finished run's stored events after `cursor`. `lost_end` is the seq and the terminal event of a log
    whose own terminal event is missing or damaged."""
    encoder = dialect.encoder(run_id, await _stored_fold(run_id, 0 if dialect.is_stateless else cursor, read_stored))
    is_moving = True
    while is_moving:
        is_moving = False
        async with aclosing(stored_pieces(run_id, cursor, encoder, read_stored)) as pieces:
            async for upto, chunk in pieces:
                cursor, is_moving = upto, True
                if chunk:
                    yield chunk
    if lost_end is not None:
        seq, terminal = lost_end
        terminal.seq = seq
        yield encoder.event(seq, ev.encode(terminal))


async def _stored_fold(run_id: str, upto: int, read_stored: ReadStored) -> RunFold:
    """The fold of the run's stored events up to `upto`."""
    fold, at, before = RunFold(), 0, -1
    while at != before and at < upto:
        before = at
        for row in await read_stored(run_id, at):
            at = apply_row(fold, row, at, upto)
    return fold


def _lines(run_id: str, first_seq: int, events: list[ev.AnyEvent]) -> EventLines:
    for seq, event in enumerate(events, first_seq):
        event.seq = seq
    return EventLines(run_id, first_seq, first_seq + len(events) - 1, b"\n".join(map(ev.encode, events)))


class EndingRun(Protocol):
    """A run that ends: a live `Run` or a `StoredRun`."""

    @property
    def id(self) -> str:
        """The run's id."""
        ...

    @property
    def owner(self) -> str:
        """The owner of the session."""
        ...

    @property
    def session_id(self) -> str:
        """The session that the answer belongs to."""
        ...


def closed_turn(run: EndingRun, state: RunFold, terminal: ev.Terminal, events: list[EventLines]) -> ClosedTurn:
    """The end of a run, for `Turns.close`."""
    error = msgspec.json.encode(terminal.error).decode() if isinstance(terminal, ev.RunFailed) else None
    return ClosedTurn(
        run_id=run.id,
        owner=run.owner,
        session_id=run.session_id,
        model=state.model,
        status=status_of(terminal),
        error=error,
        usage=msgspec.json.encode(state.total()).decode(),
        message_status=state.message_status(terminal),
        parts=encode_parts(state.message_parts()),
        retrieval=state.retrieval,
        events=events,
        calls=calls_of(state.usage),
    )


def bare_end(turn: ClosedTurn) -> ClosedTurn:
    """The end without the answer and its cost, for a run with something in it that can't be stored."""
    return replace(turn, model=None, usage="{}", parts="[]", retrieval=None, calls=[])
