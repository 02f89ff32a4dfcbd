"""A chat turn: the user's message becomes a run that answers it."""

import asyncio
from contextlib import aclosing, nullcontext
from dataclasses import replace
from weakref import WeakValueDictionary

import msgspec

from backend import events as ev
from backend.chains.answer.answer import AnswerInput, Finished, answer
from backend.chains.calling.call import CallLimits
from backend.chains.calling.fallback import Attempts
from backend.chains.history.images import images_that_fit
from backend.chains.models.prompt import Image, Message
from backend.config.fields import parse_hosts
from backend.config.groups.library import LibrarySettings
from backend.config.groups.models import ModelSettings
from backend.errors import Conflict, Invalid, NotFound
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.messages import TextPart, decode_parts, encode_parts, images_of, text_of
from backend.services.answers.plan import AnswerPlan, Planner
from backend.services.answers.request import AnswerRequest
from backend.services.conversations.history import History, Summarizer
from backend.services.conversations.images import Pictures, new_images, part_of
from backend.services.conversations.titles import Titles, first_title
from backend.services.models.open import Models
from backend.services.runs.hub import LEASE_MS, Run, RunHub
from backend.storage.conversations.messages import StoredMessage
from backend.storage.conversations.sessions import Sessions
from backend.storage.runs.turns import NewTurn, Turns


