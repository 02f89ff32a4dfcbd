"""Stored runs: folds them, ends those that a crash interrupted, and shortens old logs to a snapshot."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from backend import events as ev
from backend.chains.history.images import IMAGE_TOKENS
from backend.chains.text.tokens import estimate_tokens
from backend.errors import ServerRestarted
from backend.events import status_of
from backend.messages import decode_parts, encode_parts, images_of, text_of
from backend.services.runs.fold import RunFold
from backend.services.usage.metering import calls_of
from backend.storage.runs.events import EventLines
from backend.storage.runs.turns import ClosedTurn, StoredRun, Turns

log = structlog.get_logger(__name__)

RECOVERY_GAP = 1_001
"""The distance from the last stored seq to the snapshot of a recovered run. Watchers are sent fewer events than this
that are not stored, so the snapshot is ahead of every cursor."""


class RunArchive:
    """The runs in the database that no task works on. `charge` puts the cost into a usage."""

    def __init__(self, turns: Turns, charge: Callable[[ev.Usage], None]) -> None:
        self._turns = turns
        self._charge = charge

    async def fold(self, stored: StoredRun) -> RunFold:
        """The fold of the run's stored events."""
        state, _ = await self._fold(stored)
        return state

    async def recover(self, abandoned: Sequence[StoredRun]) -> None:
        """End the runs that an earlier process left unfinished. Only called at the start, with the lock on DATA_DIR."""
        for stored in abandoned:
            await self._end(stored)
        await self._turns.drop_reservations()

    async def expire(self, finished_before: int) -> None:
        """Shorten the logs of runs that finished before this time (ms since 1970) to a snapshot and the terminal
        event."""
        for stored in await self._turns.expired_logs(finished_before):
            state, last = await self._fold(stored)
            if state.terminal is None:
                continue
            events: list[ev.AnyEvent] = [state.snapshot(_started(stored)), state.terminal]
            await self._turns.replace_log(_lines(stored.id, last + 1, events))

    async def _fold(self, stored: StoredRun) -> tuple[RunFold, int]:
        state, last = RunFold(), 0
        while rows := await self._turns.events(stored.id, last):
            for row in rows:
                for line in row.lines.split(b"\n"):
                    try:
                        state.apply(ev.decode(line))
                    except (msgspec.MsgspecError, IndexError):
                        # One damaged event must not keep the server from starting.
                        log.error("stored_event_unreadable", run_id=stored.id, row=row.first_seq)
                last = row.last_seq
        return state, last

    async def _end(self, stored: StoredRun) -> None:
        """Store the end of a run: a snapshot that is ahead of every client's cursor, then the terminal event."""
        state, last = await self._fold(stored)
        await self._add_missing_usage(stored, state)
        snapshot = state.snapshot(_started(stored))
        error = ServerRestarted("The server restarted while it answered. Ask again; what had been stored is kept.")
        terminal = ev.RunFailed(error=ev.RunFault(code=error.code, message=error.message, retryable=error.retryable))
        for part in snapshot.parts:
            part.open = False
        events = _lines(stored.id, last + RECOVERY_GAP, [snapshot, terminal])
        await self._turns.close(closed_turn(stored, state, terminal, [events]))
        log.info("run_recovered", run_id=stored.id, events=last)

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
