"""A chat turn: the user's message becomes a run that answers it."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakValueDictionary

import msgspec

from backend import events as ev
from backend.chains.calls import CallLimits
from backend.chains.fallback import Attempts, Candidate
from backend.chains.models.base import Effort, Image, Message
from backend.chains.prompts import base_system
from backend.chains.rag import Ask, Finished, answer
from backend.config.settings import KnowledgeSettings, ModelSettings, OnDisconnect, parse_hosts
from backend.errors import Conflict, Invalid
from backend.services.budgets import Allowance, Budgets, Planned
from backend.services.collections import CollectionService
from backend.services.documents import DocumentService
from backend.services.knowledge import Knowledge, OwnedKnowledge, Scope
from backend.services.models import Models, Wanted
from backend.services.run_state import TextPart, decode_parts, encode_parts, text_of
from backend.services.runs import LEASE_MS, Run, RunHub
from backend.storage.ids import new_id, now_ms
from backend.storage.sessions import Sessions
from backend.storage.turns import NewTurn, StoredMessage, Turns

IfBusy = Literal["reject", "queue", "replace"]
_TITLE = 80
_PARAMETERS = (
    "temperature",
    "max_tokens",
    "top_p",
    "seed",
    "stop",
    "reasoning_effort",
    "response_schema",
    "images",
)


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """What a caller asks. `documents`: True all, False none, or the ids of some. `collections`: None is as the session
    says, or else all."""

    message: str
    session_id: str | None = None
    parent_id: str | None = None
    expect_head: str | None = None
    model: str | None = None
    documents: bool | tuple[str, ...] = True
    collections: tuple[str, ...] | None = None
    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: Effort | None = None
    response_schema: str | None = None
    images: tuple[Image, ...] = ()
    fallbacks: tuple[str, ...] | None = None
    fallback_after_output: bool = False
    if_busy: IfBusy = "reject"
    on_disconnect: OnDisconnect | None = None
    idempotency_key: str | None = None

    def wanted(self) -> Wanted:
        """What is asked of the model."""
        asked = {name: getattr(self, name) for name in _PARAMETERS}
        named = {name: said for name, said in asked.items() if said not in (None, ())}
        return Wanted(self.model, self.fallbacks, named)

    def fingerprint(self) -> str:
        """Tells whether two requests ask the same (SHA-256, hex)."""
        return hashlib.sha256(repr(self).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Answering:
    """What answers a turn: the models, the first one first, and what they may look things up in."""

    turn: ChatTurn
    candidates: tuple[Candidate, ...]
    retriever: OwnedKnowledge | None
    allowance: Allowance | None


class ChatService:
    """Starts runs. The run itself is the hub's."""

    def __init__(
        self,
        turns: Turns,
        hub: RunHub,
        models: Models,
        budgets: Budgets,
        documents: DocumentService,
        collections: CollectionService,
        sessions: Sessions,
        knowledge: Knowledge,
        model_settings: ModelSettings,
        knowledge_settings: KnowledgeSettings,
        max_message_chars: int,
    ) -> None:
        self._turns = turns
        self._hub = hub
        self._models = models
        self._budgets = budgets
        self._documents = documents
        self._collections = collections
        self._sessions = sessions
        self._knowledge = knowledge
        self._model_settings = model_settings
        self._knowledge_settings = knowledge_settings
        self._link_hosts = parse_hosts(knowledge_settings.allowed_link_hosts)
        self._max_message_chars = max_message_chars
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    async def start(self, owner: str, turn: ChatTurn, request_id: str | None) -> str:
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
        if turn.idempotency_key is None:
            return await self._start(owner, turn, request_id)
        # A repetition that comes while the first is being stored waits here, and finds it.
        async with self._lock("key", owner, turn.idempotency_key):
            repeated = await self._repeated(owner, turn, turn.idempotency_key)
            return repeated or await self._start(owner, turn, request_id)

    async def _start(self, owner: str, turn: ChatTurn, request_id: str | None) -> str:
        candidates = tuple(self._models.choose(turn.wanted()))
        retriever = await self._retriever(owner, turn)
        allowance = self._allowance(owner, turn, candidates, retriever is not None)
        answering = _Answering(turn, candidates, retriever, allowance)
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

    async def _repeated(self, owner: str, turn: ChatTurn, key: str) -> str | None:
        found = await self._turns.by_key(owner, key)
        return _same(found[0], found[1], turn) if found is not None else None

    async def _retriever(self, owner: str, turn: ChatTurn) -> OwnedKnowledge | None:
        if turn.documents is False or not self._knowledge_settings.enable_rag:
            return None
        only: Sequence[str] | None = None
        if turn.documents is not True:
            await self._documents.check_exist(owner, turn.documents)
            only = turn.documents
        collections = await self._searched(owner, turn)
        await self._knowledge.check(owner, collections)
        scope = Scope(collections, tuple(only) if only is not None else None)
        return OwnedKnowledge(self._knowledge, owner, self._knowledge_settings.top_k, scope)

    async def _searched(self, owner: str, turn: ChatTurn) -> tuple[str, ...] | None:
        """The collections that are searched: those of the request, else of the session, else all (None)."""
        if turn.collections is not None:
            await self._collections.check_exist(owner, turn.collections)
            return tuple(turn.collections)
        if turn.session_id is None:
            return None
        # Some may have been deleted since they were set: the others are meant all the same.
        chosen = (await self._sessions.settings(owner, turn.session_id)).get("collections")
        return tuple(chosen) if chosen is not None else None

    async def _free(self, new: NewTurn, turn: ChatTurn) -> tuple[Run | None, NewTurn]:
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

    def _allowance(
        self, owner: str, turn: ChatTurn, candidates: tuple[Candidate, ...], looks_up: bool
    ) -> Allowance | None:
        planned = Planned(
            candidates=candidates,
            question=turn.message,
            texts=(base_system(turn.system_prompt), turn.message),
            images=turn.images,
            looks_up=looks_up,
            follows=turn.session_id is not None,
            after_output=turn.fallback_after_output,
        )
        return self._budgets.allowance(owner, planned)

    def _new_turn(self, owner: str, session_id: str, answering: _Answering) -> NewTurn:
        turn, allowance = answering.turn, answering.allowance
        return NewTurn(
            owner=owner,
            session_id=session_id,
            title=title_of(turn.message) if turn.session_id is None else None,
            user_message_id=new_id("msg"),
            message_id=new_id("msg"),
            run_id=new_id("run"),
            parts=encode_parts([TextPart(text=turn.message)]),
            model=answering.candidates[0].name,
            instance_id=self._hub.instance_id,
            lease_until=now_ms() + LEASE_MS,
            parent_id=turn.parent_id,
            expect_head=turn.expect_head,
            idempotency_key=turn.idempotency_key,
            request_hash=turn.fingerprint() if turn.idempotency_key is not None else None,
            reservation=allowance.reservation if allowance is not None else None,
        )

    async def _open(self, new: NewTurn, answering: _Answering, before: Run | None, request_id: str | None) -> str:
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
            history = opened.history if before is None else await self._queued(run, before, turn.parent_id)
            return await self._answer(run, answering, history)

        self._hub.start(new.owner, started, body, request_id, turn.on_disconnect)
        return new.run_id

    async def _queued(self, run: Run, before: Run, parent_id: str | None) -> list[StoredMessage]:
        run.emit(ev.Status(phase="queued"))
        await before.log.finished()
        return await self._turns.history(run.started.session_id, parent_id or before.started.message_id)

    async def _answer(self, run: Run, answering: _Answering, history: list[StoredMessage]) -> str:
        settings, turn, retriever = self._model_settings, answering.turn, answering.retriever
        ask = Ask(
            candidates=answering.candidates,
            attempts=Attempts(
                limits=CallLimits(
                    first_token=settings.first_token_timeout,
                    idle=settings.idle_timeout,
                    total=settings.total_timeout,
                    retry=settings.retry_seconds,
                ),
                health=self._models.health,
                patience=settings.attempt_timeout,
                after_output=turn.fallback_after_output,
                observer=run.watch,
            ),
            question=turn.message,
            history=tuple(_history(history)),
            retriever=retriever,
            system=turn.system_prompt,
            history_tokens=settings.llm_history_tokens,
            images=turn.images,
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


def _history(stored: list[StoredMessage]) -> list[Message]:
    texts = ((row.role, text_of(decode_parts(row.parts))) for row in stored)
    return [Message("user" if role == "user" else "assistant", text) for role, text in texts if text]


def _same(run_id: str, request_hash: str | None, turn: ChatTurn) -> str:
    if request_hash != turn.fingerprint():
        raise Invalid(
            "This Idempotency-Key was used for another request. Use a new key for each message.",
            code="idempotency_key_reused",
        )
    return run_id


def title_of(message: str) -> str:
    """A session's first title: the beginning of its first message, on one line."""
    line = " ".join(message.split())
    return line if len(line) <= _TITLE else line[: _TITLE - 1].rstrip() + "…"
