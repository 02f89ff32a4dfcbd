"""One run from its first step to its stored end."""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from math import ceil
from typing import Any

import structlog

from backend import events as ev
from backend.errors import InternalError, NotSaved, RunError, ShuttingDown, StreamForgeError
from backend.events import status_of
from backend.services.runs.archive import closed_turn
from backend.services.runs.fold import RunFold
from backend.services.runs.log import LogFull
from backend.services.runs.run import Body, Run, now
from backend.services.runs.watch import ARRIVAL_SECONDS, schedule_leave
from backend.storage.runs.turns import ClosedTurn, Turns

log = structlog.get_logger(__name__)

_OWN_FAULTS = frozenset({InternalError.code, NotSaved.code})
"""Codes of failures that are neither the provider's nor the caller's."""
_MAX_RETRY_AFTER = 86_400
"""The longest `retry_after` for clients, in seconds. A provider may ask for more."""


class RunDriver:
    """Runs the bodies of runs and stores their ends. An end that can't be stored is put into `unsaved`; `forget` is
    called when a run has ended. `shows_provider_errors`: callers are told what a provider said."""

    def __init__(
        self,
        turns: Turns,
        unsaved: MutableMapping[Run, ClosedTurn],
        forget: Callable[[Run], None],
        *,
        shows_advice: bool,
        shows_provider_errors: bool,
    ) -> None:
        self._turns = turns
        self._unsaved = unsaved
        self._forget = forget
        self._shows_advice = shows_advice
        self._shows_provider_errors = shows_provider_errors

    async def drive(self, run: Run, body: Body) -> None:
        """Run the body, then end the run with exactly one terminal event. This is the run's task."""
        structlog.contextvars.bind_contextvars(run_id=run.id)
        terminal: ev.Terminal
        run.has_begun = True
        run.observer.began()
        schedule_leave(run, ARRIVAL_SECONDS)
        try:
            if run.cancelled_by is not None:
                raise asyncio.CancelledError
            finish_reason = await body(run)
            terminal = ev.RunCompleted(finish_reason=finish_reason, **_totals(run))
        except asyncio.CancelledError:
            # Only `Run.cancel` cancels this task, and the task must live on to store the partial answer.
            if run.task is not None:
                run.task.uncancel()
            terminal = self._cancelled(run)
        except LogFull:
            log.warning("log_full")
            terminal = self._failed(run, _not_saved())
        except StreamForgeError as error:
            # Models, storage or embeddings. The code is the same as in a response before a stream begins.
            terminal = self._failed(run, error)
        except Exception:
            log.exception("run_crashed")
            terminal = self._failed(run, InternalError("Something went wrong here. The server's log has the details."))
        run.is_ending = True
        schedule_leave(run)
        try:
            await self._end(run, terminal)
        finally:
            self._forget(run)

    async def _end(self, run: Run, terminal: ev.Terminal) -> None:
        """Store the end, then show it to the watchers."""
        last: list[ev.AnyEvent] = [*run.state.closing_events(), terminal]
        for event in last:
            run.state.apply(event)
        try:
            if not await self._turns.close(closed_turn(run, run.state, terminal, run.log.encode_next(last))):
                # The session was deleted during the run, so the answer doesn't exist.
                last[-1] = terminal = ev.RunCancelled(by="session_deleted", usage=run.state.total())
            run.log.finish(last, stored=True)
        except Exception as error:
            log.error("run_not_saved", exc_info=not isinstance(error, StreamForgeError))
            terminal = self._failed(run, _not_saved())
            ends = run.log.drop_hidden()
            last = [*(last[:-1] if ends is None else ends), terminal]
            self._unsaved[run] = _late_end(run, terminal, last)
            run.log.finish(last, stored=False)
        run.observer.ended(terminal)
        _log_end(run, terminal)

    def _cancelled(self, run: Run) -> ev.Terminal:
        match run.cancelled_by:
            case "shutdown":
                message = "The server was stopped while it answered. Ask again, or continue from the partial answer."
                return self._failed(run, ShuttingDown(message))
            case None:
                return self._failed(run, InternalError("The answer was broken off by the server."))
            case reason:
                return ev.RunCancelled(by=reason, **_totals(run))

    def _failed(self, run: Run, error: StreamForgeError) -> ev.RunFailed:
        run.advice = error.advice
        wait = error.retry_after if isinstance(error, RunError) else None
        fault = ev.RunFault(
            code=error.code,
            message=error.text(with_advice=self._shows_advice),
            retryable=error.retryable,
            request_id=run.request_id,
            retry_after=ceil(min(wait, _MAX_RETRY_AFTER)) if wait else None,
            detail=error.detail if isinstance(error, RunError) and self._shows_provider_errors else None,
        )
        return ev.RunFailed(error=fault)


def _late_end(run: Run, terminal: ev.Terminal, last: list[ev.AnyEvent]) -> ClosedTurn:
    """The end of a run for later. An answer that can't be encoded is left out: watchers must be sent the end."""
    lines = run.log.encode_next(last)
    try:
        return closed_turn(run, run.state, terminal, lines)
    except Exception:
        log.exception("answer_set_aside")
        return closed_turn(run, RunFold(), terminal, lines)


def _totals(run: Run) -> dict[str, Any]:
    """The fields of a terminal event that count the whole answer."""
    fold = run.state
    return {"usage": fold.total(), "citation_counts": fold.citation_counts(), "unlinked": fold.unlinked()}


def _log_end(run: Run, terminal: ev.Terminal) -> None:
    """Log the end of a run: failures as warnings, our own faults as errors."""
    error = terminal.error if isinstance(terminal, ev.RunFailed) else None
    total = run.state.total()
    level = logging.INFO if error is None else logging.ERROR if error.code in _OWN_FAULTS else logging.WARNING
    first = run.first_output_at
    log.log(
        level,
        "run_ended",
        status=status_of(terminal),
        **({} if error is None else {"code": error.code}),
        **({"advice": run.advice} if error is not None and run.advice else {}),
        model=run.state.model or run.started.model,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cost=total.cost,
        ms=round((now() - run.began_at) * 1000),
        first_token_ms=None if first is None else round((first - run.began_at) * 1000),
        owner=run.owner,
        session_id=run.session_id,
        events=run.log.head,
    )


def _not_saved() -> NotSaved:
    return NotSaved(
        "The answer could not be stored: the database is gone, or the disk is full or too slow. It may be missing from "
        "the history."
    )