class ChatService:
    """Starts runs. The run itself is the hub's."""

    def __init__(
        self,
        turns: Turns,
        hub: RunHub,
        models: Models,
        planner: Planner,
        memory: Summarizer,
        titles: Titles,
        sessions: Sessions,
        pictures: Pictures,
        model_settings: ModelSettings,
        knowledge_settings: LibrarySettings,
        max_message_chars: int,
    ) -> None:
        self._turns = turns
        self._hub = hub
        self._models = models
        self._planner = planner
        self._memory = memory
        self._titles = titles
        self._sessions = sessions
        self._pictures = pictures
        self._model_settings = model_settings
        self._link_hosts = parse_hosts(knowledge_settings.allowed_link_hosts)
        self._max_message_chars = max_message_chars
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        self._opening: set[asyncio.Task[str]] = set()

    async def start(self, owner: str, turn: AnswerRequest, request_id: str | None) -> str:
        """The id of the run that answers: a new one, or the one that a repeated Idempotency-Key has already.

        The user's message is stored when this returns. Raises RequestError, EmbeddingMismatch.
        """
        limit = self._max_message_chars
        if len(turn.message) > limit:
            raise Invalid(
                f"message: has {len(turn.message)} characters, the limit is {limit} (MAX_MESSAGE_CHARS). Shorten it, "
                "or upload the text as a document.",
                code="message_too_long",
            )
        # A turn is written although its caller is cancelled: it must not stay without its run.
        opening = asyncio.create_task(self._once(owner, turn, request_id))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        return await asyncio.shield(opening)

    def _opened(self, opening: asyncio.Task[str]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            # Its caller may be gone: then nobody asks what went wrong.
            opening.exception()

    async def _once(self, owner: str, turn: AnswerRequest, request_id: str | None) -> str:
        if turn.idempotency_key is None:
            return await self._start(owner, turn, request_id)
        # A repetition that comes while the first is being stored waits here, and finds it.
        async with self._lock("key", owner, turn.idempotency_key):
            repeated = await self._repeated(owner, turn, turn.idempotency_key)
            return repeated or await self._start(owner, turn, request_id)

    async def regenerate(self, owner: str, message_id: str, options: AnswerRequest, request_id: str | None) -> str:
        """The id of the run that answers once more: the user's message of this id, or the one that it answers.

        `options` says how; its message is left out of account. Raises as `start` does.
        """
        message = await self._sessions.message(owner, message_id)
        if message.role != "user":
            if message.parent_id is None:
                raise NotFound("This answer follows no message of the user's: there is nothing to answer once more.")
            message = await self._sessions.message(owner, message.parent_id)
        parts = decode_parts(message.parts)
        said, kept = text_of(parts), images_of(parts)
        if not said.strip() and not kept:
            raise Invalid("The message has no text to answer. POST /messages/{id}/edit puts another beside it.")
        turn = replace(options, message=said, kept=kept, session_id=message.session_id, beside=message.id, again=True)
        return await self.start(owner, turn, request_id)

    async def edit(self, owner: str, message_id: str, turn: AnswerRequest, request_id: str | None) -> str:
        """The id of the run that answers `turn`, whose message stands beside the user's message of this id, with its
        pictures where `turn` doesn't say which.

        Raises as `start` does; Invalid when the message isn't the user's.
        """
        message = await self._sessions.message(owner, message_id)
        if message.role != "user":
            raise Invalid("Only messages of the user can be edited. POST /messages/{id}/regenerate answers once more.")
        kept = images_of(decode_parts(message.parts)) if turn.images is None else ()
        turn = replace(turn, kept=kept, session_id=message.session_id, beside=message.id)
        return await self.start(owner, turn, request_id)

    async def _start(self, owner: str, turn: AnswerRequest, request_id: str | None) -> str:
        answering = await self._planner.plan(owner, turn)
        session_id = turn.session_id or new_id("ses")
        # Nobody else knows the id of a new one.
        async with self._lock("session", session_id) if turn.session_id else nullcontext():
            new = self._new_turn(owner, session_id, answering)
            before, new = await self._free(new, turn)
            self._hub.reserve()
            try:
                return await self._open(new, answering, before, request_id)
            except BaseException:
                self._hub.release()
                raise

    def _lock(self, *name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def _repeated(self, owner: str, turn: AnswerRequest, key: str) -> str | None:
        found = await self._turns.by_key(owner, key)
        return _same(found[0], found[1], turn) if found is not None else None

    async def _free(self, new: NewTurn, turn: AnswerRequest) -> tuple[Run | None, NewTurn]:
        """The live run to wait for, if the session is busy and the caller says so; the turn as it can be opened then.

        Raises Conflict, NotFound, BudgetExceeded.
        """
        live = self._hub.live_in_session(new.session_id)
        if live is None or live.owner != new.owner:
            return None, new
        match turn.if_busy:
            case "queue":
                return live, replace(new, after_live=live.started.message_id)
            case "replace":
                # Checked before anything is cancelled, what is held for the live run being spent; the head not again:
                # ending that run moves it.
                await self._turns.check(new)
                for run in self._hub.all_in_session(new.session_id):
                    self._hub.cancel(run, "replaced")
                    await run.log.finished()
                return None, replace(new, expect_head=None)
            case "reject":
                raise Conflict(
                    "The session is still answering. Wait for that run, cancel it (POST /runs/{id}/cancel), or send "
                    'if_busy "queue" or "replace".',
                    code="session_busy",
                    run_id=live.id,
                )

    def _new_turn(self, owner: str, session_id: str, answering: AnswerPlan) -> NewTurn:
        turn, allowance = answering.turn, answering.allowance
        images = new_images(turn.images or ())
        return NewTurn(
            owner=owner,
            session_id=session_id,
            title=first_title(turn.message) if turn.session_id is None else None,
            user_message_id=turn.beside if turn.again and turn.beside is not None else new_id("msg"),
            message_id=new_id("msg"),
            run_id=new_id("run"),
            parts=encode_parts([TextPart(text=turn.message), *turn.kept, *map(part_of, images)]),
            model=answering.candidates[0].name,
            instance_id=self._hub.instance_id,
            lease_until=now_ms() + LEASE_MS,
            images=images,
            prompt=answering.prompt,
            parent_id=turn.parent_id,
            beside=turn.beside,
            expect_head=turn.expect_head,
            idempotency_key=turn.idempotency_key,
            request_hash=turn.fingerprint() if turn.idempotency_key is not None else None,
            reservation=allowance.reservation if allowance is not None else None,
        )

    async def _open(self, new: NewTurn, answering: AnswerPlan, before: Run | None, request_id: str | None) -> str:
        turn = answering.turn
        opened = await self._turns.open(new)
        if opened.repeats is not None:
            repeated = _same(opened.repeats, opened.repeats_hash, turn)
            self._hub.release()
            return repeated
        started = ev.RunStarted(
            run_id=new.run_id,
            session_id=new.session_id,
            user_message_id=new.user_message_id,
            message_id=new.message_id,
            model=new.model,
            v=ev.PROTOCOL_VERSION,
        )

        async def body(run: Run) -> str:
            history = opened.history if before is None else await self._queued(run, before, opened.parent_id)
            told = await self._memory.recall(run, history, answering.candidates[0])
            reason = await self._answer(run, answering, told)
            self._follow(run, answering, told, first=new.title is not None)
            return reason

        self._hub.start(new.owner, started, body, request_id, turn.on_disconnect)
        return new.run_id

    async def _queued(self, run: Run, before: Run, parent_id: str | None) -> list[StoredMessage]:
        run.emit(ev.Status(phase="queued"))
        await before.log.finished()
        return await self._turns.history(run.started.session_id, parent_id)

    def _follow(self, run: Run, answering: AnswerPlan, told: History, *, first: bool) -> None:
        """What an answer leaves to be done: nothing of it holds up its end."""
        answered = run.state.model or run.started.model
        by = next((c for c in answering.candidates if c.name == answered), answering.candidates[0])
        if first:
            self._titles.follow(run, answering.turn.message, by)
        question = Message("user", answering.turn.message, hidden_images=answering.turn.shows)
        self._memory.follow(run, told, question, by)

    async def _seen(self, run: Run, answering: AnswerPlan, told: History) -> tuple[tuple[Image, ...], History]:
        """The message's pictures, and the conversation with those before."""
        turn, session_id = answering.turn, run.started.session_id
        most = images_that_fit(self._model_settings.llm_history_tokens, turn.shows)
        if answering.allowance is not None:
            most = answering.allowance.pictures
        images = turn.images or await self._pictures.load(session_id, turn.kept)
        return images, await self._pictures.shown(session_id, told, most, images)

    async def _answer(self, run: Run, answering: AnswerPlan, told: History) -> str:
        settings, turn, retriever = self._model_settings, answering.turn, answering.retriever
        images, told = await self._seen(run, answering, told)
        ask = AnswerInput(
            candidates=answering.candidates,
            attempts=Attempts(
                limits=call_limits(settings),
                health=self._models.health,
                patience=settings.attempt_timeout,
                after_output=turn.fallback_after_output,
                observer=run.watch,
            ),
            question=turn.message,
            history=told.messages,
            summary=told.summary,
            covered=told.covered,
            retriever=retriever,
            system=answering.system,
            examples=answering.examples,
            wrapped=answering.wrapped,
            history_tokens=settings.llm_history_tokens,
            images=images,
            quoted_before=told.quotes,
            link_hosts=self._link_hosts,
            input_limit=answering.allowance.input_limit if answering.allowance is not None else None,
        )
        reason = "stop"
        async with aclosing(answer(ask)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    reason = event.reason
                else:
                    if isinstance(event, ev.Status) and retriever is not None and retriever.trace is not None:
                        run.state.retrieval = msgspec.json.encode(retriever.trace).decode()
                    run.emit(event)
        return reason


def call_limits(settings: ModelSettings) -> CallLimits:
    """How long a call of a model may take."""
    return CallLimits(
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
        total=settings.total_timeout,
        retry=settings.retry_seconds,
    )


def _same(run_id: str, request_hash: str | None, turn: AnswerRequest) -> str:
    if request_hash != turn.fingerprint():
        raise Invalid(
            "This Idempotency-Key was used for another request. Use a new key for each message.",
            code="idempotency_key_reused",
        )
    return run_id
