"""Starts answers: a message is stored, and a run begins to answer it."""

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from backend import events as ev
from backend.errors import Conflict, Invalid, NotFound
from backend.kit.ids import new_ids
from backend.kit.locks import Locks
from backend.messages import TextPart, decode_parts, encode_parts, first_title, images_of, text_of
from backend.services.answers.perform import AnswerWriter, OpenTurn
from backend.services.answers.plan import AnswerPlan, Planner
from backend.services.answers.request import AnswerRequest
from backend.services.conversations.images import new_images, part_of
from backend.services.runs.hub import RunHub
from backend.services.runs.keep import LEASE_MS
from backend.services.runs.run import Run
from backend.storage.conversations.sessions import Sessions
from backend.storage.runs.turns import NewTurn, Turns


class Answers:
    """Starts runs that answer messages. The hub owns a run once it is started."""

    def __init__(
        self,
        hub: RunHub,
        turns: Turns,
        sessions: Sessions,
        planner: Planner,
        writer: AnswerWriter,
        locks: Locks,
        max_message_chars: int,
    ) -> None:
        self._hub = hub
        self._turns = turns
        self._sessions = sessions
        self._planner = planner
        self._writer = writer
        self._locks = locks
        self._max_message_chars = max_message_chars
        self._starting: set[asyncio.Task[str]] = set()

    async def start(self, owner: str, request: AnswerRequest, request_id: str | None) -> str:
        """The id of the run that answers: a new run, or the earlier run with the same Idempotency-Key.

        Before this returns, the user's message is stored. Raises RequestError, EmbeddingMismatch.
        """
        if request.sibling_of is not None:
            request = await self._resolve_sibling(owner, request, request.sibling_of)
        limit = self._max_message_chars
        if len(request.message) > limit:
            raise Invalid(
                f"message: has {len(request.message)} characters, the limit is {limit}. Shorten it, "
                "or upload the text as a document.",
                code="message_too_long",
                advice="MAX_MESSAGE_CHARS sets the limit.",
            )
        # The task goes on if the caller is cancelled: otherwise a stored message could have no run.
        task = asyncio.create_task(self._start_once(owner, request, request_id))
        self._starting.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[str]) -> None:
        self._starting.discard(task)
        if not task.cancelled():
            # If the caller was cancelled, asyncio would log that the exception was never retrieved.
            task.exception()

    async def _resolve_sibling(self, owner: str, request: AnswerRequest, message_id: str) -> AnswerRequest:
        """The request with the session and the images of the message that it edits or regenerates.

        To regenerate, `message_id` is the id of a user's message or of its answer. Raises NotFound, Invalid.
        """
        message = await self._sessions.message(owner, message_id)
        if not request.regenerate:
            if message.role != "user":
                raise Invalid(
                    "Only messages of the user can be edited. POST /messages/{id}/regenerate answers once more."
                )
            images = images_of(decode_parts(message.parts)) if request.images is None else ()
            return replace(request, kept_images=images, session_id=message.session_id)
        if message.role != "user":
            if message.parent_id is None:
                raise NotFound("This answer follows no message of the user's: there is nothing to answer once more.")
            message = await self._sessions.message(owner, message.parent_id)
        parts = decode_parts(message.parts)
        text, images = text_of(parts), images_of(parts)
        if not text.strip() and not images:
            raise Invalid("The message has no text to answer. POST /messages/{id}/edit puts another beside it.")
        return replace(request, message=text, kept_images=images, session_id=message.session_id, sibling_of=message.id)

    async def _start_once(self, owner: str, request: AnswerRequest, request_id: str | None) -> str:
        """The id of the run; a repeated Idempotency-Key starts no second run."""
        key = request.idempotency_key
        if key is None:
            return await self._start(owner, request, request_id)
        # If the first request with this key is still being stored, a repeated request waits here for its run.
        async with self._locks.get(("key", owner, key)):
            earlier = await self._turns.by_key(owner, key)
            if earlier is not None:
                return _run_of_key(*earlier, request)
            return await self._start(owner, request, request_id)

    async def _start(self, owner: str, request: AnswerRequest, request_id: str | None) -> str:
        plan = await self._planner.plan(owner, request)
        # No other request knows the id of a new session.
        async with self._locks.get(("session", request.session_id)) if request.session_id else nullcontext():
            turn = self._new_turn(owner, plan)
            blocking_run = self._hub.live_in_session(turn.session_id)
            if blocking_run is not None:
                blocking_run, turn = await self._when_busy(blocking_run, turn, request)
            self._hub.reserve()
            try:
                opened = await self._turns.open(turn)
                if opened.repeated_run is not None:
                    run_id = _run_of_key(opened.repeated_run, opened.repeated_hash, request)
                    self._hub.release()
                    return run_id
                started = ev.RunStarted(
                    run_id=turn.run_id,
                    session_id=turn.session_id,
                    user_message_id=turn.user_message_id,
                    message_id=turn.message_id,
                    model=turn.model,
                    v=ev.PROTOCOL_VERSION,
                )
                write = partial(self._writer.write, OpenTurn(plan, opened.history, opened.parent_id, blocking_run))
                self._hub.start(owner, started, write, request_id, request.on_disconnect)
            except BaseException:
                self._hub.release()
                raise
        return turn.run_id

    async def _when_busy(self, live: Run, turn: NewTurn, request: AnswerRequest) -> tuple[Run | None, NewTurn]:
        """Do what `if_busy` says for a session with a live run. Returns the run to wait for, and the turn to open.

        Raises Conflict, NotFound, BudgetExceeded.
        """
        if live.owner != turn.owner:
            return None, turn
        match request.if_busy:
            case "queue":
                return live, replace(turn, after_live=live.started.message_id)
            case "replace":
                # Checked before anything is cancelled; the reservation of the live run counts as spent. The head is not
                # checked again: ending that run moves it.
                await self._turns.check(turn)
                for run in self._hub.all_in_session(turn.session_id):
                    run.cancel("replaced")
                    await run.log.wait_for_end()
                return None, replace(turn, expect_head=None)
            case "reject":
                raise Conflict(
                    "The session is still answering. Wait for that run, cancel it (POST /runs/{id}/cancel), or send "
                    'if_busy "queue" or "replace".',
                    code="session_busy",
                    run_id=live.id,
                )

    def _new_turn(self, owner: str, plan: AnswerPlan) -> NewTurn:
        """The rows of the message and of the run."""
        request, spending = plan.request, plan.spending
        session_id, user_message_id, message_id, run_id = new_ids("ses", "msg", "msg", "run")
        images = new_images(request.images) if request.images else ()
        title = first_title(request.message)
        return NewTurn(
            owner=owner,
            session_id=request.session_id or session_id,
            title=title if request.session_id is None else None,
            first_title=title,
            user_message_id=request.sibling_of if request.regenerate and request.sibling_of else user_message_id,
            message_id=message_id,
            run_id=run_id,
            parts=encode_parts([TextPart(text=request.message), *request.kept_images, *map(part_of, images)]),
            model=plan.candidates[0].name,
            instance_id=self._hub.instance_id,
            lease_ms=LEASE_MS,
            images=images,
            prompt=plan.prompt,
            parent_id=request.parent_id,
            sibling_of=request.sibling_of,
            expect_head=request.expect_head,
            idempotency_key=request.idempotency_key,
            request_hash=request.fingerprint() if request.idempotency_key is not None else None,
            reservation=spending.reservation if spending is not None else None,
        )


def _run_of_key(run_id: str, request_hash: str | None, request: AnswerRequest) -> str:
    """The id of the run that already has the request's key. Raises Invalid if the key was for another request."""
    if request_hash != request.fingerprint():
        raise Invalid(
            "This Idempotency-Key was used for another request. Use a new key for each message.",
            code="idempotency_key_reused",
        )
    return run_id
